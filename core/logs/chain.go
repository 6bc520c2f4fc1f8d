package logs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
)

// chain opens a log's files, the oldest first. It may run while the log is
// rotated: files are opened from the newest on, and as rotation only moves them
// to higher numbers, none is missed; one that is met again is taken once. In the
// middle of a rotation one number is missing.
func chain(path string) (list []*os.File, err error) {
	missing := 0
	for n := 0; missing < 2; n++ {
		name := path
		if n > 0 {
			name += "." + strconv.Itoa(n)
		}
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		met := false
		if err == nil {
			missing = 0
			met, err = contains(list, f)
		}
		if err != nil || met {
			_ = f.Close()
		}
		if err != nil {
			closeAll(list)
			return nil, err
		}
		if !met {
			list = append([]*os.File{f}, list...)
		}
	}
	return list, nil
}

func contains(list []*os.File, f *os.File) (bool, error) {
	for _, other := range list {
		if same, err := sameFile(other, f); err != nil || same {
			return same, err
		}
	}
	return false, nil
}

func closeAll(list []*os.File) {
	for _, f := range list {
		_ = f.Close()
	}
}

func sameFile(a, b *os.File) (bool, error) {
	ai, err := a.Stat()
	if err != nil {
		return false, err
	}
	bi, err := b.Stat()
	return err == nil && os.SameFile(ai, bi), err
}

// newer opens the files that came after f, the oldest first. If f is none of the
// log's files any more, all of them did.
func newer(path string, f *os.File) ([]*os.File, error) {
	list, err := chain(path)
	if err != nil {
		return nil, err
	}
	for i, file := range list {
		same, err := sameFile(file, f)
		if err != nil {
			closeAll(list)
			return nil, err
		}
		if same {
			closeAll(list[:i+1])
			return list[i+1:], nil
		}
	}
	return list, nil
}

// emptied says whether a file is shorter than what was read of it.
func emptied(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	at, err := f.Seek(0, io.SeekCurrent)
	return info.Size() < at, err
}
