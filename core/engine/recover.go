package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/network"
	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/sdk/runtime"
	"github.com/davit-engine/davit/sdk/storage"
	"github.com/davit-engine/davit/sdk/volume"
)

// Recover is start-up: it takes over what runs, records what ended meanwhile,
// and removes what a crash cut off. Operations wait until it is over. Drivers
// that are absent leave their containers as they are; they are asked again when
// the driver comes.
func (e *Engine) Recover(ctx context.Context) error {
	var group sync.WaitGroup
	slots := make(chan struct{}, 16)
	for _, c := range e.containers.All() {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := e.adopt(ctx, c); err != nil {
				e.Log.Error("taking a container over", "container", c.Record().Name, "error", err)
			}
		})
	}
	group.Wait()
	e.reconcile(ctx, "", "")
	e.sweep(ctx)
	close(e.recovered)
	e.notice()
	e.startAgain()
	return ctx.Err()
}

// adopt finds out from its runtime how a container is.
func (e *Engine) adopt(ctx context.Context, c *container.Container) error {
	r := c.Record()
	driver, err := e.Drivers.Runtime(r.RuntimeDriver)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	state, err := driver.Adopt(asking, r.ID)
	if err != nil {
		if r.Status.Alive() {
			e.watch(c) // asks until the driver answers
		}
		return err
	}
	switch state.Status {
	case runtime.StatusRunning, runtime.StatusPaused:
		status := container.Running
		if state.Status == runtime.StatusPaused {
			status = container.Paused
		}
		err := c.Update(func(r *container.Record) error {
			if !r.Status.Alive() {
				// Started, but a crash came before that was written down.
				r.StartedAt, r.ExitCode, r.Error = time.Now().UTC(), 0, ""
			}
			r.Status, r.PID, r.Socket = status, state.PID, state.Socket
			return nil
		})
		e.watch(c)
		if err == nil && r.Committing {
			err = e.resume(ctx, c)
		}
		return err
	case runtime.StatusCreated:
		// Its start was cut off before the program ran.
		_, err := driver.Delete(ctx, r.ID, "", true)
		return errors.Join(ignoreNotFound(err), e.settle(c, nil))
	case runtime.StatusExited:
		return errors.Join(e.settle(c, state.Exit), e.freeRuntime(ctx, driver, r.ID))
	case runtime.StatusGone:
		if r.Status.Alive() {
			return e.settle(c, &runtime.Exit{Code: 255, At: time.Now().UTC()})
		}
		return nil
	case runtime.StatusUnknown:
		if r.Status.Alive() {
			e.watch(c)
		}
	}
	return nil
}

func (e *Engine) freeRuntime(ctx context.Context, driver runtime.Driver, id string) error {
	_, err := driver.Delete(ctx, id, "", true)
	return ignoreNotFound(err)
}

// settle records that a container does not run. Its networks and claims are
// dropped by reconciliation.
func (e *Engine) settle(c *container.Container, exit *runtime.Exit) error {
	if r := c.Record(); !r.Status.Alive() && r.Status != container.Restarting && exit == nil {
		return nil
	}
	return c.Update(func(r *container.Record) error {
		r.PID, r.Socket, r.Committing = 0, "", false
		r.Detach()
		if exit != nil && (r.Status.Alive() || r.FinishedAt.IsZero()) {
			r.ExitCode, r.FinishedAt, r.OOMKilled, r.Error = exit.Code, exit.At, exit.OOMKilled, exit.Reason
		}
		if r.Status.Alive() || r.Status == container.Restarting {
			r.Status = container.Exited
		}
		return nil
	})
}

// startAgain applies restart policies after a start of the engine, and removes
// --rm containers that have ended.
func (e *Engine) startAgain() {
	for _, c := range e.containers.All() {
		r := c.Record()
		if r.Status == container.Created || r.Status.Alive() {
			continue
		}
		policy := r.HostConfig.RestartPolicy
		switch {
		case r.HostConfig.AutoRemove && r.Status == container.Exited:
			e.inBackground(func(ctx context.Context) {
				if end, err := c.Begin(ctx); err == nil {
					defer end()
					if err := e.remove(ctx, c, true); err != nil {
						e.Log.Error("removing a container that ended", "container", r.Name, "error", err)
					}
				}
			})
		case policy.IsAlways() || policy.IsUnlessStopped() && !r.Stopped || policy.IsOnFailure() && !r.Stopped && shouldRestart(r, r.ExitCode):
			if err := c.Update(func(r *container.Record) (err error) {
				r.Stopped = false
				r.Status, err = r.Status.Next(container.EventRestartPending)
				return err
			}); err == nil {
				e.inBackground(func(ctx context.Context) { e.restartAfter(ctx, c, 0) })
			}
		}
	}
}

// DriverRestarted is called when a driver's process was started again, before
// anybody else may call it: it may have missed what ended in between.
func (e *Engine) DriverRestarted(ctx context.Context, kind plugin.Kind, driver string) {
	select {
	case <-e.recovered:
		e.reconcile(ctx, kind, driver)
	default:
		// Recovery, which is at work and may be waiting for this driver, does it.
	}
}

// reconcile tells drivers what is valid, so that they drop the rest. An empty
// kind means all.
func (e *Engine) reconcile(ctx context.Context, kind plugin.Kind, driver string) {
	var namespaces []string
	var attachments []network.Attachment
	var claims []volume.Claim
	for _, c := range e.containers.All() {
		r := c.Record()
		if !r.Status.Alive() {
			continue
		}
		namespaces = append(namespaces, r.ID)
		gateways := e.gatewaysOf(r)
		for name, endpoint := range r.Endpoints {
			if a := endpoint.Attached; a != nil {
				attachments = append(attachments, attachment(r, endpoint, a.Netns, a.Interface, gateways.of(name)))
			}
		}
		for _, m := range r.Mounts {
			if m.Name != "" {
				claims = append(claims, volume.Claim{Volume: m.Name, Consumer: r.ID})
			}
		}
	}
	if kind == "" || kind == plugin.Network {
		if err := e.Networks.Reconcile(ctx, driver, namespaces, attachments); err != nil {
			e.Log.Error("reconciling networks", "driver", driver, "error", err)
		}
	}
	if kind == "" || kind == plugin.Volume {
		if err := e.Volumes.Reconcile(ctx, driver, claims); err != nil {
			e.Log.Error("reconciling volumes", "driver", driver, "error", err)
		}
		if err := e.Volumes.FinishRenames(e.volumeMoved); err != nil {
			e.Log.Error("finishing the renaming of volumes", "error", err)
		}
	}
	if kind != "" {
		return
	}
	for _, c := range e.containers.All() {
		if r := c.Record(); r.Status.Alive() {
			if netns := netnsOf(r); netns != "" {
				if err := e.serveDNS(ctx, r, netns); err != nil {
					e.Log.Error("serving names again", "container", r.Name, "error", err)
				}
			}
		}
	}
}

func netnsOf(r container.Record) string {
	for _, endpoint := range r.Endpoints {
		if endpoint.Attached != nil {
			return endpoint.Attached.Netns
		}
	}
	return ""
}

// sweep removes what belongs to no container: runtime states, layers,
// directories.
func (e *Engine) sweep(ctx context.Context) {
	known := map[string]bool{}
	for _, c := range e.containers.All() {
		known[c.ID] = true
	}
	err := errors.Join(e.sweepDrivers(ctx, known), e.Volumes.Sweep(ctx, func(id string) bool { return known[id] }, e.volumeUsers), e.sweepCheckpoints())
	if err != nil {
		e.Log.Error("removing what belongs to no container", "error", err)
	}
	entries, err := os.ReadDir(e.dir(""))
	if err != nil {
		e.Log.Error("listing containers' directories", "error", err)
		return
	}
	for _, entry := range entries {
		if !known[entry.Name()] {
			if err := e.removeDir(entry.Name()); err != nil {
				e.Log.Error("removing a left directory", "path", e.dir(entry.Name()), "error", err)
			}
		}
	}
}

func (e *Engine) sweepDrivers(ctx context.Context, known map[string]bool) error {
	var errs []error
	for _, status := range e.Drivers.List() {
		if status.State == plugin.StateIdle {
			continue // it has nothing
		}
		switch status.Kind {
		case plugin.Runtime:
			driver, err := e.Drivers.Runtime(status.Driver)
			if err == nil {
				err = sweepRuntime(ctx, driver, known)
			}
			errs = append(errs, err)
		case plugin.Storage:
			driver, err := e.Drivers.Storage(status.Driver)
			if err == nil {
				err = sweepStorage(ctx, driver, known)
			}
			errs = append(errs, err)
		case plugin.Network, plugin.Volume: // reconciled
		}
	}
	return errors.Join(errs...)
}

func sweepRuntime(ctx context.Context, driver runtime.Driver, known map[string]bool) error {
	states, err := driver.List(ctx)
	if err != nil {
		return fmt.Errorf("listing a runtime's containers: %w", err)
	}
	var errs []error
	for _, state := range states {
		if !known[state.ID] {
			_, err := driver.Delete(ctx, state.ID, "", true)
			errs = append(errs, ignoreNotFound(err))
		}
	}
	return errors.Join(errs...)
}

func sweepStorage(ctx context.Context, driver storage.Driver, known map[string]bool) error {
	var left []string
	err := driver.List(ctx, snapshotPrefix, func(info storage.Info) error {
		if !known[strings.TrimPrefix(info.Name, snapshotPrefix)] {
			left = append(left, info.Name)
		}
		return nil
	})
	if errdefs.IsNotImplemented(err) {
		return nil
	}
	errs := []error{err}
	for _, key := range left {
		errs = append(errs, ignoreNotFound(driver.Remove(ctx, key)))
	}
	return errors.Join(errs...)
}
