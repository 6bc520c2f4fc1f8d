// Package local is davit's default volume driver: a volume is a directory below
// the driver's root, or, with the options type, device and o, what mount(8)
// would be told in a container's name.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/volume"
)

// record is a volume on disk: <root>/volumes/<name>/volume.json beside _data.
type record struct {
	Name    string
	Options map[string]string
	Labels  map[string]string
	Created time.Time
	Claims  []string // consumers
}

// Driver implements volume.Driver.
type Driver struct {
	root string
	mu   sync.Mutex
	all  map[string]*record
}

// New opens the volumes below root and finishes removals that were cut off.
func New(root string) (*Driver, error) {
	d := &Driver{root: root, all: map[string]*record{}}
	if err := errors.Join(os.MkdirAll(d.dir(""), 0o711), os.RemoveAll(d.trash()), os.MkdirAll(d.trash(), 0o700)); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(d.dir(""))
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		body, err := os.ReadFile(filepath.Join(d.dir(entry.Name()), recordName))
		if errors.Is(err, fs.ErrNotExist) { // a creation that was cut off: nothing is in it yet
			if err := os.RemoveAll(d.dir(entry.Name())); err != nil {
				return nil, err
			}
			continue
		}
		r := &record{}
		if err == nil {
			err = json.Unmarshal(body, r)
		}
		if err != nil {
			return nil, fmt.Errorf("record of volume %s: %w", entry.Name(), err)
		}
		d.all[r.Name] = r
	}
	return d, nil
}

const recordName = "volume.json"

func (d *Driver) dir(name string) string  { return filepath.Join(d.root, "volumes", name) }
func (d *Driver) data(name string) string { return filepath.Join(d.dir(name), "_data") }
func (d *Driver) trash() string           { return filepath.Join(d.root, "trash") }

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)

func (d *Driver) save(r *record) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(d.dir(r.Name), recordName)
	if err := os.WriteFile(path+".new", body, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (d *Driver) describe(r *record) volume.Volume {
	return volume.Volume{Name: r.Name, Mountpoint: d.data(r.Name), Options: maps.Clone(r.Options), Labels: maps.Clone(r.Labels), Created: r.Created}
}

// Create implements volume.Driver.
func (d *Driver) Create(_ context.Context, name string, options, labels map[string]string) (volume.Volume, error) {
	if !validName.MatchString(name) {
		return volume.Volume{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("%q includes invalid characters for a local volume name, only %q are allowed. If you intended to pass a host directory, use absolute path", name, "[a-zA-Z0-9][a-zA-Z0-9_.-]"))
	}
	if err := checkOptions(options); err != nil {
		return volume.Volume{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.all[name]; r != nil {
		if len(options) > 0 && !maps.Equal(options, r.Options) {
			return volume.Volume{}, fmt.Errorf("volume %s exists with other options: %w", name, errdefs.ErrAlreadyExists)
		}
		return d.describe(r), nil
	}
	r := &record{Name: name, Options: options, Labels: labels, Created: time.Now().UTC()}
	if err := errors.Join(os.Mkdir(d.dir(name), 0o711), os.Mkdir(d.data(name), 0o755), d.save(r)); err != nil {
		return volume.Volume{}, errors.Join(fmt.Errorf("making volume %s: %w", name, err), os.RemoveAll(d.dir(name)))
	}
	d.all[name] = r
	v := d.describe(r)
	v.Fresh = true
	return v, nil
}

func checkOptions(options map[string]string) error {
	for key := range options {
		if key != "type" && key != "o" && key != "device" {
			return fmt.Errorf("volume option %q is not known to driver local; known: type, o, device: %w", key, errdefs.ErrInvalidArgument)
		}
	}
	if len(options) == 0 {
		return nil
	}
	if options["device"] == "" || options["type"] == "" {
		return fmt.Errorf("volume options type and device belong together: missing one: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

func (d *Driver) find(name string) (*record, error) {
	if r := d.all[name]; r != nil {
		return r, nil
	}
	return nil, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("get %s: no such volume", name))
}

// Get implements volume.Driver.
func (d *Driver) Get(_ context.Context, name string) (volume.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := d.find(name)
	if err != nil {
		return volume.Volume{}, err
	}
	return d.describe(r), nil
}

// List implements volume.Driver.
func (d *Driver) List(context.Context) ([]volume.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]volume.Volume, 0, len(d.all))
	for _, r := range d.all {
		list = append(list, d.describe(r))
	}
	return list, nil
}

// Remove implements volume.Driver.
func (d *Driver) Remove(_ context.Context, name string) error {
	d.mu.Lock()
	r, err := d.find(name)
	if err == nil && len(r.Claims) > 0 {
		err = fmt.Errorf("volume %s is used by %s: %w", name, strings.Join(r.Claims, ", "), errdefs.ErrFailedPrecondition)
	}
	doomed := filepath.Join(d.trash(), name)
	if err == nil {
		// One rename makes it gone, also for the next start.
		err = errors.Join(os.RemoveAll(doomed), os.Rename(d.dir(name), doomed))
	}
	if err == nil {
		delete(d.all, name)
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return os.RemoveAll(doomed)
}

// Mount implements volume.Driver.
func (d *Driver) Mount(_ context.Context, name, consumer string) (mount.Mount, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := d.find(name)
	if err != nil {
		return mount.Mount{}, err
	}
	m := mount.Mount{Type: "bind", Source: d.data(name), Options: []string{"rbind"}}
	if kind := r.Options["type"]; kind != "" {
		m = mount.Mount{Type: kind, Source: r.Options["device"]}
		if o := r.Options["o"]; o != "" {
			m.Options = strings.Split(o, ",")
		}
		if kind == "none" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			m.Type = "bind"
			if _, err := os.Stat(m.Source); err != nil {
				return m, fmt.Errorf("device of volume %s: %w: %w", name, err, errdefs.ErrFailedPrecondition)
			}
		}
	} else if _, err := os.Stat(m.Source); err != nil {
		return m, fmt.Errorf("the data of volume %s was removed behind davit's back: %w: %w", name, err, errdefs.ErrFailedPrecondition)
	}
	if !slices.Contains(r.Claims, consumer) {
		r.Claims = append(r.Claims, consumer)
		if err := d.save(r); err != nil {
			r.Claims = r.Claims[:len(r.Claims)-1]
			return m, err
		}
	}
	return m, nil
}

// Unmount implements volume.Driver.
func (d *Driver) Unmount(_ context.Context, name, consumer string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.all[name]
	if r == nil {
		return nil
	}
	i := slices.Index(r.Claims, consumer)
	if i < 0 {
		return nil
	}
	r.Claims = slices.Delete(r.Claims, i, i+1)
	return d.save(r)
}

// Usage implements volume.Driver.
func (d *Driver) Usage(ctx context.Context, name string) (volume.Usage, error) {
	d.mu.Lock()
	r, err := d.find(name)
	d.mu.Unlock()
	if err != nil {
		return volume.Usage{}, err
	}
	if r.Options["type"] != "" {
		return volume.Usage{Size: -1}, nil
	}
	var usage volume.Usage
	err = filepath.WalkDir(d.data(name), func(_ string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted by a container meanwhile
		}
		if err != nil {
			return err
		}
		usage.Size += info.Sys().(*syscall.Stat_t).Blocks * 512
		return nil
	})
	return usage, err
}

// Reconcile implements volume.Driver.
func (d *Driver) Reconcile(_ context.Context, claims []volume.Claim) error {
	valid := map[volume.Claim]bool{}
	for _, claim := range claims {
		valid[claim] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for name, r := range d.all {
		kept := slices.DeleteFunc(slices.Clone(r.Claims), func(consumer string) bool { return !valid[volume.Claim{Volume: name, Consumer: consumer}] })
		if len(kept) != len(r.Claims) {
			r.Claims = kept
			errs = append(errs, d.save(r))
		}
	}
	return errors.Join(errs...)
}
