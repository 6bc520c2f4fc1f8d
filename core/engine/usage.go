package engine

import (
	"context"
	"slices"

	"github.com/moby/moby/api/types/build"
	mobycontainer "github.com/moby/moby/api/types/container"
	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	mobyvolume "github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"

	"github.com/davit-engine/davit/core/backend"
)

// SystemDiskUsage measures images, containers and volumes, or those of them that are
// named. Only they are looked at.
func (e *Engine) SystemDiskUsage(ctx context.Context, objects ...system.DiskUsageObject) (usage system.DiskUsage, err error) {
	wanted := func(object system.DiskUsageObject) bool {
		return len(objects) == 0 || slices.Contains(objects, object)
	}
	if wanted(system.ImageObject) {
		if usage.ImageUsage, err = e.imageUsage(ctx); err != nil {
			return usage, err
		}
	}
	if wanted(system.ContainerObject) {
		if usage.ContainerUsage, err = e.containerUsage(ctx); err != nil {
			return usage, err
		}
	}
	if wanted(system.VolumeObject) {
		if usage.VolumeUsage, err = e.volumeUsage(ctx); err != nil {
			return usage, err
		}
	}
	if wanted(system.BuildCacheObject) {
		usage.BuildCacheUsage = &build.DiskUsage{}
	}
	return usage, nil
}

// imageUsage has the images with what they occupy: blobs, and layers in all storage
// drivers.
func (e *Engine) imageUsage(ctx context.Context) (*mobyimage.DiskUsage, error) {
	list, err := e.ImageList(ctx, backend.ImageListOptions{})
	if err != nil {
		return nil, err
	}
	stored, err := e.Images.Usage(ctx)
	if err != nil {
		return nil, err
	}
	usage := &mobyimage.DiskUsage{Items: list, TotalCount: int64(len(list)), TotalSize: stored.Total, Reclaimable: stored.Total}
	users := map[string]int64{}
	for _, c := range e.containers.All() {
		users[c.Record().Image]++
	}
	for i := range list {
		sizes := stored.Images[digest.Digest(list[i].ID)]
		list[i].Size, list[i].SharedSize, list[i].Containers = sizes.Size, sizes.Shared, users[list[i].ID]
		if list[i].Containers > 0 {
			usage.ActiveCount++
			usage.Reclaimable -= sizes.Size - sizes.Shared
		}
	}
	return usage, nil
}

func (e *Engine) containerUsage(ctx context.Context) (*mobycontainer.DiskUsage, error) {
	list, err := e.ContainerList(ctx, backend.ContainerListOptions{All: true, Size: true})
	if err != nil {
		return nil, err
	}
	usage := &mobycontainer.DiskUsage{Items: list, TotalCount: int64(len(list))}
	for _, c := range list {
		usage.TotalSize += c.SizeRw
		if c.State == mobycontainer.StateRunning || c.State == mobycontainer.StatePaused {
			usage.ActiveCount++
		} else {
			usage.Reclaimable += c.SizeRw
		}
	}
	return usage, nil
}

func (e *Engine) volumeUsage(ctx context.Context) (*mobyvolume.DiskUsage, error) {
	list, err := e.VolumeList(ctx, nil)
	if err != nil {
		return nil, err
	}
	usage := &mobyvolume.DiskUsage{TotalCount: int64(len(list.Volumes))}
	for _, v := range list.Volumes {
		size, users := e.Volumes.Size(ctx, v.Name), int64(len(e.volumeUsers(v.Name)))
		v.UsageData = &mobyvolume.UsageData{Size: size, RefCount: users}
		usage.Items = append(usage.Items, v)
		usage.TotalSize += max(size, 0)
		if users > 0 {
			usage.ActiveCount++
		} else {
			usage.Reclaimable += max(size, 0)
		}
	}
	return usage, nil
}
