package treecopy

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// part is how much is copied before somebody looks whether to go on.
const part = 64 << 20

// file copies a regular file.
func (c *copier) file(source, into *os.File, name, shown string) (err error) {
	from, err := reopen(source, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	fd, err := unix.Openat(int(into.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	made := os.NewFile(uintptr(fd), shown)
	defer func() { err = errors.Join(err, made.Close()) }()
	if unix.IoctlFileClone(fd, int(from.Fd())) == nil {
		return nil
	}
	return c.bytes(from, made)
}

// bytes copies what is between a file's holes, and its size.
func (c *copier) bytes(from, into *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	for at := int64(0); at < st.Size; {
		begin, err := unix.Seek(int(from.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // only a hole is left
		}
		end := st.Size
		if err == nil {
			end, err = unix.Seek(int(from.Fd()), begin, unix.SEEK_HOLE)
		}
		if errors.Is(err, unix.EINVAL) {
			begin, end, err = at, st.Size, nil // a filesystem that knows no holes
		}
		if err != nil {
			return err
		}
		if err := c.segment(from, into, begin, min(end, st.Size)); err != nil {
			return err
		}
		at = end
	}
	return into.Truncate(st.Size)
}

func (c *copier) segment(from, into *os.File, begin, end int64) error {
	if _, err := from.Seek(begin, io.SeekStart); err != nil {
		return err
	}
	if _, err := into.Seek(begin, io.SeekStart); err != nil {
		return err
	}
	for at := begin; at < end; {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		// The kernel copies by itself where it can.
		n, err := io.CopyN(into, from, min(part, end-at))
		if errors.Is(err, io.EOF) {
			return nil // shorter than it was
		}
		if err != nil {
			return err
		}
		at += n
	}
	return nil
}
