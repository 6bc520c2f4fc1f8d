package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/storage"
)

// Usage implements storage.Driver. Hard links are counted once.
func (d *Driver) Usage(ctx context.Context, key string) (storage.Usage, error) {
	s, err := d.find(key)
	if err != nil {
		return storage.Usage{}, err
	}
	var usage storage.Usage
	seen := map[uint64]bool{}
	err = filepath.WalkDir(d.content(s.Number), func(_ string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return ignoreMissing(err)
		}
		info, err := entry.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if st.Nlink > 1 && !entry.IsDir() {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		usage.Inodes++
		usage.Size += st.Blocks * 512
		return nil
	})
	return usage, err
}

// ignoreMissing lets a walk go on where a container has deleted something.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Diff implements storage.Differ: it reads the upper directory, where overlayfs
// keeps what was written, with whiteouts for what was deleted.
func (d *Driver) Diff(ctx context.Context, key string, fn func(storage.Change) error) error {
	s, err := d.find(key)
	if err != nil {
		return err
	}
	if s.Kind == storage.KindView {
		return fmt.Errorf("snapshot %q is a view: %w", key, errdefs.ErrFailedPrecondition)
	}
	upper := d.content(s.Number)
	return filepath.WalkDir(upper, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || path == upper {
			return ignoreMissing(err)
		}
		name, err := filepath.Rel(upper, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		change := storage.Change{Kind: storage.ChangeAdd, Path: "/" + name}
		switch {
		case whiteout(info):
			change.Kind = storage.ChangeDelete
		case d.below(s, name):
			change.Kind = storage.ChangeModify
		}
		return fn(change)
	})
}

// whiteout says whether an entry of an upper directory stands for a deletion.
func whiteout(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&os.ModeCharDevice != 0 && unix.Major(st.Rdev) == 0 && unix.Minor(st.Rdev) == 0
}

// below says whether one of the parents has the path: the topmost that says
// anything about it decides.
func (d *Driver) below(s snapshot, name string) bool {
	for _, n := range s.Chain {
		info, err := os.Lstat(filepath.Join(d.content(n), name))
		if err == nil {
			return !whiteout(info)
		}
		// An opaque or deleted directory on the way hides what is further down.
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			path := filepath.Join(d.content(n), dir)
			info, err := os.Lstat(path)
			if err != nil {
				continue
			}
			var value [1]byte
			size, err := unix.Lgetxattr(path, "trusted.overlay.opaque", value[:])
			if whiteout(info) || err == nil && size == 1 && value[0] == 'y' {
				return false
			}
		}
	}
	return false
}
