package supervise

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
)

// streams are the standard streams of one process, on the monitor's side.
type streams struct {
	config monitor.Streams
	log    *logFile
	// pipes are the inodes of those that the process has; 0 for none.
	pipes [3]uint64

	stdin    *os.File
	terminal *os.File
	opened   chan struct{}  // closed when there is a terminal
	outputs  sync.WaitGroup // pumps that still read

	mu      sync.Mutex
	size    unix.Winsize // that a terminal is to have which is not there yet
	clients map[*client]bool
	ended   bool // no output will come any more
	closeIn sync.Once
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
	s = &streams{config: config, log: log, opened: make(chan struct{}), clients: map[*client]bool{}}
	s.size = unix.Winsize{Col: config.Width, Row: config.Height}
	if config.Terminal || !config.Stdin {
		if child.stdin, err = os.Open(os.DevNull); err != nil {
			return nil, child, err
		}
	} else if child.stdin, s.stdin, err = os.Pipe(); err != nil {
		return nil, child, err
	} else {
		s.pipes[0] = inode(child.stdin)
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
		s.pipes[output.frame] = inode(w)
		// Room for a burst, so that the process seldom waits for the pump.
		_, _ = unix.FcntlInt(r.Fd(), unix.F_SETPIPE_SZ, most)
		if err := unix.SetNonblock(int(r.Fd()), true); err != nil {
			return nil, child, err
		}
		r = reopen(r)
		s.outputs.Go(func() { s.pump(r, output.name, output.frame) })
	}
	return s, child, nil
}

// inode is a file's number, 0 if it is not known.
func inode(f *os.File) uint64 {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0
	}
	return st.Ino
}

// describe is what a checkpoint has to know of the streams.
func (s *streams) describe() *monitor.Description {
	d := &monitor.Description{Terminal: s.config.Terminal}
	for i, inode := range s.pipes {
		if inode != 0 {
			d.Pipes[i] = "pipe:[" + strconv.FormatUint(inode, 10) + "]"
		}
	}
	return d
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
	s.mu.Lock()
	s.terminal = os.NewFile(uintptr(fd), "terminal")
	if s.config.Stdin {
		s.stdin = s.terminal
	}
	size := s.size
	s.mu.Unlock()
	close(s.opened)
	if size.Col > 0 && size.Row > 0 {
		if err := s.resize(size.Col, size.Row); err != nil {
			complain("setting the terminal's size", err)
		}
	}
	s.outputs.Go(func() { s.pump(s.terminal, "stdout", 1) })
}

func (s *streams) closeStdin() {
	s.closeIn.Do(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal != nil {
		_ = s.terminal.Close()
	}
}

func (s *streams) resize(width, height uint16) error {
	size := unix.Winsize{Col: width, Row: height}
	s.mu.Lock()
	terminal := s.terminal
	if terminal == nil && s.config.Terminal {
		s.size = size
	}
	s.mu.Unlock()
	switch {
	case !s.config.Terminal:
		return monitor.Failf(monitor.KindPrecondition, "process has no terminal")
	case terminal == nil:
		return nil // it will have that size
	}
	raw, err := terminal.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) { result = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &size) })
	return errors.Join(err, result)
}
