package logs

import (
	"bytes"
	"errors"
	"io"
)

// tail finds where the last n wanted lines of a log's files begin: the index of
// the first file to read, and the offset in it. It reads backwards, only as far
// as needed.
func tail(list []*file, n int, wanted func([]byte) bool) (from int, offset int64, err error) {
	if len(list) == 0 {
		return 0, 0, nil
	}
	if n == 0 {
		// Nothing of the past; following starts at the newest file's end.
		info, err := list[len(list)-1].Stat()
		if err != nil {
			return 0, 0, err
		}
		return len(list) - 1, info.Size(), nil
	}
	for i := len(list) - 1; i >= 0; i-- {
		found, offset, err := tailOf(list[i], n, wanted)
		if err != nil {
			return 0, 0, err
		}
		if n -= found; n == 0 {
			return i, offset, nil
		}
	}
	return 0, 0, nil
}

// tailOf counts wanted lines from a file's end until n are found, and answers
// where the first of them begins.
func tailOf(f *file, n int, wanted func([]byte) bool) (found int, offset int64, err error) {
	if err := f.unpack(); err != nil {
		return 0, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	const chunk = 64 << 10
	var rest []byte // the beginning of the line that continues after the chunk
	for end := info.Size(); end > 0; {
		begin := max(0, end-chunk)
		p := make([]byte, end-begin, int(end-begin)+len(rest))
		if _, err := f.ReadAt(p, begin); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		p = append(p, rest...)
		for {
			last := bytes.LastIndexByte(bytes.TrimSuffix(p, []byte("\n")), '\n')
			if last < 0 {
				break
			}
			if line := bytes.TrimSuffix(p[last+1:], []byte("\n")); len(line) > 0 && wanted(line) {
				if found++; found == n {
					return found, begin + int64(last) + 1, nil
				}
			}
			p = p[:last+1]
		}
		rest, end = p, begin
	}
	if line := bytes.TrimSuffix(rest, []byte("\n")); len(line) > 0 && wanted(line) {
		found++
	}
	return found, 0, nil
}
