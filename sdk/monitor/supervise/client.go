package supervise

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
)

const (
	// backlog is how many bytes of output wait in the kernel for a client that does
	// not read now.
	backlog = 4 << 20
	// patience is how long a client with a full backlog may take to read a piece of
	// output before the process goes on without it.
	patience = 10 * time.Second
	// inputChunk is how much of a client's input is read at once.
	inputChunk = 32 << 10
	// errorFrame is the stream number of a message from the engine itself.
	errorFrame = 3
)

// cutOff is what a client reads last that was too slow.
const cutOff = "the client read the container's output too slowly and was detached"

// client is an attached connection. Writes to it are in the pumps' goroutines: a
// client that reads slowly slows the process down, as a pipe does, and loses
// nothing; one that reads nothing at all for longer than patience is cut off.
type client struct {
	conn           *net.UnixConn
	stdout, stderr bool
	framed         bool
	patience       time.Duration

	mu   sync.Mutex // frames of the two outputs must not mix
	cut  bool       // it was too slow, or is gone
	done chan struct{}
	once sync.Once
	// farewell is the writing of what a cut client still gets.
	farewell sync.WaitGroup
}

func newClient(conn *net.UnixConn, request monitor.Request, streams monitor.Streams) *client {
	raw, err := conn.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, backlog) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, backlog)
			}
		})
	}
	c := &client{conn: conn, stdout: request.Stdout, stderr: request.Stderr, framed: !streams.Terminal, patience: patience, done: make(chan struct{})}
	if streams.Patience > 0 {
		c.patience = time.Duration(streams.Patience) * time.Millisecond
	}
	return c
}

// write sends a piece of output and says whether the client is to get more.
func (c *client) write(p []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return false
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.patience))
	n, err := c.conn.Write(p)
	if err == nil {
		return true
	}
	c.part(err, p[n:])
	return false
}

// part lets a client go to whom writing failed. One that is only slow gets the
// rest of what was begun, and is told, whenever it reads again. The caller holds
// the lock.
func (c *client) part(err error, rest []byte) {
	c.cut = true
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.finish()
		return
	}
	last := append([]byte(nil), rest...)
	if c.framed {
		last = append(last, errorFrame, 0, 0, 0)
		last = append(binary.BigEndian.AppendUint32(last, uint32(len(cutOff))), cutOff...)
	}
	c.farewell.Go(func() {
		defer c.finish()
		_ = c.conn.SetWriteDeadline(time.Time{})
		_, _ = c.conn.Write(last)
	})
}

// finish ends the stream to the client.
func (c *client) finish() {
	c.once.Do(func() {
		_ = c.conn.CloseWrite()
		close(c.done)
	})
}

// forget sends a client no more output.
func (s *streams) forget(c *client) {
	s.mu.Lock()
	delete(s.clients, c)
	s.mu.Unlock()
}

// drop lets go of a client that has closed its connection.
func (s *streams) drop(c *client) {
	s.forget(c)
	c.finish()
}

// attach adds a client and returns when it is done: the process's output has
// ended, or the client went away. It is called after the client was told that
// it is attached.
func (s *streams) attach(conn *net.UnixConn, request monitor.Request) {
	c := newClient(conn, request, s.config)
	s.mu.Lock()
	if s.ended {
		c.finish()
	} else {
		s.clients[c] = true
	}
	s.mu.Unlock()
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		s.readClient(c, request.Stdin)
	}()
	<-c.done
	// All output is in the socket. Stdin that still arrives has no reader.
	_ = conn.SetReadDeadline(time.Now())
	<-reading
	c.farewell.Wait()
}

// readClient copies a client's input to the process, until the client's end.
// Without stdin it only watches for that.
func (s *streams) readClient(c *client, stdin bool) {
	if s.config.Terminal {
		select {
		case <-s.opened:
		case <-c.done:
		}
	}
	stdin = stdin && s.stdin != nil
	buffer := make([]byte, 512)
	var broken bool
	for {
		n, err := c.conn.Read(buffer)
		if n > 0 && stdin && !broken {
			// The process may have closed its end: what follows is for nobody.
			if _, err := s.stdin.Write(buffer[:n]); err != nil {
				broken = true
			}
		}
		switch {
		case err == nil && stdin && n == len(buffer) && n < inputChunk:
			buffer = make([]byte, inputChunk)
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded): // all output was sent
			return
		default:
			if stdin && s.config.StdinOnce && !s.config.Terminal {
				s.closeStdin()
			}
			if !errors.Is(err, io.EOF) {
				s.drop(c)
				return
			}
			s.waitHangup(c)
			return
		}
	}
}

// waitHangup returns when a client that has ended its input has also closed its
// connection, or is done.
func (s *streams) waitHangup(c *client) {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		<-c.done
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		select {
		case <-c.done:
			return true
		default:
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		_, _ = unix.Poll(poll, 0)
		if poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
			s.drop(c)
			return true
		}
		return false
	})
}
