package container

import (
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/console"
	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/record"
	"github.com/davit-engine/davit/plugins/runtime-native/translate"
	"github.com/davit-engine/davit/sdk/monitor/launch"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// Exec asks for another process in a container.
type Exec struct {
	ID            string
	Process       *specs.Process
	Detach        bool
	ConsoleSocket string
	PIDFile       string
	PreserveFDs   int
	IgnorePaused  bool
	// Cgroup is a path below the container's own cgroup.
	Cgroup string
}

// Process answers the process of a container as a base for an exec's.
func (r *Runtime) Process(id string) (*specs.Process, error) {
	c, err := r.Root.Peek(id)
	if err != nil {
		return nil, err
	}
	return c.Process, nil
}

// Exec runs a process in a container. Attached, it waits for its end and answers
// its exit status.
func (r *Runtime) Exec(o Exec) (int, error) {
	c, err := r.Root.Peek(o.ID)
	if err != nil {
		return -1, err
	}
	switch status := r.status(c); {
	case status == specs.StateStopped:
		return -1, ErrExecStopped
	case status == paused && !o.IgnorePaused:
		return -1, ErrExecPaused
	}
	if err := validateProcess(o.Process); err != nil {
		return -1, err
	}
	if err := checkConsole(o.Process.Terminal, o.Detach, o.ConsoleSocket); err != nil {
		return -1, err
	}
	init, err := openProcess(c)
	if err != nil {
		return -1, ErrExecStopped
	}
	defer func() { _ = unix.Close(init) }()
	stage, err := execStage(c, o, init)
	if err != nil {
		return -1, err
	}
	child, err := clone(stage)
	if err != nil && !alive(c.PID, c.StartTime) {
		return -1, ErrExecStopped
	}
	if err != nil {
		return -1, fmt.Errorf("unable to start container process: %w", err)
	}
	var signals *forwarder
	if !o.Detach {
		signals = listen()
	}
	terminal, err := ready(child, o)
	if err != nil {
		child.Close()
		_ = unix.Kill(child.PID, unix.SIGKILL)
		_, _ = unix.Wait4(child.PID, nil, 0, nil)
		return -1, err
	}
	if o.Detach {
		return 0, named(child.Execute())
	}
	return signals.attend(child.PID, terminal, func() error { return named(child.Execute()) }, reap(child.PID))
}

func named(err error) error {
	if err != nil {
		return fmt.Errorf("unable to start container process: %w", err)
	}
	return nil
}

// ready waits until the stage has joined the container, and tells the caller
// about its terminal and its pid.
func ready(child *launch.Child, o Exec) (*os.File, error) {
	master, err := child.WaitReady()
	if err != nil {
		return nil, named(err)
	}
	terminal, err := console.Hand(master, o.ConsoleSocket)
	if err != nil {
		return nil, err
	}
	return terminal, writePID(o.PIDFile, child.PID)
}

func execStage(c *record.Record, o Exec, init int) (launch.Stage, error) {
	var stage launch.Stage
	process, err := translate.Process(o.Process)
	if err != nil {
		return stage, err
	}
	process.Keyring, process.Personality, process.MemoryPolicy = c.Keyring, c.Personality, c.MemoryPolicy
	birth := c.Birth
	if birth.Affinity, process.Affinity, err = translate.CPUAffinity(o.Process.ExecCPUAffinity); err != nil {
		return stage, err
	}
	inside := sandbox.Config{Process: process, Join: c.Join, Seccomp: c.Seccomp, Extra: o.PreserveFDs}
	birth = translate.ForExec(birth, &inside)
	config, err := inside.Encode()
	if err != nil {
		return stage, err
	}
	stage = launch.Stage{
		Name: launch.ExecName, Config: config, Birth: birth, Init: init,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Extra: inherited(o.PreserveFDs),
		Listener: c.Listener.ForExec(c.PID),
	}
	if c.OwnPID && birth.Enter == 0 {
		stage.PIDNamespace = init
	}
	group, err := execGroup(c.Cgroup, o.Cgroup)
	if err != nil {
		return stage, err
	}
	stage.CgroupFiles, stage.CgroupDir = group.Joining()
	return stage, nil
}

// execGroup is the cgroup an exec joins.
func execGroup(container, below string) (*cgroup.Group, error) {
	path := container
	if below != "" {
		path = cleanBelow(container, below)
	}
	group, err := cgroup.Open(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("exec: no such cgroup"), err)
	}
	return group, nil
}
