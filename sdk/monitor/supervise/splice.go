package supervise

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// worthMoving is how much must wait in a pipe for moving its pages to pay. Less is
// read: small frames cost the client more than they save here.
const worthMoving = most / 4

// gather is how long, and gatherings how often, a flowing pipe is left alone when
// too little waits in it.
const (
	gather     = 20 * time.Microsecond
	gatherings = 4
)

// forward moves what waits in an output's pipe to its only client without
// reading it, if nobody else is to see it. It answers false if there is anybody,
// or too little to be worth it: then the output has to be read. A flowing pipe is
// one from which the last bytes were moved.
func (s *streams) forward(r *os.File, frame byte, targets []*client, flowing bool) bool {
	if s.log != nil || s.config.Terminal || len(targets) != 1 {
		return false
	}
	source, err := r.SyscallConn()
	if err != nil {
		return false
	}
	for range gatherings {
		waiting, err := pending(source)
		if err != nil {
			return false
		}
		if waiting >= worthMoving {
			if !targets[0].splice(r, source, frame, waiting) {
				s.forget(targets[0])
			}
			return true
		}
		if !flowing {
			return false
		}
		// The writer is slower than moving: what it writes meanwhile is one frame.
		_ = unix.Nanosleep(&unix.Timespec{Nsec: gather.Nanoseconds()}, nil)
	}
	return false
}

// pending is how many bytes wait in a pipe.
func pending(pipe syscall.RawConn) (n int, err error) {
	failed := pipe.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n, errors.Join(failed, err)
}

// splice sends a frame of the next size bytes of a pipe, which are in it. It says
// whether the client is to get more.
func (c *client) splice(r *os.File, source syscall.RawConn, frame byte, size int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return false
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.patience))
	var header [headerSize]byte
	header[0] = frame
	binary.BigEndian.PutUint32(header[4:], uint32(size))
	n, err := c.conn.Write(header[:])
	if err == nil {
		size, err = c.move(source, size)
	}
	if err == nil {
		return true
	}
	// Begun frames are ended, and the pipe is emptied for who comes next.
	rest := make([]byte, size)
	_ = r.SetReadDeadline(time.Time{})
	if _, failed := io.ReadFull(r, rest); failed != nil {
		err = errors.Join(err, failed)
	}
	c.part(err, append(header[n:], rest...))
	return false
}

// move has the kernel hand the pipe's pages to the socket and answers how many
// bytes are left after a failure.
func (c *client) move(source syscall.RawConn, left int) (int, error) {
	socket, err := c.conn.SyscallConn()
	if err != nil {
		return left, err
	}
	var failed error
	err = source.Control(func(pipe uintptr) {
		waited := socket.Write(func(fd uintptr) bool {
			for left > 0 && failed == nil {
				n, err := unix.Splice(int(pipe), nil, int(fd), nil, left, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
				switch {
				case err == unix.EAGAIN:
					return false // called again when there is room
				case err == unix.EINTR:
				case err != nil:
					failed = err
				case n == 0:
					failed = io.ErrUnexpectedEOF
				}
				left -= int(max(n, 0))
			}
			return true
		})
		failed = errors.Join(failed, waited)
	})
	return left, errors.Join(failed, err)
}
