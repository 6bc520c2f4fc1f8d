package supervise

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/foreign"
)

// createForeign has another runtime create the container.
func (s *server) createForeign(exitPath string) (*process, <-chan unix.WaitStatus, error) {
	return s.around(exitPath, func(streams [3]*os.File) (made, error) {
		c, err := s.config.Foreign.Create(s.reaper.start, streams, s.config.Streams.Terminal)
		if err != nil {
			return made{}, err
		}
		s.trace.Done("monitor: the runtime's create")
		return made{c, c.PID, c.Terminal, c.Ended}, nil
	})
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
