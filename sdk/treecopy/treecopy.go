// Package treecopy copies directory trees as they are: owners, modes, times to
// the nanosecond, extended attributes with access control lists and
// capabilities, symbolic and hard links, holes, devices, fifos and sockets. Where
// the filesystem can, files share their blocks until one of them is written to.
//
// Both trees may belong to somebody hostile who changes them meanwhile: nothing is
// reached by a path, no symbolic link is followed, and what is not a regular file
// is not opened.
package treecopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/openat2"
)

// MaxDepth is how deep a tree may be: deeper than any path that the kernel takes.
const MaxDepth = unix.PathMax / 2

// Copy fills the empty directory into with what is in from, and gives it the
// attributes of from. Other filesystems that are mounted in from are left out. An
// error leaves a part of the copy.
func Copy(ctx context.Context, from, into *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: from.Name(), Err: err}
	}
	c := copier{ctx: ctx, root: into, device: st.Dev, links: map[inode]link{}}
	if err := c.directory(from, into, ".", 0); err != nil {
		return err
	}
	return Attributes(from, into)
}

type inode struct{ dev, ino uint64 }

// link is the first copy of a file with several names.
type link struct {
	name string // from the root of the copy
	ino  uint64 // of the copy
}

type copier struct {
	ctx    context.Context
	root   *os.File
	device uint64
	links  map[inode]link
}

// directory copies the entries of a directory, which is called name.
func (c *copier) directory(from, into *os.File, name string, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("a tree deeper than %d directories", MaxDepth)
	}
	for {
		entries, err := from.ReadDir(256)
		for _, entry := range entries {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			if err := c.entry(from, into, entry.Name(), path.Join(name, entry.Name()), depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// entry copies one entry of a directory; shown is its name from the root.
func (c *copier) entry(from, into *os.File, name, shown string, depth int) error {
	source, err := openEntry(from, name, shown)
	if errors.Is(err, unix.ENOENT) {
		return nil // gone since it was listed
	}
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: shown, Err: err}
	}
	id := inode{st.Dev, st.Ino}
	shared := st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR
	if first, again := c.links[id]; shared && again {
		return c.link(first, into, name, shown)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = c.subdirectory(source, &st, into, name, shown, depth) // which says where it failed
	} else if err = c.content(source, &st, into, name, shown); err != nil {
		err = fmt.Errorf("copying %s: %w", shown, err)
	}
	if err != nil {
		return err
	}
	made, err := openEntry(into, name, shown)
	if err != nil {
		return err
	}
	defer func() { _ = made.Close() }()
	if err := Attributes(source, made); err != nil {
		return fmt.Errorf("copying %s: %w", shown, err)
	}
	if shared {
		var copied unix.Stat_t
		if err := unix.Fstat(int(made.Fd()), &copied); err != nil {
			return err
		}
		c.links[id] = link{shown, copied.Ino}
	}
	return nil
}

// openEntry holds an entry of a directory without opening it.
func openEntry(dir *os.File, name, shown string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: shown, Err: err}
	}
	return os.NewFile(uintptr(fd), shown), nil
}

// reopen opens what is held, with other flags.
func reopen(held *os.File, flags int) (*os.File, error) {
	fd, err := unix.Open(fdPath(held), flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: held.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), held.Name()), nil
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// content makes an entry that is no directory, and fills it.
func (c *copier) content(source *os.File, st *unix.Stat_t, into *os.File, name, shown string) error {
	dir := int(into.Fd())
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFREG:
		return c.file(source, into, name, shown)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(source.Fd()), "", target)
		if err != nil {
			return err
		}
		return unix.Symlinkat(string(target[:n]), dir, name)
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
		return unix.Mknodat(dir, name, kind|0o600, int(st.Rdev))
	default:
		return fmt.Errorf("a file of the unknown kind %o", kind)
	}
}

func (c *copier) subdirectory(source *os.File, st *unix.Stat_t, into *os.File, name, shown string, depth int) error {
	if err := unix.Mkdirat(int(into.Fd()), name, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: shown, Err: err}
	}
	if st.Dev != c.device {
		return nil // something else is mounted here
	}
	from, err := reopen(source, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	fd, err := unix.Openat(int(into.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: shown, Err: err}
	}
	made := os.NewFile(uintptr(fd), shown)
	defer func() { _ = made.Close() }()
	return c.directory(from, made, shown, depth+1)
}

// link gives a file that was copied under its first name another one.
func (c *copier) link(first link, into *os.File, name, shown string) error {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
	fd, err := openat2.Open(int(c.root.Fd()), first.name, how)
	if err != nil {
		return &os.PathError{Op: "open", Path: first.name, Err: err}
	}
	held := os.NewFile(uintptr(fd), first.name)
	defer func() { _ = held.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Ino != first.ino {
		return fmt.Errorf("linking %s: %s was replaced meanwhile", shown, first.name)
	}
	if err := unix.Linkat(unix.AT_FDCWD, fdPath(held), int(into.Fd()), name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.LinkError{Op: "link", Old: first.name, New: shown, Err: err}
	}
	return nil
}
