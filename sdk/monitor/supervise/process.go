package supervise

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/launch"
)

// process is the container's init or an exec.
type process struct {
	streams *streams
	child   child
	record  *exitFile

	mu      sync.Mutex // of what follows, and held around kill(2) so that the pid cannot be another's
	pid     int        // 0: there is no process yet
	started bool       // the order to execute was given
	state   string
	exit    monitor.Exit
	ended   chan struct{} // closed when exit is known, before the output has ended
	drained chan struct{} // closed when the output has ended
}

// child is a process that waits for the order to go on: a stage, or a restored
// one.
type child interface {
	// Execute answers when it has gone on, or why it cannot.
	Execute() error
	// Close gives it up.
	Close()
}

// create makes a process up to the point before its program is executed.
func create(r *reaper, stage launch.Stage, config monitor.Streams, log *logFile, exitPath string, trace *monitor.Trace) (_ *process, _ <-chan unix.WaitStatus, err error) {
	record, err := newExitFile(exitPath)
	if err != nil {
		return nil, nil, fmt.Errorf("making the file for the exit status: %w", err)
	}
	defer func() {
		if err != nil {
			record.discard()
		}
	}()
	streams, ends, err := newStreams(config, log)
	if err != nil {
		return nil, nil, fmt.Errorf("making streams: %w", err)
	}
	trace.Done("monitor: exit file and streams")
	stage.Stdin, stage.Stdout, stage.Stderr = ends.stdin, ends.stdout, ends.stderr
	var child *launch.Child
	pid, ended, err := r.start(func() (int, error) {
		c, err := stage.Start()
		if err != nil {
			return 0, err
		}
		child = c
		return c.PID, nil
	})
	ends.close()
	if err != nil {
		streams.end(0)
		return nil, nil, err
	}
	trace.Done("monitor: cloning the stage")
	terminal, err := child.WaitReady()
	trace.Add(child.Trace)
	trace.Done("monitor: hearing that the stage is ready")
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		<-ended
		child.Close()
		streams.end(time.Second)
		return nil, nil, err
	}
	if terminal >= 0 {
		streams.setTerminal(terminal)
	}
	return newProcess(streams, child, record, pid), ended, nil
}

func newProcess(streams *streams, child child, record *exitFile, pid int) *process {
	return &process{streams: streams, child: child, record: record, pid: pid, state: monitor.StateCreated, ended: make(chan struct{}), drained: make(chan struct{})}
}

// dying is how long a process whose program cannot be executed may take to end.
const dying = 5 * time.Second

// start executes the program and answers when execve has succeeded, or why not.
func (p *process) start() error {
	p.mu.Lock()
	if p.state != monitor.StateCreated || p.started {
		state := p.state
		p.mu.Unlock()
		if state == monitor.StateRunning {
			return nil
		}
		return monitor.Failf(monitor.KindPrecondition, "process is %s", state)
	}
	p.started = true
	p.mu.Unlock()
	if err := p.child.Execute(); err != nil {
		// Who hears of it finds the process ended.
		select {
		case <-p.ended:
		case <-time.After(dying):
		}
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == monitor.StateCreated {
		p.state = monitor.StateRunning
	}
	return nil
}

// signal sends a signal unless the process has been reaped.
func (p *process) signal(number int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == monitor.StateExited {
		return monitor.Failf(monitor.KindNotFound, "process has ended")
	}
	if p.pid == 0 {
		return monitor.Failf(monitor.KindPrecondition, "process is not started")
	}
	return unix.Kill(p.pid, unix.Signal(number))
}

// giveUp lets a process go that was not started. It is not started any more.
func (p *process) giveUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.started {
		p.started = true
		p.child.Close()
	}
}

// finish records the end and lets the waiting go on.
func (p *process) finish(status unix.WaitStatus, oom bool) {
	exit := monitor.Exit{Code: exitCode(status), At: time.Now().UTC(), OOMKilled: oom}
	if err := p.record.write(exit); err != nil {
		complain("writing the exit status", err)
	}
	p.mu.Lock()
	p.exit, p.state = exit, monitor.StateExited
	p.mu.Unlock()
	p.giveUp()
	close(p.ended)
}

func (p *process) id() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

func (p *process) status() (string, *monitor.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == monitor.StateExited {
		exit := p.exit
		return p.state, &exit
	}
	return p.state, nil
}
