// Package hook runs the hooks of the runtime-spec: programs that are told a
// container's state on their standard input at certain points of its life. Who
// runs them chooses the namespaces by where it runs.
//
// Only the standard library and x/sys may be imported here: see package monitor.
package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Hook is one program.
type Hook struct {
	Path string   `json:"path"`
	Args []string `json:"args,omitempty"` // with its name first; empty: the path alone
	Env  []string `json:"env,omitempty"`
	// Timeout in seconds after which it is killed and has failed; 0 for none.
	Timeout int `json:"timeout,omitempty"`
}

// Set are the hooks of a container by the point of its life, and what they are
// told besides status and pid.
type Set struct {
	Prestart        []Hook `json:"prestart,omitempty"`        // of the runtime, before the root changes
	CreateRuntime   []Hook `json:"createRuntime,omitempty"`   // the same, after prestart
	CreateContainer []Hook `json:"createContainer,omitempty"` // in the container's namespaces, before the root changes
	StartContainer  []Hook `json:"startContainer,omitempty"`  // in the container, before its program
	Poststart       []Hook `json:"poststart,omitempty"`       // of the runtime, when the program runs
	Poststop        []Hook `json:"poststop,omitempty"`        // of the runtime, when the container is gone

	State State `json:"state"`
}

// State is the container's state as the runtime-spec writes it.
type State struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Status      string            `json:"status"`
	PID         int               `json:"pid,omitempty"`
	Bundle      string            `json:"bundle"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// At is the state at one point of the container's life.
func (s State) At(status string, pid int) State {
	s.Status, s.PID = status, pid
	return s
}

// Starter forks a child and answers its pid and a channel that will have its
// status. A process has one place that waits for its children, and only that one
// knows how.
type Starter func(fork func() (pid int, err error)) (pid int, ended <-chan unix.WaitStatus, err error)

// Fork is the Starter of processes that wait for each child by its pid.
func Fork(fork func() (int, error)) (int, <-chan unix.WaitStatus, error) {
	pid, err := fork()
	if err != nil {
		return 0, nil, err
	}
	ended := make(chan unix.WaitStatus, 1)
	go func() {
		var status unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
				break
			}
		}
		ended <- status
	}()
	return pid, ended, nil
}

// Run runs hooks in their order, from the directory dir, until one fails. The
// error says which, with what it wrote. A hook that still runs when ctx ends is
// killed.
func Run(ctx context.Context, kind string, hooks []Hook, state State, dir string, start Starter) error {
	if len(hooks) == 0 {
		return nil
	}
	body, err := json.Marshal(state)
	if err != nil {
		return err
	}
	for i, h := range hooks {
		if err := run(ctx, h, body, dir, start); err != nil {
			return fmt.Errorf("error running %s hook #%d: %w", kind, i, err)
		}
	}
	return nil
}

// RunAll runs hooks as Run does, but all of them, and answers the failures.
func RunAll(ctx context.Context, kind string, hooks []Hook, state State, dir string, start Starter) error {
	body, err := json.Marshal(state)
	if err != nil {
		return err
	}
	var failed error
	for i, h := range hooks {
		if err := run(ctx, h, body, dir, start); err != nil {
			failed = errors.Join(failed, fmt.Errorf("error running %s hook #%d: %w", kind, i, err))
		}
	}
	return failed
}

func run(ctx context.Context, h Hook, state []byte, dir string, start Starter) error {
	// Files in memory: no hook can fill a pipe that nobody reads.
	input, err := memory("state", state)
	if err != nil {
		return err
	}
	defer func() { _ = input.Close() }()
	output, err := memory("output", nil)
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }()
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	attr := &syscall.ProcAttr{
		Dir: dir, Env: h.Env, Files: []uintptr{input.Fd(), output.Fd(), output.Fd()},
		Sys: &syscall.SysProcAttr{Setpgid: true}, // to kill with its children
	}
	if attr.Env == nil {
		attr.Env = []string{} // nil would be this process's own
	}
	pid, ended, err := start(func() (int, error) { return syscall.ForkExec(h.Path, args, attr) })
	if err != nil {
		return &os.PathError{Op: "fork/exec", Path: h.Path, Err: err}
	}
	if h.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(h.Timeout)*time.Second, fmt.Errorf("hook ran past specified timeout of %.1fs", float64(h.Timeout)))
		defer cancel()
	}
	select {
	case status := <-ended:
		return outcome(status, output)
	case <-ctx.Done():
		_ = unix.Kill(-pid, unix.SIGKILL)
		<-ended
		return context.Cause(ctx)
	}
}

// maxOutput is how much of a failed hook's output is told.
const maxOutput = 4 << 10

func outcome(status unix.WaitStatus, output io.ReaderAt) error {
	if status.Exited() && status.ExitStatus() == 0 {
		return nil
	}
	how := fmt.Sprintf("exit status %d", status.ExitStatus())
	if status.Signaled() {
		how = "signal: " + status.Signal().String()
	}
	said := make([]byte, maxOutput)
	n, _ := output.ReadAt(said, 0)
	return fmt.Errorf("%s, output: %s", how, strings.TrimSpace(string(said[:n])))
}

// memory is a file that only its descriptor names.
func memory(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if len(content) > 0 {
		if _, err := f.WriteAt(content, 0); err != nil {
			_ = f.Close()
			return nil, err
		}
	}
	return f, nil
}
