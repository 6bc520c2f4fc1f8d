package logs

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/davit-engine/davit/sdk/monitor"
)

// file is one of a log's files. What is read of a compressed one is a file of its
// own, which has no name.
type file struct {
	*os.File
	id     monitor.LogID
	origin *monitor.LogID // of a compressed file: what it was made of
	packed bool           // and not unpacked yet
}

// open opens a log file by the name it has without compression.
func open(name string) (*file, error) {
	plain, err := os.Open(name)
	if err == nil {
		return newFile(plain)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	packed, err := os.Open(name + monitor.PackedSuffix)
	if err != nil {
		return nil, err
	}
	f, err := newFile(packed)
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(packed)
	if err != nil {
		_ = packed.Close()
		return nil, fmt.Errorf("reading %s: %w", packed.Name(), err)
	}
	f.packed, f.origin = true, &monitor.LogID{}
	if id, ok := monitor.ParseLogID(r.Extra); ok {
		f.origin = &id
	}
	return f, nil
}

func newFile(f *os.File) (*file, error) {
	id, err := monitor.NewLogID(f)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &file{File: f, id: id}, nil
}

// same says whether both have the same entries: they are the same file, or one was
// made by compressing the other.
func (f *file) same(other *file) bool {
	switch {
	case f.origin != nil && other.origin == nil:
		return other.same(f)
	case f.origin == nil && other.origin != nil:
		// It may have been written since it was opened.
		id, err := monitor.NewLogID(f.File)
		return err == nil && id == *other.origin
	case f.origin != nil:
		return f.id == other.id // compressed files are not written again
	}
	return f.id.Inode == other.id.Inode // both are open
}

// unpack makes the content of a compressed file readable, in any order.
func (f *file) unpack() error {
	if !f.packed {
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	plain, err := os.CreateTemp("", "davit-log-")
	if err != nil {
		return err
	}
	_ = os.Remove(plain.Name())
	_, err = io.Copy(plain, r)
	if err == nil {
		_, err = plain.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = plain.Close()
		return fmt.Errorf("unpacking %s: %w", f.Name(), err)
	}
	_ = f.Close()
	f.File, f.packed = plain, false
	return nil
}

func closeAll(list []*file) {
	for _, f := range list {
		_ = f.Close()
	}
}
