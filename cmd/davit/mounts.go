package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
)

func (f *createFlags) readMounts() error {
	for _, text := range f.volumes {
		source, rest, has := strings.Cut(text, ":")
		switch {
		case !has:
			// An anonymous volume.
			if f.config.Volumes == nil {
				f.config.Volumes = map[string]struct{}{}
			}
			f.config.Volumes[text] = struct{}{}
			continue
		case strings.HasPrefix(source, ".") || strings.HasPrefix(source, "~"):
			if home, err := os.UserHomeDir(); err == nil && (source == "~" || strings.HasPrefix(source, "~/")) {
				source = filepath.Join(home, source[1:])
			}
			absolute, err := filepath.Abs(source)
			if err != nil {
				return err
			}
			text = absolute + ":" + rest
		}
		f.host.Binds = append(f.host.Binds, text)
	}
	for _, text := range f.tmpfs {
		target, options, _ := strings.Cut(text, ":")
		if f.host.Tmpfs == nil {
			f.host.Tmpfs = map[string]string{}
		}
		f.host.Tmpfs[target] = options
	}
	for _, text := range f.mounts {
		m, err := parseMount(text)
		if err != nil {
			return fmt.Errorf("invalid argument %q for \"--mount\" flag: %w", text, err)
		}
		f.host.Mounts = append(f.host.Mounts, m)
	}
	return nil
}

// parseMount reads the comma separated fields of --mount.
func parseMount(text string) (mount.Mount, error) {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return mount.Mount{}, err
	}
	m := mount.Mount{Type: mount.TypeVolume}
	bind := func() *mount.BindOptions {
		if m.BindOptions == nil {
			m.BindOptions = &mount.BindOptions{}
		}
		return m.BindOptions
	}
	volume := func() *mount.VolumeOptions {
		if m.VolumeOptions == nil {
			m.VolumeOptions = &mount.VolumeOptions{}
		}
		return m.VolumeOptions
	}
	driver := func() *mount.Driver {
		if volume().DriverConfig == nil {
			volume().DriverConfig = &mount.Driver{}
		}
		return volume().DriverConfig
	}
	tmpfs := func() *mount.TmpfsOptions {
		if m.TmpfsOptions == nil {
			m.TmpfsOptions = &mount.TmpfsOptions{}
		}
		return m.TmpfsOptions
	}
	for _, field := range fields {
		key, value, has := strings.Cut(field, "=")
		key = strings.ToLower(key)
		on := true
		switch key {
		case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src":
			if has {
				if on, err = strconv.ParseBool(value); err != nil {
					return m, fmt.Errorf("invalid value for %s: %s", key, value)
				}
			}
		default:
			if !has {
				return m, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
			}
		}
		switch key {
		case "type":
			m.Type = mount.Type(strings.ToLower(value))
		case "source", "src":
			m.Source = value
			if strings.HasPrefix(value, "."+string(filepath.Separator)) || value == "." {
				if m.Source, err = filepath.Abs(value); err != nil {
					return m, err
				}
			}
		case "target", "dst", "destination":
			m.Target = value
		case "readonly", "ro":
			m.ReadOnly = on
		case "consistency":
			m.Consistency = mount.Consistency(strings.ToLower(value))
		case "bind-propagation":
			bind().Propagation = mount.Propagation(strings.ToLower(value))
		case "bind-nonrecursive":
			bind().NonRecursive = on
		case "bind-create-src":
			bind().CreateMountpoint = on
		case "bind-recursive":
			switch value {
			case "enabled":
			case "disabled":
				bind().NonRecursive = true
			case "writable":
				bind().ReadOnlyNonRecursive = true
			case "readonly":
				bind().ReadOnlyForceRecursive = true
			default:
				return m, fmt.Errorf("invalid value for bind-recursive: %s", value)
			}
		case "volume-nocopy":
			volume().NoCopy = on
		case "volume-subpath":
			volume().Subpath = value
		case "volume-driver":
			driver().Name = value
		case "volume-label":
			if volume().Labels == nil {
				volume().Labels = map[string]string{}
			}
			name, text, _ := strings.Cut(value, "=")
			volume().Labels[name] = text
		case "volume-opt":
			if driver().Options == nil {
				driver().Options = map[string]string{}
			}
			name, text, _ := strings.Cut(value, "=")
			driver().Options[name] = text
		case "tmpfs-size":
			if tmpfs().SizeBytes, err = units.RAMInBytes(value); err != nil {
				return m, fmt.Errorf("invalid value for %s: %s", key, value)
			}
		case "tmpfs-mode":
			mode, err := strconv.ParseUint(value, 8, 32)
			if err != nil {
				return m, fmt.Errorf("invalid value for %s: %s", key, value)
			}
			tmpfs().Mode = os.FileMode(mode)
		default:
			return m, fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		}
	}
	return m, checkMount(m)
}

// checkMount refuses what Docker's client refuses.
func checkMount(m mount.Mount) error {
	if m.Target == "" {
		return errors.New("target is required")
	}
	for _, other := range []struct {
		options string
		given   bool
		of      mount.Type
	}{
		{"bind", m.BindOptions != nil, mount.TypeBind}, {"volume", m.VolumeOptions != nil, mount.TypeVolume}, {"tmpfs", m.TmpfsOptions != nil, mount.TypeTmpfs},
	} {
		if other.given && m.Type != other.of {
			return fmt.Errorf("cannot mix '%s-*' options with mount type '%s'", other.options, m.Type)
		}
	}
	o := m.BindOptions
	switch {
	case o == nil:
	case o.ReadOnlyNonRecursive && !m.ReadOnly:
		return errors.New("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
	case o.ReadOnlyForceRecursive && !m.ReadOnly:
		return errors.New("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
	case o.ReadOnlyForceRecursive && o.Propagation != mount.PropagationRPrivate:
		return errors.New("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
	}
	return nil
}
