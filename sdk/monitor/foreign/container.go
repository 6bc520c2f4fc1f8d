package foreign

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/hook"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// Plan says what container is made.
type Plan struct {
	Runtime
	Bundle string `json:"bundle"` // directory with config.json
	// Staging are the root filesystem, and mounts of the host's that the bundle's
	// config.json names by their place in it. They are mounted for the program alone.
	Staging sandbox.Staging `json:"staging"`
}

// Container is a container that was created and not started.
type Container struct {
	PID      int // of its init
	Terminal int // its terminal's master, -1 for none
	// Ended will have the init's status.
	Ended <-chan unix.WaitStatus

	runtime Runtime
	start   hook.Starter
}

// Create makes the container, with a terminal or with the given streams. On error
// nothing is left.
func (p Plan) Create(start hook.Starter, streams [3]*os.File, terminal bool) (_ *Container, err error) {
	c := &Container{runtime: p.Runtime, start: start}
	stage := func() error {
		_, err := p.Staging.Make()
		return err
	}
	c.PID, c.Terminal, err = p.birth(start, streams, terminal, stage, "init", "create", []string{"--bundle", p.Bundle}, p.ID)
	if err == nil {
		_, c.Ended, err = start(func() (int, error) { return c.PID, nil })
	}
	if err != nil {
		_ = p.Delete(start)
		return nil, err
	}
	return c, nil
}

// Execute lets the init execute its program. It answers when that has happened, as
// far as the runtime's start command tells, or why not.
func (c *Container) Execute() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	err = c.runtime.run(c.start, [3]*os.File{null, null, null}, nil, "start", c.runtime.ID)
	if err != nil {
		_ = unix.Kill(c.PID, unix.SIGKILL)
	}
	return err
}

// Close does nothing: an init that is not started waits.
func (c *Container) Close() {}

// birth runs a command that leaves a process behind, and answers its pid and the
// master of its terminal, -1 for none. Its files are called by name.
func (r Runtime) birth(start hook.Starter, streams [3]*os.File, terminal bool, prepare func() error, name, command string, flags []string, args ...string) (pid, master int, err error) {
	pidFile := filepath.Join(r.Work, name+".pid")
	flags = append(flags, "--pid-file", pidFile)
	var socket *console
	if terminal {
		if socket, err = newConsole(r.Work, name); err != nil {
			return 0, -1, err
		}
		defer socket.close()
		flags = append(flags, "--console-socket", socket.path())
	}
	if err := r.run(start, streams, prepare, command, append(flags, args...)...); err != nil {
		return 0, -1, err
	}
	if pid, err = readPID(pidFile); err != nil {
		return 0, -1, fmt.Errorf("%s: %w", command, err)
	}
	if !terminal {
		return pid, -1, nil
	}
	if master, err = socket.receive(); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		return 0, -1, err
	}
	return pid, master, nil
}
