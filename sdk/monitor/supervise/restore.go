package supervise

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
)

// made is a process that somebody else than the stage has made.
type made struct {
	child
	pid, terminal int // terminal is the master of its terminal, -1 for none
	ended         <-chan unix.WaitStatus
}

// around makes the exit file and the streams of the container's init, which fn makes
// with their ends.
func (s *server) around(exitPath string, fn func(streams [3]*os.File) (made, error)) (_ *process, _ <-chan unix.WaitStatus, err error) {
	record, err := newExitFile(exitPath)
	if err != nil {
		return nil, nil, fmt.Errorf("making the file for the exit status: %w", err)
	}
	defer func() {
		if err != nil {
			record.discard()
		}
	}()
	streams, ends, err := newStreams(s.config.Streams, s.log)
	if err != nil {
		return nil, nil, fmt.Errorf("making streams: %w", err)
	}
	m, err := fn([3]*os.File{ends.stdin, ends.stdout, ends.stderr})
	ends.close()
	if err != nil {
		streams.end(time.Second)
		return nil, nil, err
	}
	if m.terminal >= 0 {
		streams.setTerminal(m.terminal)
	}
	return newProcess(streams, m.child, record, m.pid), m.ended, nil
}

// restore makes the container's init from a checkpoint, up to the point before it
// goes on.
func (s *server) restore(exitPath string) (*process, <-chan unix.WaitStatus, error) {
	return s.around(exitPath, func(streams [3]*os.File) (made, error) {
		tree, err := s.config.Restore.Start(s.reaper.start, streams, s.createHooks)
		if err != nil {
			return made{}, err
		}
		return made{tree, tree.PID, tree.Terminal, tree.Ended}, nil
	})
}

// running counts the execs that have not ended.
func (s *server) running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := 0
	for _, p := range s.execs {
		if p == nil { // it is made just now
			count++
		} else if state, _ := p.status(); state != monitor.StateExited {
			count++
		}
	}
	return count
}
