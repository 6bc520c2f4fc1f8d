package engine

import (
	"context"

	mobyvolume "github.com/moby/moby/api/types/volume"

	"github.com/davit-engine/davit/core/filter"
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
