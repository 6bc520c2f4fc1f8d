package record

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Listen makes the socket on which a created container waits for its start. It
// is inherited by the container's init and closed by its execve.
func (d *Dir) Listen() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), startName)
	// Through the directory's descriptor: a socket's path may have 107 bytes only.
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: descriptorPath(d.file) + "/" + startName})
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("making the start socket: %w", err)
	}
	return f, nil
}

// Forget removes the start socket of a container that was started.
func (d *Dir) Forget() { _ = os.Remove(filepath.Join(d.path, startName)) }

// Dial connects to the container's init; nil if none waits for its start there.
func (d *Dir) Dial() (*os.File, error) { return dial(descriptorPath(d.file)) }

// Waits says whether a container's init waits for its start.
func (r Root) Waits(id string) bool {
	path, err := r.path(id)
	if err != nil {
		return false
	}
	dir, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(dir), path)
	defer func() { _ = f.Close() }()
	conn, err := dial(descriptorPath(f))
	if conn != nil {
		_ = conn.Close() // says nothing: only asked
	}
	return err == nil && conn != nil
}

func dial(dir string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: dir + "/" + startName}); {
	case err == nil:
		return os.NewFile(uintptr(fd), startName), nil
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT): // executed, or dead
		return nil, unix.Close(fd)
	default:
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connecting to the start socket: %w", err)
	}
}

func descriptorPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
