// Package treediff finds out in what one directory tree differs from another, for
// storage drivers whose snapshots are whole trees.
//
// The trees may belong to somebody hostile who changes them meanwhile: no symbolic
// link leads out of them, and what is not a regular file is not opened.
package treediff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/storage"
	"github.com/davit-engine/davit/sdk/treecopy"
)

// Compare calls fn for every path in which the tree above differs from the one below,
// of which it is a copy: parents before what is in them, and of what was deleted only
// the topmost path. A directory in which something differs does so itself. Where the
// inode of above has not changed since untouched, when the copy was finished, contents
// and extended attributes are not read. The error of fn is answered.
func Compare(ctx context.Context, below, above string, untouched time.Time, fn func(storage.Change) error) (err error) {
	c := &comparison{ctx: ctx, report: fn, untouched: untouched.Add(-margin)}
	for _, tree := range []struct {
		path string
		root **os.Root
	}{{below, &c.below}, {above, &c.above}} {
		if *tree.root, err = os.OpenRoot(tree.path); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, (*tree.root).Close()) }()
	}
	return c.directory(".", nil)
}

// Added calls fn for everything in a tree, as Compare does for one that is a copy of
// nothing.
func Added(ctx context.Context, tree string, fn func(storage.Change) error) (err error) {
	c := &comparison{ctx: ctx, report: fn}
	if c.above, err = os.OpenRoot(tree); err != nil {
		return err
	}
	return errors.Join(c.allAdded("."), c.above.Close())
}

// margin is by how much a filesystem's clock may be coarser than the system's.
const margin = 2 * time.Second

type comparison struct {
	ctx          context.Context
	below, above *os.Root
	untouched    time.Time
	report       func(storage.Change) error
}

// parents are the directories on the way to a path, the innermost first, that are
// reported only if something in them differs; nil for none.
type parents struct {
	name  string
	told  bool
	outer *parents
}

// tell reports a change, and before it those of the directories that it is in.
func (c *comparison) tell(in *parents, kind storage.ChangeKind, name string) error {
	if in != nil && !in.told {
		if err := c.tell(in.outer, storage.ChangeModify, in.name); err != nil {
			return err
		}
		in.told = true
	}
	return c.report(storage.Change{Kind: kind, Path: "/" + name})
}

// directory compares what two directories of a name hold.
func (c *comparison) directory(name string, in *parents) error {
	had, err := entries(c.below, name)
	if err != nil {
		return err
	}
	has, err := entries(c.above, name)
	if err != nil {
		return err
	}
	names := maps.Clone(had)
	maps.Copy(names, has)
	for _, entry := range slices.Sorted(maps.Keys(names)) {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		inner := path.Join(name, entry)
		switch {
		case !has[entry]:
			err = c.tell(in, storage.ChangeDelete, inner)
		case !had[entry]:
			err = c.added(inner, in)
		default:
			err = c.entry(inner, in)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entries names what a directory holds. One that is gone since it was listed, or is
// something else by now, holds nothing.
func entries(root *os.Root, name string) (map[string]bool, error) {
	dir, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_DIRECTORY, 0)
	if gone(err) {
		return map[string]bool{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	list, err := dir.Readdirnames(-1)
	names := make(map[string]bool, len(list))
	for _, entry := range list {
		names[entry] = true
	}
	return names, err
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// added reports what only the tree above has.
func (c *comparison) added(name string, in *parents) error {
	info, err := c.above.Lstat(name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.tell(in, storage.ChangeAdd, name); err != nil || !info.IsDir() {
		return err
	}
	return c.allAdded(name)
}

// allAdded reports what is in a directory that only the tree above has.
func (c *comparison) allAdded(name string) error {
	has, err := entries(c.above, name)
	if err != nil {
		return err
	}
	for _, entry := range slices.Sorted(maps.Keys(has)) {
		if err := errors.Join(c.ctx.Err(), c.added(path.Join(name, entry), nil)); err != nil {
			return err
		}
	}
	return nil
}

// entry compares what is of one name in both trees.
func (c *comparison) entry(name string, in *parents) error {
	was, err := c.below.Lstat(name)
	if err != nil {
		return err
	}
	is, err := c.above.Lstat(name)
	if gone(err) {
		return c.tell(in, storage.ChangeDelete, name)
	}
	if err != nil {
		return err
	}
	same, err := c.same(name, was, is)
	if err != nil {
		return fmt.Errorf("comparing %s: %w", name, err)
	}
	if !same {
		if err := c.tell(in, storage.ChangeModify, name); err != nil {
			return err
		}
		in = nil // and all above it
	}
	switch {
	case !is.IsDir():
		return nil
	case !was.IsDir():
		return c.allAdded(name)
	case same:
		in = &parents{name: name, outer: in}
	}
	return c.directory(name, in)
}

// same says whether two files are the same but for what is in directories.
func (c *comparison) same(name string, was, is fs.FileInfo) (bool, error) {
	a, b := was.Sys().(*syscall.Stat_t), is.Sys().(*syscall.Stat_t)
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev || a.Mtim != b.Mtim || !is.IsDir() && a.Size != b.Size {
		return false, nil
	}
	if time.Unix(b.Ctim.Unix()).Before(c.untouched) {
		return true, nil
	}
	same, err := c.sameAttributes(name)
	if err != nil || !same {
		return false, err
	}
	if is.Mode().IsRegular() {
		return c.sameContents(name)
	}
	if is.Mode()&fs.ModeSymlink != 0 {
		return c.sameTargets(name)
	}
	return true, nil
}

func (c *comparison) sameAttributes(name string) (bool, error) {
	var of [2]map[string]string
	for i, root := range []*os.Root{c.below, c.above} {
		held, err := root.OpenFile(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if gone(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		of[i], err = treecopy.ExtendedAttributes(held)
		if err = errors.Join(err, held.Close()); err != nil {
			return false, err
		}
	}
	return maps.Equal(of[0], of[1]), nil
}

func (c *comparison) sameTargets(name string) (bool, error) {
	was, err := c.below.Readlink(name)
	if err != nil {
		return false, err
	}
	is, err := c.above.Readlink(name)
	if gone(err) || errors.Is(err, unix.EINVAL) {
		return false, nil // it is none any more
	}
	return was == is, err
}

// sameContents reads two regular files of the same size.
func (c *comparison) sameContents(name string) (bool, error) {
	var of [2]*os.File
	for i, root := range []*os.Root{c.below, c.above} {
		f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if gone(err) || errors.Is(err, unix.ENXIO) { // a socket or fifo by now
			return false, nil
		}
		if err != nil {
			return false, err
		}
		defer func() { _ = f.Close() }()
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			return false, err
		}
		of[i] = f
	}
	was, is := make([]byte, 1<<17), make([]byte, 1<<17)
	for {
		if err := c.ctx.Err(); err != nil {
			return false, err
		}
		n, errWas := io.ReadFull(of[0], was)
		m, errIs := io.ReadFull(of[1], is)
		if !bytes.Equal(was[:n], is[:m]) {
			return false, nil
		}
		if errWas != nil || errIs != nil {
			if ended(errWas) && ended(errIs) {
				return true, nil
			}
			return false, errors.Join(errWas, errIs)
		}
	}
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
