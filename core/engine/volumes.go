package engine

import (
	"context"
	"errors"
	"slices"
	"strings"

	mobymount "github.com/moby/moby/api/types/mount"
	mobyvolume "github.com/moby/moby/api/types/volume"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/core/volume"
)

// VolumeList implements the API's backend.
func (e *Engine) VolumeList(ctx context.Context, f filter.Args) (mobyvolume.ListResponse, error) {
	return e.Volumes.List(ctx, f, func(name string) int { return len(e.volumeUsers(name)) })
}

// VolumeInspect implements the API's backend.
func (e *Engine) VolumeInspect(ctx context.Context, name string) (mobyvolume.Volume, error) {
	return e.Volumes.Inspect(ctx, name)
}

// VolumeCreate implements the API's backend.
func (e *Engine) VolumeCreate(ctx context.Context, req mobyvolume.CreateRequest) (mobyvolume.Volume, error) {
	volume, err := e.Volumes.Create(ctx, req)
	return volume, badDriver(err)
}

// VolumeRemove implements the API's backend.
func (e *Engine) VolumeRemove(ctx context.Context, name string, force bool) error {
	return e.Volumes.Remove(ctx, name, force, e.volumeUsers)
}

// VolumesPrune implements the API's backend.
func (e *Engine) VolumesPrune(ctx context.Context, f filter.Args) (mobyvolume.PruneReport, error) {
	return e.Volumes.Prune(ctx, f, e.volumeUsers)
}

// VolumeClone implements the API's backend.
func (e *Engine) VolumeClone(ctx context.Context, source, name string, labels map[string]string, force bool) (mobyvolume.Volume, error) {
	if err := e.ready(ctx); err != nil {
		return mobyvolume.Volume{}, err
	}
	return e.Volumes.Clone(ctx, source, name, labels, force, e.runningUsers)
}

// VolumeRename implements the API's backend.
func (e *Engine) VolumeRename(ctx context.Context, name, newName string) (mobyvolume.Volume, error) {
	if err := e.ready(ctx); err != nil {
		return mobyvolume.Volume{}, err
	}
	return e.Volumes.Rename(ctx, name, newName, e.runningUsers, e.volumeMoved)
}

// VolumeResize implements the API's backend.
func (e *Engine) VolumeResize(ctx context.Context, name string, size int64) (mobyvolume.Volume, error) {
	if err := e.ready(ctx); err != nil {
		return mobyvolume.Volume{}, err
	}
	return e.Volumes.Resize(ctx, name, size)
}

// runningUsers are the users of a volume that run, or will in a moment.
func (e *Engine) runningUsers(name string) []string {
	return slices.DeleteFunc(e.volumeUsers(name), func(id string) bool {
		c, err := e.containers.Find(id)
		if err != nil {
			return true
		}
		status := c.Record().Status
		return !status.Alive() && status != container.Restarting
	})
}

// volumeMoved tells the containers that have a volume its new name.
func (e *Engine) volumeMoved(v volume.Renamed) error {
	var errs []error
	for _, id := range e.volumeUsers(v.Old) {
		c, err := e.containers.Find(id)
		if err != nil {
			continue // removed meanwhile
		}
		errs = append(errs, c.Update(func(r *container.Record) error {
			for i, m := range r.Mounts {
				if m.Type == mobymount.TypeVolume && m.Name == v.Old {
					r.Mounts[i].Name, r.Mounts[i].Source, r.Mounts[i].Anonymous = v.New, v.Mountpoint, false
				}
			}
			host := *r.HostConfig
			host.Binds, host.Mounts = slices.Clone(host.Binds), slices.Clone(host.Mounts)
			for i, bind := range host.Binds {
				if rest, ok := strings.CutPrefix(bind, v.Old+":"); ok {
					host.Binds[i] = v.New + ":" + rest
				}
			}
			for i, m := range host.Mounts {
				if m.Type == mobymount.TypeVolume && m.Source == v.Old {
					host.Mounts[i].Source = v.New
				}
			}
			r.HostConfig = &host
			return nil
		}))
	}
	return errors.Join(errs...)
}
