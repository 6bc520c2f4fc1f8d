package engine

import (
	"context"
	"fmt"
	"strconv"

	mobymount "github.com/moby/moby/api/types/mount"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/rootfs"
	"github.com/davit-engine/davit/sdk/mount"
)

// mountVolume claims a volume for a container that starts. Half a copy of the
// image's content, which a crash left, is not shown to it.
func (e *Engine) mountVolume(ctx context.Context, r container.Record, m container.Mount, u *undo) (mount.Mount, error) {
	details := map[string]string{"destination": m.Destination, "read/write": strconv.FormatBool(m.RW), "propagation": string(m.Propagation)}
	given, err := e.Volumes.Mount(ctx, m.Name, r.ID, details)
	if err != nil {
		return given, mountFailed(m, err)
	}
	u.add(func(ctx context.Context) error { return e.Volumes.Unmount(ctx, m.Name, r.ID) })
	if given.Type != "bind" {
		return given, nil
	}
	place, done, err := volumePlace(given, m)
	if err != nil {
		return given, err
	}
	defer done()
	if rootfs.CopyUpLeft(place) {
		err = e.Volumes.Fill(ctx, m.Name, func(mount.Mount) error { return rootfs.FinishCopyUp(place) })
	}
	return given, err
}

// mountFailed is Docker's frame around what a driver says.
func mountFailed(m container.Mount, err error) error {
	return fmt.Errorf("error while mounting volume '%s': %w", m.Source, err)
}

// volumePlace is the directory of a mounted volume that a container is shown, as
// a path that is good until done: what a subpath leads to can be changed by others.
func volumePlace(given mount.Mount, m container.Mount) (place string, done func(), err error) {
	if m.Subpath == "" {
		return given.Source, func() {}, nil
	}
	f, err := rootfs.OpenBelow(given.Source, m.Subpath)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d", f.Fd()), func() { _ = f.Close() }, nil
}

// fillVolume copies what the image has at a volume's place into it, if it is empty.
// A volume that cannot be mounted, or has no such subpath, fails the container now
// and not when it starts.
func (e *Engine) fillVolume(ctx context.Context, r *container.Record, m container.Mount) error {
	if m.NoCopy && m.Subpath == "" {
		return nil
	}
	var layer []mount.Mount
	if !m.NoCopy {
		storage, err := e.Drivers.Storage(r.StorageDriver)
		if err != nil {
			return err
		}
		if layer, err = storage.Mounts(ctx, r.Snapshot); err != nil {
			return err
		}
	}
	mounted := false
	err := e.Volumes.Fill(ctx, m.Name, func(given mount.Mount) error {
		if mounted = true; given.Type != "bind" {
			return nil // the runtime's to mount, and its data nowhere to be seen
		}
		place, done, err := volumePlace(given, m)
		if err != nil || m.NoCopy {
			return err
		}
		defer done()
		if err := rootfs.CopyUp(ctx, layer, m.Destination, place); err != nil {
			return fmt.Errorf("filling volume %s from the image: %w", m.Name, err)
		}
		return nil
	})
	if err != nil && !mounted {
		return mountFailed(m, err)
	}
	return err
}

// borrowVolumes mounts the volumes of a container that does not run, for as long
// as fn looks at them.
func (e *Engine) borrowVolumes(ctx context.Context, r container.Record, fn func(given map[string]mount.Mount) error) (err error) {
	given := map[string]mount.Mount{} // by destination
	for _, m := range r.Mounts {
		if m.Type != mobymount.TypeVolume {
			continue
		}
		borrowed, giveBack, err := e.Volumes.Borrow(ctx, m.Name)
		if err != nil {
			return mountFailed(m, err)
		}
		defer func() {
			if err := giveBack(); err != nil {
				e.Log.Warn("giving a volume back", "volume", m.Name, "error", err)
			}
		}()
		given[m.Destination] = borrowed
	}
	return fn(given)
}
