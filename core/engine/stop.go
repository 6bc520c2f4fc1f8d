package engine

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/sys/signal"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/container"
)

const (
	defaultStopTimeout = 10 * time.Second
	killTimeout        = 30 * time.Second // for the kernel to end a process after SIGKILL
)

// notRunning is Docker's answer to an operation that needs a process.
func notRunning(r container.Record) error {
	return errdefs.ErrConflict.WithMessage(fmt.Sprintf("container %s is not running", r.ID))
}

// ContainerStop asks a container to end, and kills it after the timeout. stopped
// is false if it was not running.
func (e *Engine) ContainerStop(ctx context.Context, name string, o backend.StopOptions) (stopped bool, err error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return false, err
	}
	r := c.Record()
	if r.Status == container.Restarting {
		return true, c.Update(func(r *container.Record) (err error) {
			r.Stopped = true
			r.Status, err = r.Status.Next(container.EventExited)
			return err
		})
	}
	if !r.Status.Alive() {
		return false, nil
	}
	if err := e.stop(ctx, c, o); err != nil {
		return false, err
	}
	e.containerEvent(r, events.ActionStop, nil)
	return true, nil
}

// stop ends a living container. It does not take the container's turn while it
// waits: the exit watcher needs it.
func (e *Engine) stop(ctx context.Context, c *container.Container, o backend.StopOptions) error {
	r := c.Record()
	number, err := stopSignal(r, o.Signal)
	if err != nil {
		return err
	}
	if err := c.Update(func(r *container.Record) error { r.Stopped = true; return nil }); err != nil {
		return err
	}
	moment := c.Now()
	if r.Status == container.Paused {
		// A frozen process takes no signal.
		if err := e.unpause(ctx, c); err != nil {
			return err
		}
	}
	timeout := defaultStopTimeout
	switch {
	case o.Timeout != nil:
		timeout = time.Duration(*o.Timeout) * time.Second
	case r.Config.StopTimeout != nil:
		timeout = time.Duration(*r.Config.StopTimeout) * time.Second
	}
	if err := e.sendSignal(ctx, r, number); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("cannot stop container: %s: %w", r.ID, err)
	}
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if timeout >= 0 {
		waiting, cancel = context.WithTimeout(ctx, timeout)
	}
	err = e.awaitEnd(waiting, c, moment)
	cancel()
	if err == nil || ctx.Err() != nil {
		return err
	}
	return e.kill(ctx, c, moment)
}

// kill ends every process of a container and waits until that is recorded.
func (e *Engine) kill(ctx context.Context, c *container.Container, moment container.Moment) error {
	r := c.Record()
	driver, err := e.Drivers.Runtime(r.RuntimeDriver)
	if err != nil {
		return err
	}
	if err := driver.Signal(ctx, r.ID, "", int(unix.SIGKILL), true); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("cannot kill container: %s: %w", r.ID, err)
	}
	waiting, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	if err := e.awaitEnd(waiting, c, moment); err != nil {
		return fmt.Errorf("container %s did not end within %s of SIGKILL: %w", r.Name, killTimeout, err)
	}
	return nil
}

func (e *Engine) awaitEnd(ctx context.Context, c *container.Container, moment container.Moment) error {
	_, err := c.Await(ctx, moment, func(_ container.Record, ended, removed bool) bool { return ended || removed })
	return err
}

func stopSignal(r container.Record, wanted string) (int, error) {
	name := wanted
	if name == "" {
		name = r.Config.StopSignal
	}
	if name == "" {
		return int(unix.SIGTERM), nil
	}
	return parseSignal(name)
}

func parseSignal(name string) (int, error) {
	number, err := signal.ParseSignal(name)
	if err != nil {
		return 0, errdefs.ErrInvalidArgument.WithMessage("invalid signal: " + name)
	}
	return int(number), nil
}

func (e *Engine) sendSignal(ctx context.Context, r container.Record, number int) error {
	driver, err := e.Drivers.Runtime(r.RuntimeDriver)
	if err != nil {
		return err
	}
	return driver.Signal(ctx, r.ID, "", number, false)
}

// ContainerKill sends a signal; SIGKILL waits for the end.
func (e *Engine) ContainerKill(ctx context.Context, name, wanted string) error {
	c, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	number := int(unix.SIGKILL)
	if wanted != "" {
		if number, err = parseSignal(wanted); err != nil {
			return err
		}
	}
	r := c.Record()
	if !r.Status.Alive() {
		return errdefs.ErrConflict.WithMessage(fmt.Sprintf("cannot kill container: %s: container %s is not running", strings.TrimPrefix(name, "/"), r.ID))
	}
	moment := c.Now()
	fatal := unix.Signal(number) == unix.SIGKILL
	own, err := stopSignal(r, "")
	if err != nil {
		return err
	}
	if fatal || number == own {
		// The user wants its end: the restart policy must not undo that.
		if err := c.Update(func(r *container.Record) error { r.Stopped = true; return nil }); err != nil {
			return err
		}
	}
	e.containerEvent(r, events.ActionKill, map[string]string{"signal": strconv.Itoa(number)})
	if fatal {
		return e.kill(ctx, c, moment)
	}
	if err := e.sendSignal(ctx, r, number); err != nil {
		if errdefs.IsNotFound(err) {
			return notRunning(r)
		}
		return fmt.Errorf("cannot kill container: %s: %w", r.ID, err)
	}
	return nil
}

// ContainerRestart stops a container if it runs, and starts it.
func (e *Engine) ContainerRestart(ctx context.Context, name string, o backend.StopOptions) error {
	c, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	autoRemove := c.Record().HostConfig.AutoRemove
	if c.Record().Status.Alive() {
		// A container that removes itself at its end must not do so now.
		if autoRemove {
			if err := setAutoRemove(c, false); err != nil {
				return err
			}
		}
		if err := e.stop(ctx, c, o); err != nil {
			return err
		}
	}
	if _, err := e.ContainerStart(ctx, c.ID, backend.StartOptions{}); err != nil {
		return err
	}
	if autoRemove {
		if err := setAutoRemove(c, true); err != nil {
			return err
		}
	}
	e.containerEvent(c.Record(), events.ActionRestart, nil)
	return nil
}

func setAutoRemove(c *container.Container, on bool) error {
	return c.Update(func(r *container.Record) error {
		host := *r.HostConfig
		host.AutoRemove = on
		r.HostConfig = &host
		return nil
	})
}

// ContainerPause freezes a container.
func (e *Engine) ContainerPause(ctx context.Context, name string) error {
	c, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	end, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r := c.Record()
	switch r.Status {
	case container.Running:
	case container.Paused:
		return errdefs.ErrConflict.WithMessage(fmt.Sprintf("container %s is already paused", r.ID))
	default:
		return notRunning(r)
	}
	return e.pause(ctx, c)
}

// pause freezes a container that runs.
func (e *Engine) pause(ctx context.Context, c *container.Container) error {
	r := c.Record()
	driver, err := e.Drivers.Runtime(r.RuntimeDriver)
	if err != nil {
		return err
	}
	if err := driver.Pause(ctx, r.ID); err != nil {
		return fmt.Errorf("cannot pause container %s: %w", r.ID, err)
	}
	if err := e.fire(c, container.EventPaused); err != nil {
		return err
	}
	e.containerEvent(r, events.ActionPause, nil)
	return nil
}

// ContainerUnpause thaws a container.
func (e *Engine) ContainerUnpause(ctx context.Context, name string) error {
	c, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	if r := c.Record(); r.Status != container.Paused {
		return errdefs.ErrConflict.WithMessage(fmt.Sprintf("Container %s is not paused", r.ID))
	}
	return e.unpause(ctx, c)
}

func (e *Engine) unpause(ctx context.Context, c *container.Container) error {
	end, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r := c.Record()
	if r.Status != container.Paused {
		return nil
	}
	driver, err := e.Drivers.Runtime(r.RuntimeDriver)
	if err != nil {
		return err
	}
	if err := driver.Resume(ctx, r.ID); err != nil {
		return fmt.Errorf("cannot unpause container %s: %w", r.ID, err)
	}
	if err := e.fire(c, container.EventUnpaused); err != nil {
		return err
	}
	e.containerEvent(r, events.ActionUnPause, nil)
	return nil
}

// fire moves a container by one event of the state machine.
func (e *Engine) fire(c *container.Container, event container.Event) error {
	return c.Update(func(r *container.Record) (err error) {
		r.Status, err = r.Status.Next(event)
		return err
	})
}

// ContainerWait answers a function that waits for a container's end as the
// condition says.
func (e *Engine) ContainerWait(ctx context.Context, name string, condition mobycontainer.WaitCondition) (func(context.Context) (mobycontainer.WaitResponse, error), error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return nil, err
	}
	moment := c.Now()
	var done func(r container.Record, ended, removed bool) bool
	switch condition {
	case mobycontainer.WaitConditionNotRunning, "":
		done = func(r container.Record, _, removed bool) bool {
			return removed || !r.Status.Alive() && r.Status != container.Restarting
		}
	case mobycontainer.WaitConditionNextExit:
		done = func(_ container.Record, ended, removed bool) bool { return ended || removed }
	case mobycontainer.WaitConditionRemoved:
		done = func(_ container.Record, _, removed bool) bool { return removed }
	default:
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid condition: %q", condition))
	}
	return func(ctx context.Context) (mobycontainer.WaitResponse, error) {
		r, err := c.Await(ctx, moment, done)
		response := mobycontainer.WaitResponse{StatusCode: int64(r.ExitCode)}
		if err == nil && r.Error != "" {
			response.Error = &mobycontainer.WaitExitError{Message: r.Error}
		}
		return response, err
	}, nil
}
