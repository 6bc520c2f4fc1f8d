// Package console connects a container's terminal: to a console socket, or to
// the terminal that the runtime itself runs on.
package console

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Hand gives the master of a terminal to the process that listens on a console
// socket (the descriptor beside the terminal's name, as in runc). Without a
// socket it answers the master; -1 is no terminal.
func Hand(master int, socket string) (*os.File, error) {
	if master < 0 {
		return nil, nil
	}
	f := os.NewFile(uintptr(master), "/dev/ptmx")
	if socket == "" {
		return f, nil
	}
	defer func() { _ = f.Close() }()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return nil, fmt.Errorf("connecting to console socket %s: %w", socket, err)
	}
	if err := unix.Sendmsg(fd, []byte(f.Name()), unix.UnixRights(master), nil, 0); err != nil {
		return nil, fmt.Errorf("sending the terminal to console socket %s: %w", socket, err)
	}
	return nil, nil
}
