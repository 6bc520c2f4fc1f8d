package engine

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	mobymount "github.com/moby/moby/api/types/mount"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/spec"
)

func splitOptions(options string) []string {
	if options == "" {
		return nil
	}
	return strings.Split(options, ",")
}

var propagations = []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"}

// modes are the options of -v, by kind: of each kind one may be given.
var modes = map[string]string{
	"ro": "access", "rw": "access", "z": "label", "Z": "label", "nocopy": "copy", "copy": "copy",
	"consistent": "consistency", "cached": "consistency", "delegated": "consistency", "default": "consistency",
	"private": "propagation", "rprivate": "propagation", "slave": "propagation", "rslave": "propagation", "shared": "propagation", "rshared": "propagation",
}

// parseMode reads the options of -v by kind. None, too, are a mode.
func parseMode(mode string) (map[string]string, error) {
	given := map[string]string{}
	for _, option := range splitOptions(mode) {
		kind, known := modes[option]
		if _, twice := given[kind]; !known || twice {
			return nil, errInvalid.WithMessage("invalid mode: " + mode)
		}
		given[kind] = option
	}
	return given, nil
}

// parseBind reads "[source:]target[:mode]" of -v. A host's path is bound, anything
// else names a volume.
func parseBind(bind, driver string) (container.Mount, error) {
	invalid := func(why string) error {
		return errInvalid.WithMessage(fmt.Sprintf("invalid volume specification: '%s'%s", bind, why))
	}
	parts := strings.SplitN(bind, ":", 4)
	var wanted mobymount.Mount
	mode := ""
	switch len(parts) {
	case 1:
		wanted.Target = parts[0]
	case 2:
		if _, err := parseMode(parts[1]); err == nil {
			return container.Mount{}, invalid("") // a target with a mode
		}
		wanted.Source, wanted.Target = parts[0], parts[1]
	case 3:
		wanted.Source, wanted.Target, mode = parts[0], parts[1], parts[2]
	}
	if parts[0] == "" || len(parts) > 3 {
		return container.Mount{}, invalid("")
	}
	given, err := parseMode(mode)
	if err != nil {
		return container.Mount{}, err
	}
	wanted.ReadOnly = given["access"] == "ro"
	if wanted.Type = mobymount.TypeVolume; path.IsAbs(wanted.Source) {
		wanted.Type = mobymount.TypeBind
	} else if driver != "" || given["copy"] != "" {
		wanted.VolumeOptions = &mobymount.VolumeOptions{NoCopy: given["copy"] == "nocopy"}
		if driver != "" {
			wanted.VolumeOptions.DriverConfig = &mobymount.Driver{Name: driver}
		}
	}
	if p := given["propagation"]; p != "" {
		wanted.BindOptions = &mobymount.BindOptions{Propagation: mobymount.Propagation(p)}
	}
	m, err := convertMount(wanted, false)
	if err != nil {
		return m, invalid(": " + err.Error())
	}
	m.Mode = mode
	return m, nil
}

// convertMount reads a mount of the API's Mounts (--mount). sourceExists: a bind's
// source has to be there.
func convertMount(wanted mobymount.Mount, sourceExists bool) (container.Mount, error) {
	m := container.Mount{MountPoint: mobycontainer.MountPoint{Type: wanted.Type, Destination: wanted.Target, RW: !wanted.ReadOnly}}
	invalid := func(format string, args ...any) error {
		return errInvalid.WithMessage(fmt.Sprintf("invalid mount config for type %q: %s", wanted.Type, fmt.Sprintf(format, args...)))
	}
	switch {
	case wanted.Target == "":
		return m, invalid("field Target must not be empty")
	case path.Clean(wanted.Target) == "/":
		return m, invalid("invalid specification: destination can't be '/'")
	case !path.IsAbs(wanted.Target):
		return m, invalid("invalid mount path: '%s' mount path must be absolute", wanted.Target)
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
		if wanted.Source == "" {
			return m, invalid("field Source must not be empty")
		}
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
		if _, err := os.Lstat(m.Source); err != nil && sourceExists && !create {
			return m, invalid("bind source path does not exist: %s", m.Source)
		}
	case mobymount.TypeVolume:
		m.Name = wanted.Source
		if o := wanted.VolumeOptions; o != nil {
			m.NoCopy, m.Subpath = o.NoCopy, o.Subpath
			switch {
			case m.Subpath != "" && m.Name == "":
				return m, invalid("must not set Subpath when using anonymous volumes")
			case m.Subpath != "" && !filepath.IsLocal(m.Subpath):
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

// volumesFrom answers the mounts of another container, "name[:mode]".
func (e *Engine) volumesFrom(from string) ([]container.Mount, error) {
	if from == "" {
		return nil, errInvalid.WithMessage("volumes-from specification cannot be an empty string")
	}
	name, mode, _ := strings.Cut(from, ":")
	given, err := parseMode(mode)
	if err != nil {
		return nil, err
	}
	// How mounts travel and whether volumes are filled was decided there.
	if given["propagation"] != "" || given["copy"] != "" {
		return nil, errInvalid.WithMessage("invalid mode: " + mode)
	}
	c, err := e.containers.Find(name)
	if err != nil {
		return nil, err
	}
	mounts := slices.Clone(c.Record().Mounts)
	mounts = slices.DeleteFunc(mounts, func(m container.Mount) bool { return m.Type == mobymount.TypeTmpfs })
	for i := range mounts {
		mounts[i].NoCopy = true // filled already
		mounts[i].Anonymous = false
		if given["access"] == "ro" {
			mounts[i].RW = false
		}
		if mode != "" {
			mounts[i].Mode = mode
		}
	}
	return mounts, nil
}
