package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/image"
	"github.com/davit-engine/davit/core/rootfs"
	"github.com/davit-engine/davit/sdk/storage"
)

// ContainerCommit makes an image of a container's filesystem, without its volumes,
// and answers the image's ID. A container that runs is paused meanwhile if o.Pause
// says so.
func (e *Engine) ContainerCommit(ctx context.Context, name string, o backend.CommitOptions) (id string, err error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return "", err
	}
	r := c.Record()
	if r.Status == container.Dead {
		return "", errdefs.ErrConflict.WithMessage(fmt.Sprintf("You cannot commit container %s which is Dead", r.ID))
	}
	if r.Status == container.Removing {
		return "", errdefs.ErrConflict.WithMessage(fmt.Sprintf("You cannot commit container %s which is being removed", r.ID))
	}
	options := image.CommitOptions{
		Repo: o.Repo, Tag: o.Tag, Author: o.Author, Comment: o.Comment, Changes: o.Changes,
		Container: imageConfig(r.Config), Image: r.Image, Driver: r.StorageDriver,
	}
	if o.Config != nil {
		options.Config = imageConfig(o.Config)
	}
	layer := func(w io.Writer) (empty bool, err error) { return e.writeLayer(ctx, r, w) }
	if o.Pause && r.Status == container.Running {
		layer = func(w io.Writer) (empty bool, err error) {
			resume, err := e.pauseFor(ctx, c)
			if err != nil {
				return false, err
			}
			defer func() { err = errors.Join(err, resume()) }()
			return e.writeLayer(ctx, r, w)
		}
	}
	if id, err = e.Images.Commit(ctx, options, layer); err != nil {
		return "", err
	}
	reference := o.Repo
	if o.Tag != "" {
		reference += ":" + o.Tag
	}
	e.containerEvent(r, events.ActionCommit, map[string]string{"comment": o.Comment, "imageID": id, "imageRef": reference})
	return id, nil
}

// pauseFor pauses a container for a commit. One that has ended, or that somebody
// else has paused, stays as it is. That it is for a commit is written down first, so
// that a crash does not leave it paused.
func (e *Engine) pauseFor(ctx context.Context, c *container.Container) (resume func() error, err error) {
	end, err := c.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if c.Record().Status != container.Running {
		return func() error { return nil }, nil
	}
	if err := c.Update(func(r *container.Record) error { r.Committing = true; return nil }); err != nil {
		return nil, err
	}
	if err := e.pause(ctx, c); err != nil {
		return nil, errors.Join(err, committed(c))
	}
	return func() error { return e.resume(context.WithoutCancel(ctx), c) }, nil
}

// resume lets a container go on that was paused for a commit.
func (e *Engine) resume(ctx context.Context, c *container.Container) error {
	return errors.Join(e.unpause(ctx, c), committed(c))
}

func committed(c *container.Container) error {
	return c.Update(func(r *container.Record) error { r.Committing = false; return nil })
}

// writeLayer writes what a container has changed as the archive of a layer.
func (e *Engine) writeLayer(ctx context.Context, r container.Record, w io.Writer) (empty bool, err error) {
	driver, err := e.Drivers.Storage(r.StorageDriver)
	if err != nil {
		return false, err
	}
	changes, err := e.changes(ctx, r)
	if err != nil {
		return false, err
	}
	mounts, err := driver.Mounts(ctx, r.Snapshot)
	if err != nil {
		return false, err
	}
	err = rootfs.Mounted(ctx, mounts, true, func(v *rootfs.View) error {
		layer, err := v.NewLayer(w)
		if err != nil {
			return err
		}
		for _, change := range changes {
			if err := ctx.Err(); err != nil {
				return errors.Join(err, layer.Close())
			}
			write := layer.Put
			if change.Kind == storage.ChangeDelete {
				write = layer.Delete
			}
			if err := write(change.Path); err != nil {
				return errors.Join(err, layer.Close())
			}
		}
		empty = layer.Empty()
		return layer.Close()
	})
	return empty, err
}

// changes lists what a container's layer changes, without what every container
// gets.
func (e *Engine) changes(ctx context.Context, r container.Record) ([]storage.Change, error) {
	driver, err := e.Drivers.Storage(r.StorageDriver)
	if err != nil {
		return nil, err
	}
	differ, ok := driver.(storage.Differ)
	if !ok {
		return nil, fmt.Errorf("storage driver %s cannot list changes: %w", r.StorageDriver, errdefs.ErrNotImplemented)
	}
	var list []storage.Change
	placedIn := map[string]bool{}
	err = differ.Diff(ctx, r.Snapshot, func(change storage.Change) error {
		change.Path = path.Clean(change.Path)
		if change.Kind == storage.ChangeAdd && slices.Contains(placed, change.Path) {
			placedIn[path.Dir(change.Path)] = true
			return nil
		}
		list = append(list, change)
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Nor a directory that is only there for them.
	return slices.DeleteFunc(list, func(change storage.Change) bool {
		return change.Kind == storage.ChangeAdd && placedIn[change.Path] &&
			!slices.ContainsFunc(list, func(other storage.Change) bool { return path.Dir(other.Path) == change.Path })
	}), nil
}

// imageConfig is what an image keeps of a container's configuration.
func imageConfig(c *mobycontainer.Config) dockerspec.DockerOCIImageConfig {
	var config dockerspec.DockerOCIImageConfig
	config.User, config.Env, config.Entrypoint, config.Cmd = c.User, c.Env, c.Entrypoint, c.Cmd
	config.Volumes, config.WorkingDir, config.Labels, config.StopSignal = c.Volumes, c.WorkingDir, c.Labels, c.StopSignal
	config.Healthcheck, config.OnBuild, config.Shell = c.Healthcheck, c.OnBuild, c.Shell
	for port := range c.ExposedPorts {
		if config.ExposedPorts == nil {
			config.ExposedPorts = map[string]struct{}{}
		}
		config.ExposedPorts[port.String()] = struct{}{}
	}
	return config
}
