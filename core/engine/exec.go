package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/rootfs"
	"github.com/davit-engine/davit/core/spec"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/runtime"
)

// execKept is how long an ended exec can still be inspected.
const execKept = 5 * time.Minute

// execution is one exec. Execs are not written down: they end with their
// container, and a client that lost the engine asks anew.
type execution struct {
	id        string
	container *container.Container
	request   mobycontainer.ExecCreateRequest

	mu      sync.Mutex
	started bool
	running bool
	pid     int
	code    *int
	endedAt time.Time
	ended   chan struct{}
}

// execs holds all execs by ID.
type execs struct {
	mu   sync.Mutex
	byID map[string]*execution
}

func newExecs() *execs { return &execs{byID: map[string]*execution{}} }

func (x *execs) add(ex *execution) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, old := range x.byID {
		old.mu.Lock()
		stale := !old.endedAt.IsZero() && time.Since(old.endedAt) > execKept
		old.mu.Unlock()
		if stale {
			delete(x.byID, id)
		}
	}
	x.byID[ex.id] = ex
}

func (x *execs) find(id string) (*execution, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ex := x.byID[id]; ex != nil {
		return ex, nil
	}
	var found *execution
	for full, ex := range x.byID {
		if id != "" && strings.HasPrefix(full, id) {
			if found != nil {
				return nil, errdefs.ErrInvalidArgument.WithMessage("multiple execs found with provided prefix: " + id)
			}
			found = ex
		}
	}
	if found == nil {
		return nil, errdefs.ErrNotFound.WithMessage("No such exec instance: " + id)
	}
	return found, nil
}

func (x *execs) of(containerID string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var ids []string
	for id, ex := range x.byID {
		ex.mu.Lock()
		if ex.container.ID == containerID && (ex.running || !ex.started) {
			ids = append(ids, id)
		}
		ex.mu.Unlock()
	}
	return ids
}

// containerEnded forgets execs that were never started.
func (x *execs) containerEnded(containerID string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, ex := range x.byID {
		ex.mu.Lock()
		if ex.container.ID == containerID && !ex.started {
			delete(x.byID, id)
		}
		ex.mu.Unlock()
	}
}

// ExecCreate prepares an exec; nothing runs yet.
func (e *Engine) ExecCreate(ctx context.Context, name string, req mobycontainer.ExecCreateRequest) (string, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return "", err
	}
	r := c.Record()
	if err := canExec(r); err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 {
		return "", errdefs.ErrInvalidArgument.WithMessage("No exec command specified")
	}
	if _, err := detachKeys(req.DetachKeys); err != nil {
		return "", err
	}
	ex := &execution{id: container.NewID(), container: c, request: req, ended: make(chan struct{})}
	e.execs.add(ex)
	e.containerEvent(r, events.Action("exec_create: "+strings.Join(req.Cmd, " ")), map[string]string{"execID": ex.id})
	return ex.id, nil
}

func canExec(r container.Record) error {
	switch {
	case r.Status == container.Paused:
		return errdefs.ErrConflict.WithMessage(fmt.Sprintf("Container %s is paused, unpause the container before exec", r.ID))
	case r.Status == container.Restarting:
		return errdefs.ErrConflict.WithMessage(fmt.Sprintf("Container %s is restarting, wait until the container is running", r.ID))
	case !r.Status.Alive():
		return notRunning(r)
	}
	return nil
}

// ExecStart creates the process and, unless detached, answers a session that
// starts it as soon as the client listens.
func (e *Engine) ExecStart(ctx context.Context, id string, req mobycontainer.ExecStartRequest) (_ backend.Session, err error) {
	if err := e.ready(ctx); err != nil {
		return nil, err
	}
	ex, err := e.execs.find(id)
	if err != nil {
		return nil, err
	}
	r := ex.container.Record()
	if err := canExec(r); err != nil {
		return nil, err
	}
	ex.mu.Lock()
	again := ex.started
	ex.started = true
	ex.mu.Unlock()
	if again {
		return nil, errdefs.ErrConflict.WithMessage("Error: Exec command " + id + " has already run")
	}
	defer func() {
		if err != nil {
			ex.finish(execCode(err))
		}
	}()
	driver, err := e.Drivers.Runtime(r.RuntimeDriver)
	if err != nil {
		return nil, err
	}
	process, err := e.execProcess(r, ex)
	if err != nil {
		return nil, err
	}
	var size [2]uint // height, width
	for _, given := range []*[2]uint{ex.request.ConsoleSize, req.ConsoleSize} {
		if given != nil {
			size = *given
		}
	}
	created, err := driver.Exec(ctx, runtime.Exec{ID: r.ID, ExecID: ex.id, Process: process, IO: runtime.IO{
		Terminal: ex.request.Tty, Stdin: ex.request.AttachStdin && !req.Detach, StdinOnce: true,
		Stdout: true, Stderr: true, Height: uint16(size[0]), Width: uint16(size[1]),
	}})
	if err != nil {
		return nil, execError(err)
	}
	ex.mu.Lock()
	ex.pid = created.PID
	ex.mu.Unlock()
	start := func(ctx context.Context) error {
		if err := driver.Start(ctx, r.ID, ex.id); err != nil {
			ex.finish(execCode(err))
			return execError(err)
		}
		ex.mu.Lock()
		ex.running = true
		ex.mu.Unlock()
		e.containerEvent(r, events.Action("exec_start: "+strings.Join(ex.request.Cmd, " ")), map[string]string{"execID": ex.id})
		e.inBackground(func(ctx context.Context) { e.watchExec(ctx, driver, r, ex) })
		return nil
	}
	if req.Detach {
		return nil, start(ctx)
	}
	keys, err := detachKeys(ex.request.DetachKeys)
	if err != nil {
		return nil, err
	}
	s := &session{terminal: ex.request.Tty, keys: keys, start: start, ready: make(chan struct{}), options: monitor.AttachOptions{
		ExecID: ex.id, Stdin: ex.request.AttachStdin, Stdout: ex.request.AttachStdout, Stderr: ex.request.AttachStderr,
	}}
	stream, err := monitor.Attach(ctx, created.Socket, s.options)
	if err != nil {
		return nil, fmt.Errorf("attaching to the exec: %w", err)
	}
	s.resolve(stream, nil)
	return &execSession{s, ex}, nil
}

// execSession answers when the exit code is known, too: clients ask for it at
// once.
type execSession struct {
	*session
	ex *execution
}

// execProcess builds the OCI process of an exec.
func (e *Engine) execProcess(r container.Record, ex *execution) (json.RawMessage, error) {
	in := spec.ExecInput{Config: r.Config, HostConfig: r.HostConfig, Request: ex.request, AppArmor: e.AppArmor}
	err := rootfs.Running(r.PID, r.ID, func(v *rootfs.View) error {
		in.Passwd, _ = v.ReadFile("/etc/passwd")
		in.Group, _ = v.ReadFile("/etc/group")
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the container's accounts: %w", err)
	}
	process, err := spec.BuildExec(in)
	if err != nil {
		return nil, err
	}
	return json.Marshal(process)
}

func (e *Engine) watchExec(ctx context.Context, driver runtime.Driver, r container.Record, ex *execution) {
	exit, err := driver.Wait(ctx, r.ID, ex.id)
	if ctx.Err() != nil {
		return
	}
	code := exit.Code
	if err != nil {
		code = 128 + 9 // its container or its monitor is gone
	}
	ex.finish(code)
	e.containerEvent(r, events.ActionExecDie, map[string]string{"execID": ex.id, "exitCode": fmt.Sprint(code)})
	if _, err := driver.Delete(ctx, r.ID, ex.id, false); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		e.Log.Debug("forgetting an exec", "container", r.Name, "error", err)
	}
}

func (ex *execution) finish(code int) {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.code != nil {
		return
	}
	ex.code, ex.running, ex.endedAt = &code, false, time.Now()
	close(ex.ended)
}

func execCode(err error) int {
	switch {
	case errors.Is(err, runtime.ErrCommandNotFound):
		return exitNotFound
	case errors.Is(err, runtime.ErrNotExecutable):
		return exitNotExecutable
	}
	return exitNotExecutable
}

func execError(err error) error {
	if errdefs.IsUnavailable(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	return &startError{"OCI runtime exec failed: exec failed: unable to start container process: " + err.Error(), err}
}

// ExecInspect describes an exec.
func (e *Engine) ExecInspect(_ context.Context, id string) (mobycontainer.ExecInspectResponse, error) {
	ex, err := e.execs.find(id)
	if err != nil {
		return mobycontainer.ExecInspectResponse{}, err
	}
	ex.mu.Lock()
	defer ex.mu.Unlock()
	q := ex.request
	keys, _ := detachKeys(q.DetachKeys)
	return mobycontainer.ExecInspectResponse{
		ID: ex.id, Running: ex.running, ExitCode: ex.code, ContainerID: ex.container.ID, Pid: ex.pid, DetachKeys: keys,
		OpenStdin: q.AttachStdin, OpenStdout: q.AttachStdout, OpenStderr: q.AttachStderr,
		ProcessConfig: &mobycontainer.ExecProcessConfig{Tty: q.Tty, Entrypoint: q.Cmd[0], Arguments: q.Cmd[1:], Privileged: &q.Privileged, User: q.User},
	}, nil
}

// ExecResize sets the size of an exec's terminal.
func (e *Engine) ExecResize(ctx context.Context, id string, width, height uint16) error {
	ex, err := e.execs.find(id)
	if err != nil {
		return err
	}
	r := ex.container.Record()
	driver, err := e.Drivers.Runtime(r.RuntimeDriver)
	if err != nil {
		return err
	}
	return driver.Resize(ctx, r.ID, ex.id, width, height)
}

// Run copies and then waits until the exit code can be inspected.
func (s *execSession) Run(ctx context.Context, in io.Reader, out io.Writer) error {
	err := s.session.Run(ctx, in, out)
	if err != nil || s.detached {
		return err
	}
	select {
	case <-s.ex.ended:
	case <-ctx.Done():
	}
	return nil
}
