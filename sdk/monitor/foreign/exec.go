package foreign

import (
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// Exec is another process of a container. Programs make and start one in the same
// step, so that there is none before Execute.
type Exec struct {
	born chan (<-chan unix.WaitStatus) // has one, on which the status will be

	runtime  Runtime
	start    hook.Starter
	name     string
	process  []byte
	streams  [3]*os.File
	terminal func(master int)
	once     sync.Once
}

// Exec prepares a process, the OCI spec's "process" as JSON, which gets the
// streams. With terminal it has one, whose master is given to that function. The
// streams' files are closed by Execute and Close.
func (r Runtime) Exec(start hook.Starter, name string, process []byte, streams [3]*os.File, terminal func(master int)) *Exec {
	return &Exec{runtime: r, start: start, name: "exec-" + name, process: process, streams: streams, terminal: terminal, born: make(chan (<-chan unix.WaitStatus), 1)}
}

// Wait waits for the end of the process, or for it to be given up. It may be called
// once.
func (e *Exec) Wait() unix.WaitStatus { return <-<-e.born }

// Codes of processes that never were.
const (
	notStarted = unix.WaitStatus(127 << 8)
	givenUp    = unix.WaitStatus(unix.SIGKILL)
)

// never is how a process ended that there never was.
func never(status unix.WaitStatus) <-chan unix.WaitStatus {
	ended := make(chan unix.WaitStatus, 1)
	ended <- status
	return ended
}

// Execute starts the process and answers its pid.
func (e *Exec) Execute() (pid int, err error) {
	defer e.close()
	ended := never(notStarted)
	if pid, err = e.birth(); err == nil {
		_, ended, err = e.start(func() (int, error) { return pid, nil })
	}
	e.once.Do(func() { e.born <- ended })
	return pid, err
}

func (e *Exec) birth() (int, error) {
	file := filepath.Join(e.runtime.Work, e.name+".json")
	if err := os.WriteFile(file, e.process, 0o600); err != nil {
		return 0, err
	}
	defer func() { _ = os.Remove(file) }()
	pid, master, err := e.runtime.birth(e.start, e.streams, e.terminal != nil, nil, e.name, "exec", []string{"--detach", "--process", file}, e.runtime.ID)
	if err == nil && master >= 0 {
		e.terminal(master)
	}
	return pid, err
}

// Close gives up a process that was not started.
func (e *Exec) Close() {
	e.once.Do(func() {
		e.close()
		e.born <- never(givenUp)
	})
}

func (e *Exec) close() {
	for _, f := range e.streams {
		_ = f.Close()
	}
}
