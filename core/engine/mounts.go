package engine

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	mobymount "github.com/moby/moby/api/types/mount"
	mobyvolume "github.com/moby/moby/api/types/volume"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/image"
	"github.com/davit-engine/davit/core/rootfs"
	"github.com/davit-engine/davit/core/spec"
	"github.com/davit-engine/davit/sdk/runtime"
)

// prepareMounts turns -v, --mount, --tmpfs, --volumes-from and the image's
// VOLUMEs into mounts, and makes the volumes.
func (e *Engine) prepareMounts(ctx context.Context, r *container.Record, img image.Image, u *undo) error {
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
		m, err := convertMount(wanted)
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
		if err := e.prepareMount(ctx, r, &list[i], img, u); err != nil {
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

func splitOptions(options string) []string {
	if options == "" {
		return nil
	}
	return strings.Split(options, ",")
}

var propagations = []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"}

// parseBind reads "[source:]target[:options]" of -v.
func parseBind(bind, driver string) (container.Mount, error) {
	invalid := func(why string) error {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid volume specification: '%s'%s", bind, why))
	}
	parts := strings.Split(bind, ":")
	var m container.Mount
	m.RW = true
	switch len(parts) {
	case 1:
		m.Destination = parts[0]
	case 2:
		m.Source, m.Destination = parts[0], parts[1]
		if !path.IsAbs(m.Destination) && path.IsAbs(m.Source) && !strings.Contains(m.Destination, "/") {
			m.Source, m.Destination, m.Mode = "", parts[0], parts[1] // target:options
		}
	case 3:
		m.Source, m.Destination, m.Mode = parts[0], parts[1], parts[2]
	default:
		return m, invalid("")
	}
	if m.Destination == "" {
		return m, invalid(": empty target")
	}
	for _, option := range splitOptions(m.Mode) {
		switch {
		case option == "ro":
			m.RW = false
		case option == "rw" || option == "z" || option == "Z" || option == "cached" || option == "delegated" || option == "consistent":
		case option == "nocopy":
			m.NoCopy = true
		case slices.Contains(propagations, option):
			m.Propagation = mobymount.Propagation(option)
		default:
			return m, errdefs.ErrInvalidArgument.WithMessage("invalid mode: " + m.Mode)
		}
	}
	if strings.HasPrefix(m.Source, "/") {
		m.Type, m.Source = mobymount.TypeBind, filepath.Clean(m.Source)
		if m.Propagation == "" {
			m.Propagation = mobymount.PropagationRPrivate
		}
		return m, nil
	}
	m.Type, m.Name, m.Source, m.Driver = mobymount.TypeVolume, m.Source, "", driver
	return m, nil
}

// convertMount reads a mount of the API's Mounts (--mount).
func convertMount(wanted mobymount.Mount) (container.Mount, error) {
	m := container.Mount{MountPoint: mobycontainer.MountPoint{Type: wanted.Type, Destination: wanted.Target, RW: !wanted.ReadOnly}}
	invalid := func(format string, args ...any) error {
		return errInvalid.WithMessage(fmt.Sprintf("invalid mount config for type %q: %s", wanted.Type, fmt.Sprintf(format, args...)))
	}
	if wanted.Target == "" {
		return m, invalid("field Target must not be empty")
	}
	for _, other := range []struct {
		field string
		given bool
		of    mobymount.Type
	}{
		{"BindOptions", wanted.BindOptions != nil, mobymount.TypeBind}, {"VolumeOptions", wanted.VolumeOptions != nil, mobymount.TypeVolume},
		{"TmpfsOptions", wanted.TmpfsOptions != nil, mobymount.TypeTmpfs}, {"ImageOptions", wanted.ImageOptions != nil, mobymount.TypeImage},
	} {
		if other.given && other.of != wanted.Type {
			return m, invalid("field %s must not be specified", other.field)
		}
	}
	switch wanted.Type {
	case mobymount.TypeBind:
		if !filepath.IsAbs(wanted.Source) {
			return m, invalid("invalid mount path: '%s' mount path must be absolute", wanted.Source)
		}
		m.Source, m.Propagation = filepath.Clean(wanted.Source), mobymount.PropagationRPrivate
		create := false
		if o := wanted.BindOptions; o != nil {
			if o.Propagation != "" {
				m.Propagation = o.Propagation
			}
			switch {
			case !slices.Contains(propagations, string(m.Propagation)):
				return m, invalid("invalid propagation mode: %s", m.Propagation)
			case o.ReadOnlyForceRecursive && o.ReadOnlyNonRecursive:
				return m, invalid("conflicting options: ReadOnlyForceRecursive and ReadOnlyNonRecursive")
			case o.ReadOnlyForceRecursive && m.RW:
				return m, invalid("ReadOnlyForceRecursive requires a read-only mount")
			case o.ReadOnlyForceRecursive && m.Propagation != mobymount.PropagationRPrivate:
				return m, invalid("ReadOnlyForceRecursive requires rprivate propagation")
			}
			m.NonRecursive, m.WritableBelow, create = o.NonRecursive, o.ReadOnlyNonRecursive, o.CreateMountpoint
		}
		if _, err := os.Lstat(m.Source); err != nil && !create {
			return m, invalid("bind source path does not exist: %s", m.Source)
		}
	case mobymount.TypeVolume:
		m.Name = wanted.Source
		if o := wanted.VolumeOptions; o != nil {
			m.NoCopy, m.Subpath = o.NoCopy, o.Subpath
			if m.Subpath != "" && !filepath.IsLocal(m.Subpath) {
				return m, invalid("subpath must be a relative path within the volume")
			}
			if o.DriverConfig != nil {
				m.Driver = o.DriverConfig.Name
			}
		}
	case mobymount.TypeTmpfs:
		if wanted.Source != "" {
			return m, invalid("field Source must not be specified")
		}
		var options []string
		if o := wanted.TmpfsOptions; o != nil {
			if o.SizeBytes > 0 {
				options = append(options, fmt.Sprintf("size=%d", o.SizeBytes))
			}
			if o.Mode != 0 {
				options = append(options, fmt.Sprintf("mode=%o", uint32(o.Mode))) // the API's number is the kernel's
			}
			for _, option := range o.Options {
				options = append(options, strings.Join(option, "="))
			}
		}
		var err error
		if m.Options, err = spec.TmpfsOptions(options); err != nil {
			return m, err
		}
	case mobymount.TypeImage, mobymount.TypeNamedPipe, mobymount.TypeCluster:
		return m, fmt.Errorf("mounts of type %q: %w", wanted.Type, errdefs.ErrNotImplemented)
	default:
		return m, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid mount config: mount type unknown: %q", wanted.Type))
	}
	return m, nil
}

// volumesFrom answers the mounts of another container, "name[:ro|rw]".
func (e *Engine) volumesFrom(from string) ([]container.Mount, error) {
	name, mode, _ := strings.Cut(from, ":")
	c, err := e.containers.Find(name)
	if err != nil {
		return nil, err
	}
	mounts := slices.Clone(c.Record().Mounts)
	mounts = slices.DeleteFunc(mounts, func(m container.Mount) bool { return m.Type == mobymount.TypeTmpfs })
	for i := range mounts {
		mounts[i].NoCopy = true // filled already
		mounts[i].Anonymous = false
		if mode == "ro" {
			mounts[i].RW = false
		}
	}
	return mounts, nil
}

// prepareMount makes a mount's source: a missing bind source of -v is made as a
// directory, a volume is created and filled from the image.
func (e *Engine) prepareMount(ctx context.Context, r *container.Record, m *container.Mount, img image.Image, u *undo) error {
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
	owner := ""
	if m.Anonymous {
		m.Name, owner = container.NewID(), r.ID
	}
	request := mobyvolume.CreateRequest{Name: m.Name, Driver: m.Driver}
	for _, wanted := range r.HostConfig.Mounts {
		if o := wanted.VolumeOptions; wanted.Target == m.Destination && o != nil {
			request.Labels = o.Labels
			if o.DriverConfig != nil {
				request.DriverOpts = o.DriverConfig.Options
			}
		}
	}
	volume, fresh, err := e.Volumes.Ensure(ctx, request, owner)
	if err != nil {
		return err
	}
	m.Driver, m.Source = volume.Driver, volume.Mountpoint
	if m.Mode == "" {
		m.Mode = "z"
	}
	if fresh {
		u.add(func(ctx context.Context) error {
			return ignoreNotFound(e.Volumes.Remove(ctx, m.Name, true, func(string) []string { return nil }))
		})
	}
	if !fresh || m.NoCopy || m.Source == "" || volume.Options["type"] != "" {
		return nil
	}
	return e.fillVolume(ctx, r, *m, img)
}

// fillVolume copies what the image has at a fresh volume's place into it.
func (e *Engine) fillVolume(ctx context.Context, r *container.Record, m container.Mount, _ image.Image) error {
	storage, err := e.Drivers.Storage(r.StorageDriver)
	if err != nil {
		return err
	}
	mounts, err := storage.Mounts(ctx, r.Snapshot)
	if err != nil {
		return err
	}
	if err := rootfs.CopyUp(ctx, mounts, m.Destination, m.Source); err != nil {
		return fmt.Errorf("filling volume %s from the image: %w", m.Name, err)
	}
	return nil
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
			given, err := e.Volumes.Mount(ctx, m.Name, r.ID)
			if err != nil {
				return nil, fmt.Errorf("error while mounting volume '%s': %w", m.Source, err)
			}
			u.add(func(ctx context.Context) error { return e.Volumes.Unmount(ctx, m.Name, r.ID) })
			mounted.Type, mounted.Source = given.Type, given.Source
			mounted.Options = append(mounted.Options, given.Options...)
			if e.remapped(r) && given.Type == "bind" {
				mounted.Options = append(mounted.Options, "idmap")
			}
			if m.Subpath != "" {
				// Looked at now for the error's sake; the runtime finds it again, where nobody
				// can change what it leads to.
				if err := rootfs.Within(given.Source, m.Subpath); err != nil {
					return nil, fmt.Errorf("subpath %q of volume %s: %w", m.Subpath, m.Name, err)
				}
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
