package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/storage"
	"github.com/davit-engine/davit/sdk/storage/snapdir"
)

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
	s, err := d.Find(ctx, key)
	if err != nil {
		return err
	}
	if s.Kind == storage.KindView {
		return fmt.Errorf("snapshot %q is a view: %w", key, errdefs.ErrFailedPrecondition)
	}
	upper := d.Tree(s.Number)
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
		if err := fn(change); err != nil || change.Kind != storage.ChangeModify || !entry.IsDir() || !alone(upper, name) {
			return err
		}
		return d.hidden(s, upper, name, fn)
	})
}

// alone says whether a directory does not show what parents have in its place: it
// was made anew, or lies in one that was.
func alone(upper, name string) bool {
	for dir := name; dir != "."; dir = filepath.Dir(dir) {
		if opaque(filepath.Join(upper, dir)) {
			return true
		}
	}
	return false
}

// hidden reports what parents have in a directory that stands alone, and that is
// not there any more.
func (d *Driver) hidden(s snapdir.Snapshot, upper, name string, fn func(storage.Change) error) error {
	names, err := d.listBelow(s, name)
	if err != nil {
		return err
	}
	for _, entry := range names {
		if _, err := os.Lstat(filepath.Join(upper, name, entry)); err == nil {
			continue // the walk comes to it
		}
		if err := fn(storage.Change{Kind: storage.ChangeDelete, Path: "/" + filepath.Join(name, entry)}); err != nil {
			return err
		}
	}
	return nil
}

// listBelow answers, in order, what a directory holds in the parents together.
func (d *Driver) listBelow(s snapdir.Snapshot, name string) ([]string, error) {
	seen := map[string]bool{} // the topmost parent decides: false is deleted
	for _, n := range s.Chain {
		path := filepath.Join(d.Tree(n), name)
		info, err := os.Lstat(path)
		if err != nil {
			if d.covers(n, name) {
				break
			}
			continue
		}
		if !info.IsDir() {
			break
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			if _, decided := seen[entry.Name()]; decided {
				continue
			}
			info, err := entry.Info()
			if err != nil {
				return nil, err
			}
			seen[entry.Name()] = !whiteout(info)
		}
		if opaque(path) || d.covers(n, name) {
			break
		}
	}
	maps.DeleteFunc(seen, func(_ string, there bool) bool { return !there })
	return slices.Sorted(maps.Keys(seen)), nil
}

// whiteout says whether an entry of an upper directory stands for a deletion.
func whiteout(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&os.ModeCharDevice != 0 && unix.Major(st.Rdev) == 0 && unix.Minor(st.Rdev) == 0
}

// below says whether one of the parents has the path: the topmost that says
// anything about it decides.
func (d *Driver) below(s snapdir.Snapshot, name string) bool {
	for _, n := range s.Chain {
		info, err := os.Lstat(filepath.Join(d.Tree(n), name))
		if err == nil {
			return !whiteout(info)
		}
		if d.covers(n, name) {
			return false
		}
	}
	return false
}

// covers says whether something on the way to a path of one parent hides what is
// further down: a directory that is opaque or deleted, or no directory at all.
func (d *Driver) covers(number int, name string) bool {
	for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
		path := filepath.Join(d.Tree(number), dir)
		if info, err := os.Lstat(path); err == nil && (!info.IsDir() || opaque(path)) {
			return true
		}
	}
	return false
}

// opaque says whether overlayfs shows nothing of lower layers in a directory.
func opaque(path string) bool {
	var value [1]byte
	size, err := unix.Lgetxattr(path, "trusted.overlay.opaque", value[:])
	return err == nil && size == 1 && value[0] == 'y'
}
