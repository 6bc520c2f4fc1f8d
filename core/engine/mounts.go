package engine

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	mobymount "github.com/moby/moby/api/types/mount"
	mobyvolume "github.com/moby/moby/api/types/volume"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/spec"
	"github.com/davit-engine/davit/sdk/runtime"
)

// prepareMounts turns -v, --mount, --tmpfs, --volumes-from and the image's
// VOLUMEs into mounts, and makes the volumes.
func (e *Engine) prepareMounts(ctx context.Context, r *container.Record, u *undo) error {
	var list []container.Mount
	taken := func(target string) int {
		return slices.IndexFunc(list, func(m container.Mount) bool { return m.Destination == target })
	}
	add := func(m container.Mount) error {
		m.Destination = path.Clean(m.Destination)
		if !path.IsAbs(m.Destination) {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid mount path: '%s' mount path must be absolute", m.Destination))
		}
		if m.Destination == "/" {
			return errdefs.ErrInvalidArgument.WithMessage("invalid specification: destination can't be '/'")
		}
		if taken(m.Destination) >= 0 {
			return errdefs.ErrInvalidArgument.WithMessage("Duplicate mount point: " + m.Destination)
		}
		list = append(list, m)
		return nil
	}
	for _, bind := range r.HostConfig.Binds {
		m, err := parseBind(bind, r.HostConfig.VolumeDriver)
		if err != nil {
			return err
		}
		if err := add(m); err != nil {
			return err
		}
	}
	for _, wanted := range r.HostConfig.Mounts {
		m, err := convertMount(wanted, true)
		if err != nil {
			return err
		}
		if err := add(m); err != nil {
			return err
		}
	}
	for target, options := range r.HostConfig.Tmpfs {
		m := container.Mount{MountPoint: mobycontainer.MountPoint{Type: mobymount.TypeTmpfs, Destination: target, RW: true}}
		var err error
		if m.Options, err = spec.TmpfsOptions(splitOptions(options)); err != nil {
			return err
		}
		if err := add(m); err != nil {
			return err
		}
	}
	for _, from := range r.HostConfig.VolumesFrom {
		inherited, err := e.volumesFrom(from)
		if err != nil {
			return err
		}
		for _, m := range inherited {
			if taken(m.Destination) < 0 {
				list = append(list, m)
			}
		}
	}
	for target := range r.Config.Volumes {
		if target = path.Clean(target); taken(target) < 0 {
			if err := add(container.Mount{MountPoint: mobycontainer.MountPoint{Type: mobymount.TypeVolume, Destination: target, RW: true, Driver: r.HostConfig.VolumeDriver}}); err != nil {
				return err
			}
		}
	}
	for i := range list {
		if err := e.prepareMount(ctx, r, &list[i], u); err != nil {
			return err
		}
	}
	// Parents before what is mounted below them.
	slices.SortStableFunc(list, func(a, b container.Mount) int {
		return strings.Count(path.Clean(a.Destination), "/") - strings.Count(path.Clean(b.Destination), "/")
	})
	r.Mounts = list
	return nil
}

// prepareMount makes a mount's source: a missing bind source of -v is made as a
// directory, a volume is created and, if it is empty, filled from the image.
func (e *Engine) prepareMount(ctx context.Context, r *container.Record, m *container.Mount, u *undo) error {
	switch m.Type {
	case mobymount.TypeBind:
		if _, err := os.Lstat(m.Source); os.IsNotExist(err) {
			if err := os.MkdirAll(m.Source, 0o755); err != nil {
				return fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err)
			}
		}
		return nil
	case mobymount.TypeVolume:
	default:
		return nil
	}
	m.Anonymous = m.Name == ""
	if m.Anonymous {
		m.Name = container.NewID()
	}
	request := mobyvolume.CreateRequest{Name: m.Name, Driver: m.Driver}
	for _, wanted := range r.HostConfig.Mounts {
		if o := wanted.VolumeOptions; path.Clean(wanted.Target) == m.Destination && o != nil {
			request.Labels = o.Labels
			if o.DriverConfig != nil {
				request.DriverOpts = o.DriverConfig.Options
			}
		}
	}
	volume, fresh, err := e.Volumes.Ensure(ctx, request, r.ID, m.Anonymous)
	if err != nil {
		return err
	}
	m.Driver, m.Source = volume.Driver, volume.Mountpoint
	if m.Mode == "" {
		m.Mode = "z"
	}
	if fresh {
		u.add(func(ctx context.Context) error {
			e.Volumes.Settled(r.ID)
			err := e.Volumes.Remove(ctx, m.Name, false, e.volumeUsers)
			if errdefs.IsConflict(err) {
				return nil // another container has it by now
			}
			return ignoreNotFound(err)
		})
	}
	return e.fillVolume(ctx, r, *m)
}

// specMounts are a container's mounts in the words of the runtime-spec, with its
// volumes claimed.
func (e *Engine) specMounts(ctx context.Context, r container.Record, u *undo) ([]specs.Mount, error) {
	var mounts []specs.Mount
	for _, m := range r.Mounts {
		mounted := specs.Mount{Destination: m.Destination, Options: slices.Clone(m.Options)}
		switch m.Type {
		case mobymount.TypeTmpfs:
			mounted.Type, mounted.Source = "tmpfs", "tmpfs"
		case mobymount.TypeBind:
			if err := checkPropagation(m.Source, m.Propagation); err != nil {
				return nil, err
			}
			mounted.Type, mounted.Source = "bind", m.Source
			mounted.Options = append(mounted.Options, bindOption(m))
		default:
			given, err := e.mountVolume(ctx, r, m, u)
			if err != nil {
				return nil, err
			}
			mounted.Type, mounted.Source = given.Type, given.Source
			mounted.Options = append(mounted.Options, given.Options...)
			if e.remapped(r) && given.Type == "bind" {
				mounted.Options = append(mounted.Options, "idmap")
			}
			if m.Subpath != "" {
				mounted.Options = append(mounted.Options, runtime.SubdirOption+path.Clean(m.Subpath))
			}
		}
		if m.Propagation != "" {
			mounted.Options = append(mounted.Options, string(m.Propagation))
		}
		if !m.RW {
			mounted.Options = append(mounted.Options, "ro")
			if m.Type == mobymount.TypeBind && !m.NonRecursive && !m.WritableBelow {
				mounted.Options = append(mounted.Options, "rro")
			}
		}
		mounts = append(mounts, mounted)
	}
	return mounts, nil
}

func bindOption(m container.Mount) string {
	if m.NonRecursive {
		return "bind"
	}
	return "rbind"
}
