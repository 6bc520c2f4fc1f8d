package runtimegrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/internal/wiretest"
	"github.com/davit-engine/davit/sdk/runtime"
)

// echo notes what it was called with and answers what it was given.
type echo struct {
	called  []any
	process runtime.Process
	exit    runtime.Exit
	state   runtime.State
	event   runtime.Event
	stats   runtime.Stats
	err     error
}

func (e *echo) note(args ...any) error { e.called = args; return e.err }

func (e *echo) Create(_ context.Context, c runtime.Create) (runtime.Process, error) {
	return e.process, e.note("create", c)
}

func (e *echo) Checkpoint(_ context.Context, c runtime.Checkpoint) error {
	return e.note("checkpoint", c)
}

func (e *echo) Restore(_ context.Context, r runtime.Restore) (runtime.Process, error) {
	return e.process, e.note("restore", r)
}

func (e *echo) Start(_ context.Context, id, execID string) error { return e.note("start", id, execID) }

func (e *echo) Exec(_ context.Context, x runtime.Exec) (runtime.Process, error) {
	return e.process, e.note("exec", x)
}

func (e *echo) Signal(_ context.Context, id, execID string, signal int, all bool) error {
	return e.note("signal", id, execID, signal, all)
}

func (e *echo) Wait(_ context.Context, id, execID string) (runtime.Exit, error) {
	return e.exit, e.note("wait", id, execID)
}

func (e *echo) Resize(_ context.Context, id, execID string, width, height uint16) error {
	return e.note("resize", id, execID, width, height)
}

func (e *echo) CloseStdin(_ context.Context, id, execID string) error {
	return e.note("closestdin", id, execID)
}

func (e *echo) Pause(_ context.Context, id string) error  { return e.note("pause", id) }
func (e *echo) Resume(_ context.Context, id string) error { return e.note("resume", id) }

func (e *echo) Update(_ context.Context, id string, r json.RawMessage) error {
	return e.note("update", id, string(r))
}

func (e *echo) Stats(_ context.Context, id string) (runtime.Stats, error) {
	return e.stats, e.note("stats", id)
}

func (e *echo) Processes(_ context.Context, id string) ([]int, error) {
	return []int{1, 4194304}, e.note("processes", id)
}

func (e *echo) Delete(_ context.Context, id, execID string, force bool) (*runtime.Exit, error) {
	if id == "unknown exit" {
		return nil, nil
	}
	return &e.exit, e.note("delete", id, execID, force)
}

func (e *echo) List(context.Context) ([]runtime.State, error) {
	return []runtime.State{e.state, {ID: "b", Status: runtime.StatusGone}}, e.note("list")
}

func (e *echo) Adopt(_ context.Context, id string) (runtime.State, error) {
	return e.state, e.note("adopt", id)
}

func (e *echo) Events(ctx context.Context, fn func(runtime.Event) error) error {
	if err := fn(e.event); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestEverythingCrossesTheWire(t *testing.T) {
	d := &echo{
		process: wiretest.Filled[runtime.Process](t),
		exit:    wiretest.Filled[runtime.Exit](t),
		state:   wiretest.Filled[runtime.State](t),
		event:   wiretest.Filled[runtime.Event](t),
		stats:   wiretest.Filled[runtime.Stats](t),
	}
	d.state.Status = runtime.StatusExited
	c := NewClient(wiretest.Serve(t, func(s grpc.ServiceRegistrar) { Register(s, d) }))
	ctx := t.Context()

	same := func(what string, want, got any) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	check := func(err error, args ...any) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v: %v", args[0], err)
		}
		same("arguments", args, d.called)
	}

	create := wiretest.Filled[runtime.Create](t)
	p, err := c.Create(ctx, create)
	check(err, "create", create)
	same("process", d.process, p)
	checkpoint := wiretest.Filled[runtime.Checkpoint](t)
	check(c.Checkpoint(ctx, checkpoint), "checkpoint", checkpoint)
	restore := wiretest.Filled[runtime.Restore](t)
	p, err = c.Restore(ctx, restore)
	check(err, "restore", restore)
	same("process", d.process, p)
	exec := wiretest.Filled[runtime.Exec](t)
	p, err = c.Exec(ctx, exec)
	check(err, "exec", exec)
	same("process", d.process, p)
	check(c.Start(ctx, "c", "e"), "start", "c", "e")
	check(c.Signal(ctx, "c", "e", 15, true), "signal", "c", "e", 15, true)
	exit, err := c.Wait(ctx, "c", "e")
	check(err, "wait", "c", "e")
	same("exit", d.exit, exit)
	check(c.Resize(ctx, "c", "e", 80, 24), "resize", "c", "e", uint16(80), uint16(24))
	check(c.CloseStdin(ctx, "c", "e"), "closestdin", "c", "e")
	check(c.Pause(ctx, "c"), "pause", "c")
	check(c.Resume(ctx, "c"), "resume", "c")
	check(c.Update(ctx, "c", json.RawMessage(`{"pids":{}}`)), "update", "c", `{"pids":{}}`)
	stats, err := c.Stats(ctx, "c")
	check(err, "stats", "c")
	same("stats", d.stats, stats)
	pids, err := c.Processes(ctx, "c")
	check(err, "processes", "c")
	same("pids", []int{1, 4194304}, pids)
	ended, err := c.Delete(ctx, "c", "e", true)
	check(err, "delete", "c", "e", true)
	same("exit", &d.exit, ended)
	if ended, err := c.Delete(ctx, "unknown exit", "", false); ended != nil || err != nil {
		t.Errorf("delete without exit: %v, %v", ended, err)
	}
	list, err := c.List(ctx)
	check(err, "list")
	same("list", []runtime.State{d.state, {ID: "b", Status: runtime.StatusGone}}, list)
	state, err := c.Adopt(ctx, "c")
	check(err, "adopt", "c")
	same("state", d.state, state)

	enough := errors.New("enough")
	err = c.Events(ctx, func(e runtime.Event) error { same("event", d.event, e); return enough })
	if !errors.Is(err, enough) {
		t.Errorf("events: %v", err)
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	d := &echo{err: fmt.Errorf("exec: \"sho\": %w", runtime.ErrCommandNotFound)}
	c := NewClient(wiretest.Serve(t, func(s grpc.ServiceRegistrar) { Register(s, d) }))
	if err := c.Start(t.Context(), "c", ""); !errors.Is(err, runtime.ErrCommandNotFound) || err.Error() != d.err.Error() {
		t.Errorf("got %v", err)
	}
	d.err = fmt.Errorf("container c: %w", errdefs.ErrNotFound)
	if _, err := c.List(t.Context()); !errdefs.IsNotFound(err) || err.Error() != "container c: not found" {
		t.Errorf("got %v", err)
	}
	if p, err := c.Create(t.Context(), runtime.Create{}); !errdefs.IsNotFound(err) || p != (runtime.Process{}) {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestEveryStatusCrossesTheWire(t *testing.T) {
	for _, s := range []runtime.Status{
		runtime.StatusCreated, runtime.StatusRunning, runtime.StatusPaused,
		runtime.StatusExited, runtime.StatusGone, runtime.StatusUnknown,
	} {
		if got := statusFromProto(statusToProto(s)); got != s {
			t.Errorf("%s became %s", s, got)
		}
	}
	if got := statusFromProto(99); got != runtime.StatusUnknown {
		t.Errorf("a status of the future became %s", got)
	}
}
