package logs

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strconv"
)

// chain opens a log's files, the oldest first. It may run while the log is
// rotated: files are opened from the newest on, and as rotation only moves them
// to higher numbers, none is missed; one that is met again is taken once. In the
// middle of a rotation one number is missing.
func chain(path string) (list []*file, err error) {
	missing := 0
	for n := 0; missing < 2; n++ {
		name := path
		if n > 0 {
			name += "." + strconv.Itoa(n)
		}
		f, err := open(name)
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		if err != nil {
			closeAll(list)
			return nil, err
		}
		missing = 0
		if index(list, f) >= 0 {
			_ = f.Close()
			continue
		}
		list = slices.Insert(list, 0, f)
	}
	return list, nil
}

// index is where a file is in a list, or -1.
func index(list []*file, f *file) int {
	return slices.IndexFunc(list, f.same)
}

// newer opens the files that came after f, the oldest first. If f is none of the
// log's files any more, all of them did.
func newer(path string, f *file) ([]*file, error) {
	list, err := chain(path)
	if err != nil {
		return nil, err
	}
	after := index(list, f) + 1
	closeAll(list[:after])
	return list[after:], nil
}

// emptied says whether a file is shorter than what was read of it.
func emptied(f *file) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	at, err := f.Seek(0, io.SeekCurrent)
	return info.Size() < at, err
}
