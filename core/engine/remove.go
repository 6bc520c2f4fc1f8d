package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	mobymount "github.com/moby/moby/api/types/mount"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/event"
	"github.com/davit-engine/davit/core/filter"
)

// ContainerRemove removes a container; with Force a running one is killed first.
func (e *Engine) ContainerRemove(ctx context.Context, name string, o backend.ContainerRemoveOptions) error {
	if o.Links {
		return errdefs.ErrInvalidArgument.WithMessage("links are not supported: there is none to remove")
	}
	c, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	r := c.Record()
	if r.Status.Alive() {
		if !o.Force {
			state, procedure := "running", "Stop the container before attempting removal or force remove"
			if r.Status == container.Paused {
				state, procedure = "paused", "Unpause and then stop the container before attempting removal or force remove"
			}
			return errdefs.ErrConflict.WithMessage(fmt.Sprintf("cannot remove container %q: container is %s: %s", "/"+r.Name, state, procedure))
		}
		moment := c.Now()
		if err := c.Update(func(r *container.Record) error { r.Stopped = true; return nil }); err != nil {
			return err
		}
		if err := e.kill(ctx, c, moment); err != nil && !c.Gone() {
			return err
		}
	}
	end, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if c.Gone() { // removed by its own --rm meanwhile
		return nil
	}
	if c.Record().Status.Alive() {
		return errdefs.ErrConflict.WithMessage(fmt.Sprintf("container %s was started again while it was being removed", r.ID))
	}
	return e.remove(ctx, c, o.Volumes)
}

// remove deletes a container that does not run; the caller holds its turn. The
// record goes first, durably; what a crash leaves of the rest, recovery removes.
func (e *Engine) remove(ctx context.Context, c *container.Container, volumes bool) error {
	if err := c.UpdateVolatile(func(r *container.Record) (err error) {
		r.Status, err = r.Status.Next(container.EventRemove)
		return err
	}); err != nil {
		return err
	}
	r := c.Record()
	err := e.keepVolumes(r, volumes)
	if err == nil {
		// Who waits for the end of a container with --rm finds its volumes gone, too.
		err = c.Delete(func() {
			if volumes {
				e.removeAnonymous(ctx, r)
			}
		})
	}
	if err != nil {
		_ = c.UpdateVolatile(func(r *container.Record) (err error) {
			r.Status, err = r.Status.Next(container.EventRemoveFailed)
			return err
		})
		return err
	}
	e.containerEvent(r, events.ActionDestroy, nil)
	e.inBackground(func(ctx context.Context) { e.clean(ctx, r) })
	return nil
}

// keepVolumes makes sure that the volumes of a container that is removed without
// them stay, whatever happens in between.
func (e *Engine) keepVolumes(r container.Record, removed bool) error {
	if removed {
		return nil
	}
	for _, m := range r.Mounts {
		if m.Type == mobymount.TypeVolume {
			if err := e.Volumes.Disown(m.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// clean frees a removed container's layer and files. It goes on when the caller
// of the removal has left, and for a while when the engine is about to end;
// what it cannot do, the next recovery does.
func (e *Engine) clean(ctx context.Context, r container.Record) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	storage, err := e.Drivers.Storage(r.StorageDriver)
	if err == nil {
		err = errors.Join(ignoreNotFound(storage.Release(ctx, r.Snapshot)), ignoreNotFound(storage.Remove(ctx, r.Snapshot)))
	}
	if err = errors.Join(err, e.removeDir(r.ID)); err != nil {
		e.Log.Warn("cleaning up after a removed container", "container", r.Name, "error", err)
	}
	if _, err := e.Images.Resolve(ctx, r.Image); errdefs.IsNotFound(err) {
		e.Images.Collect() // its layers were the last user's
	}
}

// removeAnonymous removes the container's anonymous volumes that no other
// container uses.
func (e *Engine) removeAnonymous(ctx context.Context, r container.Record) {
	// Also when the caller has left: the container is gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for _, m := range r.Mounts {
		if !m.Anonymous {
			continue
		}
		err := e.Volumes.Remove(ctx, m.Name, false, e.volumeUsers)
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			e.Log.Warn("removing an anonymous volume", "volume", m.Name, "error", err)
		}
	}
}

// removeIfAsked removes a --rm container whose start failed; the caller holds
// its turn.
func (e *Engine) removeIfAsked(c *container.Container) {
	if !c.Record().HostConfig.AutoRemove {
		return
	}
	if err := e.remove(e.life, c, true); err != nil {
		e.Log.Error("removing a container that did not start", "container", c.ID, "error", err)
	}
}

// volumeUsers answers the containers that have a volume, derived, not counted.
func (e *Engine) volumeUsers(name string) []string {
	var ids []string
	for _, c := range e.containers.All() {
		for _, m := range c.Record().Mounts {
			if m.Type == mobymount.TypeVolume && m.Name == name {
				ids = append(ids, c.ID)
				break
			}
		}
	}
	return ids
}

// ContainersPrune removes all containers that do not run.
func (e *Engine) ContainersPrune(ctx context.Context, f filter.Args) (mobycontainer.PruneReport, error) {
	report := mobycontainer.PruneReport{}
	if err := e.ready(ctx); err != nil {
		return report, err
	}
	if err := f.Validate("label", "label!", "until"); err != nil {
		return report, err
	}
	until, err := event.Until(f)
	if err != nil {
		return report, err
	}
	for _, c := range e.containers.All() {
		r := c.Record()
		if r.Status.Alive() || r.Status == container.Restarting || !f.Labels("label", r.Config.Labels) || f.Has("label!") && f.Labels("label!", r.Config.Labels) || !until.IsZero() && r.Created.After(until) {
			continue
		}
		size := e.layerSize(ctx, r)
		switch err := e.ContainerRemove(ctx, c.ID, backend.ContainerRemoveOptions{}); {
		case err == nil:
			report.ContainersDeleted = append(report.ContainersDeleted, c.ID)
			report.SpaceReclaimed += uint64(max(size, 0))
		case errdefs.IsNotFound(err) || errdefs.IsConflict(err): // gone or started meanwhile
		default:
			return report, err
		}
	}
	e.Bus.Emit(events.Message{Type: events.ContainerEventType, Action: events.ActionPrune, Actor: events.Actor{Attributes: map[string]string{"reclaimed": fmt.Sprint(report.SpaceReclaimed)}}})
	return report, nil
}

// layerSize measures a container's writable layer; 0 if that is not possible.
func (e *Engine) layerSize(ctx context.Context, r container.Record) int64 {
	storage, err := e.Drivers.Storage(r.StorageDriver)
	if err != nil {
		return 0
	}
	usage, err := storage.Usage(ctx, r.Snapshot)
	if err != nil {
		return 0
	}
	return usage.Size
}
