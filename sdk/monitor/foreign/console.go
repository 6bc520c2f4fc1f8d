package foreign

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// console is a socket on which a runtime hands over the master of a terminal
// (--console-socket).
type console struct {
	dir    *os.File
	socket int
	name   string
}

// handOver is how long the master may take after the program has ended: it was
// sent before.
const handOver = 5 * time.Second

// newConsole listens in a directory.
func newConsole(work, name string) (_ *console, err error) {
	c := &console{socket: -1, name: name + ".sock"}
	if c.dir, err = os.Open(work); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := remove(work + "/" + c.name); err != nil {
		return nil, err
	}
	if c.socket, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, err
	}
	if err := unix.Bind(c.socket, &unix.SockaddrUnix{Name: c.path()}); err != nil {
		return nil, fmt.Errorf("making the console socket: %w", err)
	}
	return c, unix.Listen(c.socket, 1)
}

// path is short, however deep the directory is: a socket's may have 107 bytes.
func (c *console) path() string {
	return "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(c.dir.Fd())) + "/" + c.name
}

// receive answers the terminal's master.
func (c *console) receive() (int, error) {
	if err := poll(c.socket); err != nil {
		return -1, err
	}
	conn, _, err := unix.Accept4(c.socket, unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(conn) }()
	if err := poll(conn); err != nil {
		return -1, err
	}
	var name [4096]byte
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(conn, name[:], control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return -1, err
	}
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil && len(fds) > 0 {
			return fds[0], nil
		}
	}
	return -1, errors.New("the runtime sent no terminal on the console socket")
}

func poll(fd int) error {
	for deadline := time.Now().Add(handOver); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(handOver.Milliseconds()))
		if n > 0 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("the runtime does not connect to the console socket")
		}
	}
}

func (c *console) close() {
	if c == nil {
		return
	}
	if c.socket >= 0 {
		_ = unix.Close(c.socket)
		_ = os.Remove(c.path())
	}
	_ = c.dir.Close()
}
