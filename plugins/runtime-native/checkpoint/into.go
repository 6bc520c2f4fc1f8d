package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// parentName is CRIU's link to the images that a dump is built on.
const parentName = "parent"

// Into dumps into a directory that may be there already, with an earlier
// checkpoint in it, which is lost whatever happens. When the processes are let go
// the images are on the disk. If it fails the container goes on, and the
// directory has no checkpoint; one that was not there is removed.
func Into(dir string, d Dump, start hook.Starter) (err error) {
	undo, err := prepare(dir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo())
		}
	}()
	return d.Run(dir, start, func() error {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		return flush(int(f.Fd()), dir)
	})
}

// prepare makes a directory for images, or takes from one what would make it a
// checkpoint. undo removes what there was not before.
func prepare(dir string) (undo func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("making the directory for images: %w", err)
	}
	err = os.Mkdir(dir, 0o700)
	if err == nil {
		return func() error { return os.RemoveAll(dir) }, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making the directory for images: %w", err)
	}
	forget := func() error {
		for _, name := range []string{imageName, parentName} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	return forget, forget()
}
