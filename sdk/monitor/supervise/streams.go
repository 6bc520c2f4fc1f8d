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
	headerSize = 8        // of Docker's stream frames
	chunk      = 32 << 10 // read at once from a pipe
)

// streams are the standard streams of one process, on the monitor's side.
type streams struct {
	config monitor.Streams
	log    *logFile

	stdin    *os.File
	terminal *os.File
	outputs  sync.WaitGroup // pumps that still read

	mu      sync.Mutex
	clients map[*client]bool
	ended   bool // no output will come any more
	closeIn sync.Once
}

// client is an attached connection. Writes to it are in the pumps' goroutines: a
// client that reads slowly slows the process down, as a terminal would; one
// that is gone fails and is dropped.
type client struct {
	conn           *net.UnixConn
	stdout, stderr bool
	mu             sync.Mutex // frames of the two outputs must not mix
	done           chan struct{}
	once           sync.Once
}

func (c *client) finish() {
	c.once.Do(func() {
		_ = c.conn.CloseWrite()
		close(c.done)
	})
}

// childFiles are the ends that the process gets.
type childFiles struct{ stdin, stdout, stderr *os.File }

func (c childFiles) close() {
	for _, f := range []*os.File{c.stdin, c.stdout, c.stderr} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// newStreams makes pipes, or nothing for a terminal, which the stage opens
// itself and hands over with setTerminal.
func newStreams(config monitor.Streams, log *logFile) (s *streams, child childFiles, err error) {
	s = &streams{config: config, log: log, clients: map[*client]bool{}}
	if config.Terminal || !config.Stdin {
		if child.stdin, err = os.Open(os.DevNull); err != nil {
			return nil, child, err
		}
	} else if child.stdin, s.stdin, err = os.Pipe(); err != nil {
		return nil, child, err
	}
	if config.Terminal {
		child.stdout, child.stderr = child.stdin, child.stdin
		return s, child, nil
	}
	for _, output := range []struct {
		child **os.File
		name  string
		frame byte
	}{{&child.stdout, "stdout", 1}, {&child.stderr, "stderr", 2}} {
		r, w, err := os.Pipe()
		if err != nil {
			child.close()
			return nil, child, err
		}
		*output.child = w
		// Room for a burst, so that the process seldom waits for the pump.
		_, _ = unix.FcntlInt(r.Fd(), unix.F_SETPIPE_SZ, 256<<10)
		if err := unix.SetNonblock(int(r.Fd()), true); err != nil {
			return nil, child, err
		}
		r = reopen(r)
		s.outputs.Go(func() { s.pump(r, output.name, output.frame) })
	}
	return s, child, nil
}

// reopen puts a descriptor that Fd has made blocking back under the poller.
func reopen(f *os.File) *os.File {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return f
	}
	name := f.Name()
	_ = f.Close()
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

// setTerminal takes over the terminal's master.
func (s *streams) setTerminal(fd int) {
	_ = unix.SetNonblock(fd, true)
	s.terminal = os.NewFile(uintptr(fd), "terminal")
	if s.config.Stdin {
		s.stdin = s.terminal
	}
	s.outputs.Go(func() { s.pump(s.terminal, "stdout", 1) })
}

// pump moves one output to the log and to every client, until its end.
func (s *streams) pump(r *os.File, name string, frame byte) {
	defer func() {
		if r != s.terminal {
			_ = r.Close()
		}
	}()
	split := &splitter{log: s.log, stream: name}
	buffer := make([]byte, headerSize+chunk)
	buffer[0] = frame
	var targets []*client
	for {
		n, err := r.Read(buffer[headerSize:])
		if n > 0 {
			split.write(buffer[headerSize:headerSize+n], time.Now())
			binary.BigEndian.PutUint32(buffer[4:], uint32(n))
			message := buffer[:headerSize+n]
			if s.config.Terminal {
				message = buffer[headerSize : headerSize+n]
			}
			targets = s.targets(targets[:0], frame)
			for _, c := range targets {
				if err := c.write(message); err != nil {
					s.drop(c)
				}
			}
		}
		if err != nil { // EOF, or EIO of a terminal nobody has open any more
			split.close(time.Now())
			return
		}
	}
}

func (c *client) write(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.conn.Write(p)
	return err
}

func (s *streams) targets(list []*client, frame byte) []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		if frame == 1 && c.stdout || frame == 2 && c.stderr {
			list = append(list, c)
		}
	}
	return list
}

func (s *streams) drop(c *client) {
	s.mu.Lock()
	delete(s.clients, c)
	s.mu.Unlock()
	c.finish()
}

// attach adds a client and returns when it is done: the process's output has
// ended, or the client went away. It is called after the client was told that
// it is attached.
func (s *streams) attach(conn *net.UnixConn, request monitor.Request) {
	c := &client{conn: conn, stdout: request.Stdout, stderr: request.Stderr, done: make(chan struct{})}
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
}

// readClient copies a client's input to the process. Without stdin it only
// watches for the client's end.
func (s *streams) readClient(c *client, stdin bool) {
	buffer := make([]byte, chunk)
	var broken bool
	for {
		n, err := c.conn.Read(buffer)
		if n > 0 && stdin && s.stdin != nil && !broken {
			// The process may have closed its end: what follows is for nobody.
			if _, err := s.stdin.Write(buffer[:n]); err != nil {
				broken = true
			}
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			if stdin && s.config.StdinOnce && !s.config.Terminal {
				s.closeStdin()
			}
			s.waitHangup(c)
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		s.drop(c)
		return
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

func (s *streams) closeStdin() {
	s.closeIn.Do(func() {
		if s.stdin != nil && s.stdin != s.terminal {
			_ = s.stdin.Close()
		}
	})
}

// end waits for the pumps, for at most grace if something else holds the pipes,
// and lets every client go.
func (s *streams) end(grace time.Duration) {
	finished := make(chan struct{})
	go func() {
		s.outputs.Wait()
		close(finished)
	}()
	select {
	case <-finished:
	case <-time.After(grace):
	}
	s.mu.Lock()
	s.ended = true
	clients := s.clients
	s.clients = map[*client]bool{}
	s.mu.Unlock()
	for c := range clients {
		c.finish()
	}
	s.closeStdin()
	if s.terminal != nil {
		_ = s.terminal.Close()
	}
}

func (s *streams) resize(width, height uint16) error {
	if s.terminal == nil {
		return monitor.Failf(monitor.KindPrecondition, "process has no terminal")
	}
	raw, err := s.terminal.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) {
		result = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height})
	})
	return errors.Join(err, result)
}
