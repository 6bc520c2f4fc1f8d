package supervise

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
)

// restore makes the container's init from a checkpoint, up to the point before it
// goes on.
func (s *server) restore(exitPath string) (_ *process, _ <-chan unix.WaitStatus, err error) {
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
	tree, err := s.config.Restore.Start(s.reaper.start, [3]*os.File{ends.stdin, ends.stdout, ends.stderr}, s.createHooks)
	ends.close()
	if err != nil {
		streams.end(time.Second)
		return nil, nil, err
	}
	if tree.Terminal >= 0 {
		streams.setTerminal(tree.Terminal)
	}
	return newProcess(streams, tree, record, tree.PID), tree.Ended, nil
}

// running counts the execs that have not ended.
func (s *server) running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := 0
	for _, p := range s.execs {
		if state, _ := p.status(); state != monitor.StateExited {
			count++
		}
	}
	return count
}
