package engine

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/sdk/runtime"
)

// Restart pauses, as Docker's: doubling from the first to the longest, and from
// the start again after a container ran for a while.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = time.Minute
	goodRun      = 10 * time.Second
)

// watch waits for the end of a running container and acts on it.
func (e *Engine) watch(c *container.Container) {
	e.inBackground(func(ctx context.Context) {
		exit, err := e.waitExit(ctx, c.Record())
		if err != nil {
			return // the engine ends; the next one takes over
		}
		e.ended(ctx, c, exit)
	})
}

// waitExit asks the runtime until it answers: drivers come and go.
func (e *Engine) waitExit(ctx context.Context, r container.Record) (runtime.Exit, error) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		driver, err := e.Drivers.Runtime(r.RuntimeDriver)
		if err == nil {
			var exit runtime.Exit
			if exit, err = driver.Wait(ctx, r.ID, ""); err == nil {
				return exit, nil
			}
			if errdefs.IsNotFound(err) {
				// Nobody knows it any more: it was removed behind our back.
				return runtime.Exit{Code: 128 + 9, At: time.Now()}, nil
			}
		}
		if ctx.Err() != nil {
			return runtime.Exit{}, ctx.Err()
		}
		e.Log.Debug("waiting for a container again", "container", r.Name, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return runtime.Exit{}, ctx.Err()
		}
	}
}

// ended records the end of a container, frees what only a running one needs, and
// applies the restart policy.
func (e *Engine) ended(ctx context.Context, c *container.Container, exit runtime.Exit) {
	end, err := c.Begin(ctx)
	if err != nil {
		return
	}
	defer end()
	r := c.Record()
	if !r.Status.Alive() {
		return // a removal or another watcher was first
	}
	e.release(ctx, r)
	pause, again := e.restartPause(r, exit)
	removing := r.HostConfig.AutoRemove && !again
	event := container.EventExited
	if again {
		event = container.EventRestartPending
	}
	change := func(r *container.Record) (err error) {
		r.PID, r.Socket = 0, ""
		r.ExitCode, r.FinishedAt, r.OOMKilled, r.Error = exit.Code, exit.At, exit.OOMKilled, exit.Reason
		r.Detach()
		r.Status, err = r.Status.Next(event)
		return err
	}
	if removing {
		err = c.UpdateVolatile(change) // the record goes in a moment
	} else {
		err = c.Update(change)
	}
	if err != nil {
		e.Log.Error("recording the end of a container", "container", r.Name, "error", err)
	}
	if exit.OOMKilled && !r.OOMKilled { // else it was told when it happened
		e.containerEvent(r, events.ActionOOM, nil)
	}
	e.containerEvent(r, events.ActionDie, map[string]string{
		"exitCode": strconv.Itoa(exit.Code), "execDuration": strconv.Itoa(int(exit.At.Sub(r.StartedAt).Seconds())),
	})
	switch {
	case removing:
		if err := e.remove(ctx, c, true); err != nil {
			e.Log.Error("removing a container after its end", "container", r.Name, "error", err)
		}
	case again:
		e.inBackground(func(ctx context.Context) { e.restartAfter(ctx, c, pause) })
	}
}

// release takes back what belongs to a run: runtime state, networks, name
// server, namespace, volume claims. Failures are logged; recovery and
// reconciliation repeat what was not possible now.
func (e *Engine) release(ctx context.Context, r container.Record) {
	complain := func(what string, err error) {
		if err != nil && !errdefs.IsNotFound(err) && !errors.Is(err, context.Canceled) {
			e.Log.Warn("after the end of a container", "container", r.Name, "step", what, "error", err)
		}
	}
	// Drivers do not know of each other: each gives back what is its own.
	var drivers sync.WaitGroup
	drivers.Go(func() {
		e.Networks.StopDNS(r.ID)
		for _, endpoint := range r.Endpoints {
			if endpoint.EndpointID != "" && endpoint.Attached != nil {
				complain("detach network", e.Networks.Detach(ctx, endpoint.NetworkID, endpoint.EndpointID))
			}
		}
		e.Networks.FreeNetns(r.ID)
	})
	drivers.Go(func() {
		driver, err := e.Drivers.Runtime(r.RuntimeDriver)
		if err == nil {
			_, err = driver.Delete(ctx, r.ID, "", true)
		}
		complain("delete from runtime", err)
	})
	for _, m := range r.Mounts {
		if m.Name != "" {
			complain("unmount volume", e.Volumes.Unmount(ctx, m.Name, r.ID))
		}
	}
	if r.HostConfig.IpcMode.IsShareable() {
		complain("unmount shared memory", e.unmountShm(r.ID))
	}
	drivers.Wait()
	e.execs.containerEnded(r.ID)
}

// restartPause applies the restart policy to an end.
func (e *Engine) restartPause(r container.Record, exit runtime.Exit) (time.Duration, bool) {
	if r.Stopped || !shouldRestart(r, exit.Code) {
		return 0, false
	}
	if exit.At.Sub(r.StartedAt) >= goodRun {
		return firstPause, true
	}
	return backOff(r.RestartCount), true
}

func shouldRestart(r container.Record, code int) bool {
	policy := r.HostConfig.RestartPolicy
	switch {
	case policy.IsAlways(), policy.IsUnlessStopped():
		return true
	case policy.IsOnFailure():
		return code != 0 && (policy.MaximumRetryCount == 0 || r.RestartCount < policy.MaximumRetryCount)
	}
	return false
}

// backOff is the pause before restart number count+1.
func backOff(count int) time.Duration {
	if count > 12 {
		return longestPause
	}
	return min(firstPause<<count, longestPause)
}

// restartAfter starts a container again, unless a user decided otherwise
// meanwhile.
func (e *Engine) restartAfter(ctx context.Context, c *container.Container, pause time.Duration) {
	waiting, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	// A stop or a removal ends the pause.
	_, err := c.Await(waiting, c.Now(), func(r container.Record, _, removed bool) bool {
		return removed || r.Status != container.Restarting
	})
	if err == nil || ctx.Err() != nil {
		return
	}
	end, err := c.Begin(ctx)
	if err != nil {
		return
	}
	defer end()
	if r := c.Record(); r.Status != container.Restarting || r.Stopped {
		return
	}
	if err := c.UpdateVolatile(func(r *container.Record) error { r.RestartCount++; return nil }); err != nil {
		return
	}
	if err := e.start(ctx, c, backend.StartOptions{}); err != nil {
		e.Log.Warn("restarting a container", "container", c.Record().Name, "error", err)
		if r := c.Record(); shouldRestart(r, r.ExitCode) && !r.Stopped && ctx.Err() == nil {
			if err := c.Update(func(r *container.Record) (err error) {
				r.Status, err = r.Status.Next(container.EventRestartPending)
				return err
			}); err == nil {
				e.inBackground(func(ctx context.Context) { e.restartAfter(ctx, c, backOff(r.RestartCount)) })
			}
		}
	}
}
