package native

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"encoding/json"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/runtime"
)

// Wait implements runtime.Driver.
func (d *Driver) Wait(ctx context.Context, id, execID string) (runtime.Exit, error) {
	r, err := d.load(id)
	if err != nil {
		return runtime.Exit{}, err
	}
	response, err := monitor.Call(ctx, d.socket(id), monitor.Request{Op: monitor.OpWait, Exec: execID})
	if err == nil && response.Exit != nil {
		exit := *convertExit(response.Exit)
		d.events.send(runtime.Event{ID: id, ExecID: execID, Type: runtime.EventExit, Exit: &exit, At: exit.At})
		return exit, nil
	}
	if ctx.Err() != nil {
		return runtime.Exit{}, ctx.Err()
	}
	var failure *monitor.Failure
	if errors.As(err, &failure) {
		return runtime.Exit{}, convertError(id, err)
	}
	// The monitor is gone, or just going: its file has the answer.
	exit, err := d.exit(id, execID)
	if err != nil {
		return runtime.Exit{}, err
	}
	if exit != nil {
		return *exit, nil
	}
	if execID != "" {
		return runtime.Exit{}, fmt.Errorf("exec %s of container %s is not known: %w", execID, id, errdefs.ErrNotFound)
	}
	exit, err = d.bury(ctx, id, r)
	if err != nil {
		return runtime.Exit{}, err
	}
	return *exit, nil
}

// Adopt implements runtime.Driver.
func (d *Driver) Adopt(ctx context.Context, id string) (runtime.State, error) {
	state := runtime.State{ID: id, Status: runtime.StatusGone}
	r, err := d.load(id)
	if errdefs.IsNotFound(err) {
		return state, nil
	}
	if err != nil {
		return state, err
	}
	state.PID, state.Socket = r.PID, d.socket(id)
	response, err := monitor.Call(ctx, d.socket(id), monitor.Request{Op: monitor.OpStatus})
	switch {
	case err == nil && response.State == monitor.StateExited:
		state.Status, state.Exit = runtime.StatusExited, convertExit(response.Exit)
		return state, nil
	case err == nil && response.State == monitor.StateCreated:
		state.Status = runtime.StatusCreated
		return state, nil
	case err == nil:
		state.Status = runtime.StatusRunning
		if _, err := os.Stat(filepath.Join(d.dir(id), pausedName)); err == nil {
			state.Status = runtime.StatusPaused
		}
		return state, nil
	case ctx.Err() != nil:
		return state, ctx.Err()
	}
	exit, err := d.exit(id, "")
	if err == nil && exit == nil {
		if r.monitorAlive() {
			state.Status = runtime.StatusUnknown
			return state, nil
		}
		exit, err = d.bury(ctx, id, r)
	}
	if err != nil {
		return state, err
	}
	state.Status, state.Exit = runtime.StatusExited, exit
	return state, nil
}

// List implements runtime.Driver.
func (d *Driver) List(ctx context.Context) ([]runtime.State, error) {
	entries, err := os.ReadDir(d.run)
	if err != nil {
		return nil, err
	}
	var list []runtime.State
	for _, entry := range entries {
		if !entry.IsDir() || checkID(entry.Name()) != nil {
			continue
		}
		state, err := d.Adopt(ctx, entry.Name())
		if err != nil {
			return nil, err
		}
		if state.Status != runtime.StatusGone {
			list = append(list, state)
		}
	}
	return list, nil
}

// Delete implements runtime.Driver.
func (d *Driver) Delete(ctx context.Context, id, execID string, force bool) (*runtime.Exit, error) {
	if _, err := d.load(id); err != nil {
		return nil, err
	}
	if execID != "" {
		return d.deleteExec(ctx, id, execID, force)
	}
	done, err := d.removeAlone(ctx, id)
	if err != nil {
		return nil, err
	}
	defer done()
	r, err := d.load(id)
	if err != nil {
		return nil, err
	}
	state, err := d.Adopt(ctx, id)
	if err != nil {
		return nil, err
	}
	if state.Status != runtime.StatusExited {
		if !force {
			return nil, fmt.Errorf("container %s is %s: %w", id, state.Status, errdefs.ErrFailedPrecondition)
		}
		if err := d.kill(ctx, id, r); err != nil {
			return nil, err
		}
		if state.Exit, err = d.exit(id, ""); err != nil {
			return nil, err
		}
	}
	d.forgetForeign(id)
	// A container without a pid namespace may leave processes behind.
	if err := r.Discard(ctx); err != nil {
		return nil, fmt.Errorf("removing the cgroup of %s: %w", id, err)
	}
	d.unwatchMemory(id)
	if err := d.removeClass(id); err != nil {
		return nil, err
	}
	d.poststop(ctx, id)
	// The record goes first: a crash in between is swept.
	if err := os.Remove(filepath.Join(d.dir(id), recordName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return state.Exit, os.RemoveAll(d.dir(id))
}

// removeAlone waits until nobody else removes the container.
func (d *Driver) removeAlone(ctx context.Context, id string) (done func(), err error) {
	mine := make(chan struct{})
	for {
		other, busy := d.removing.LoadOrStore(id, mine)
		if !busy {
			return func() { d.removing.Delete(id); close(mine) }, nil
		}
		select {
		case <-other.(chan struct{}):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// kill ends all processes of a container and waits for the monitor's word.
func (d *Driver) kill(ctx context.Context, id string, r record) error {
	group, err := cgroup.Open(r.Cgroup)
	if err == nil {
		err = group.Kill()
	}
	if err != nil && !errdefs.IsNotFound(err) { // systemd removes a cgroup whose last process has ended
		return fmt.Errorf("killing container %s: %w", id, err)
	}
	_, err = d.Wait(ctx, id, "")
	return err
}

func (d *Driver) deleteExec(ctx context.Context, id, execID string, force bool) (*runtime.Exit, error) {
	if force {
		if err := d.Signal(ctx, id, execID, int(unix.SIGKILL), false); err == nil {
			_, _ = d.Wait(ctx, id, execID)
		}
	}
	exit, err := d.exit(id, execID)
	if err != nil {
		return nil, err
	}
	response, err := d.call(ctx, id, monitor.Request{Op: monitor.OpForget, Exec: execID})
	if err != nil && (!errdefs.IsNotFound(err) || exit == nil) {
		return nil, err
	}
	if response.Exit != nil {
		exit = convertExit(response.Exit)
	}
	if err := os.Remove(filepath.Join(d.dir(id), monitor.ExecExitName(execID))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return exit, nil
}

// group opens the cgroup of a container.
func (d *Driver) group(id string) (*cgroup.Group, error) {
	r, err := d.load(id)
	if err != nil {
		return nil, err
	}
	return cgroup.Open(r.Cgroup)
}

// Pause implements runtime.Driver.
func (d *Driver) Pause(ctx context.Context, id string) error {
	group, err := d.group(id)
	if err != nil {
		return err
	}
	// The mark comes first: a crash in between shows a running container as paused,
	// which resume mends; the other way round it would seem to hang.
	if err := os.WriteFile(filepath.Join(d.dir(id), pausedName), nil, 0o600); err != nil {
		return err
	}
	if err := group.Freeze(ctx); err != nil {
		return errors.Join(fmt.Errorf("freezing container %s: %w", id, err), group.Thaw(context.WithoutCancel(ctx)), os.Remove(filepath.Join(d.dir(id), pausedName)))
	}
	d.events.send(runtime.Event{ID: id, Type: runtime.EventPaused, At: time.Now()})
	return nil
}

// Resume implements runtime.Driver.
func (d *Driver) Resume(ctx context.Context, id string) error {
	group, err := d.group(id)
	if err != nil {
		return err
	}
	if err := group.Thaw(ctx); err != nil {
		return fmt.Errorf("thawing container %s: %w", id, err)
	}
	if err := os.Remove(filepath.Join(d.dir(id), pausedName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d.events.send(runtime.Event{ID: id, Type: runtime.EventResumed, At: time.Now()})
	return nil
}

// Update implements runtime.Driver.
func (d *Driver) Update(ctx context.Context, id string, resources json.RawMessage) error {
	var r specs.LinuxResources
	if err := json.Unmarshal(resources, &r); err != nil {
		return fmt.Errorf("reading the OCI resources: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	known, err := d.load(id)
	if err != nil {
		return err
	}
	return known.Update(ctx, &r)
}

// Stats implements runtime.Driver.
func (d *Driver) Stats(_ context.Context, id string) (runtime.Stats, error) {
	group, err := d.group(id)
	if err != nil {
		return runtime.Stats{}, err
	}
	return group.Stats()
}

// Processes implements runtime.Driver.
func (d *Driver) Processes(_ context.Context, id string) ([]int, error) {
	group, err := d.group(id)
	if err != nil {
		return nil, err
	}
	return group.Procs()
}

// Events implements runtime.Driver.
func (d *Driver) Events(ctx context.Context, fn func(runtime.Event) error) error {
	events, cancel := d.events.subscribe()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event := <-events:
			if err := fn(event); err != nil {
				return err
			}
		}
	}
}

// broadcast hands events to subscribers; one that does not keep up misses some,
// which is why events are only hints.
type broadcast struct {
	mu          sync.Mutex
	subscribers map[chan runtime.Event]bool
}

func newBroadcast() *broadcast { return &broadcast{subscribers: map[chan runtime.Event]bool{}} }

func (b *broadcast) subscribe() (<-chan runtime.Event, func()) {
	events := make(chan runtime.Event, 64)
	b.mu.Lock()
	b.subscribers[events] = true
	b.mu.Unlock()
	return events, func() {
		b.mu.Lock()
		delete(b.subscribers, events)
		b.mu.Unlock()
	}
}

func (b *broadcast) send(event runtime.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for events := range b.subscribers {
		select {
		case events <- event:
		default:
		}
	}
}
