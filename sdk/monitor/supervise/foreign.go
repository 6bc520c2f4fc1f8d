package supervise

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/foreign"
)

// createForeign has another runtime create the container.
func (s *server) createForeign(exitPath string) (_ *process, _ <-chan unix.WaitStatus, err error) {
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
	c, err := s.config.Foreign.Create(s.reaper.start, [3]*os.File{ends.stdin, ends.stdout, ends.stderr}, s.config.Streams.Terminal)
	ends.close()
	if err != nil {
		streams.end(time.Second)
		return nil, nil, err
	}
	s.trace.Done("monitor: the runtime's create")
	if c.Terminal >= 0 {
		streams.setTerminal(c.Terminal)
	}
	return newProcess(streams, c, record, c.PID), c.Ended, nil
}

// execForeign prepares an exec that another runtime will make when it is started.
func (s *server) execForeign(request monitor.Request, exitPath string) monitor.Response {
	record, err := newExitFile(exitPath)
	if err != nil {
		return monitor.Response{Error: monitor.AsFailure(fmt.Errorf("making the file for the exit status: %w", err))}
	}
	streams, ends, err := newStreams(*request.Streams, nil)
	if err != nil {
		record.discard()
		return monitor.Response{Error: monitor.AsFailure(fmt.Errorf("making streams: %w", err))}
	}
	var terminal func(int)
	if request.Streams.Terminal {
		terminal = streams.setTerminal
	}
	e := &foreignExec{Exec: s.config.Foreign.Exec(s.reaper.start, request.Exec, request.Stage, [3]*os.File{ends.stdin, ends.stdout, ends.stderr}, terminal)}
	e.process = newProcess(streams, e, record, 0)
	return s.keep(request.Exec, e.process, e.Wait)
}

// foreignExec has no pid before it is executed.
type foreignExec struct {
	*foreign.Exec
	process *process
}

// Execute implements child.
func (e *foreignExec) Execute() error {
	pid, err := e.Exec.Execute()
	if err == nil {
		e.process.mu.Lock()
		e.process.pid = pid
		e.process.mu.Unlock()
	}
	return err
}
