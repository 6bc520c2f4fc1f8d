// Package memory is a volume driver whose volumes are in memory: each is a tmpfs of
// its own that is mounted from its creation to its removal, so that what is in it
// outlives the containers that use it, and the driver. It does not outlive the host.
//
// A volume is a directory <root>/volumes/<name> with its record (volume.json) and the
// place where its tmpfs is mounted (data). The record is written last: a directory
// without one is what a crash left of a creation.
package memory

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"
	"github.com/moby/sys/atomicwriter"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/volume"
)

// record is a volume on disk.
type record struct {
	Options map[string]string
	Labels  map[string]string
	Created time.Time
	Resized *int64 `json:",omitempty"` // to how many bytes, 0 for no limit; nil: never
}

const recordName = "volume.json"

// Driver implements volume.Driver and volume.Resizer.
type Driver struct {
	volume.Claims

	root string
	size int64 // bytes of volumes without option size; 0: the kernel's default
	log  hclog.Logger

	mu  sync.Mutex // no call waits for anything but the kernel's memory
	all map[string]record
}

// New opens the volumes below a directory, mounts those that are not, as after a
// reboot, and undoes creations that were cut off. Volumes without option size have
// this one, in bytes; 0 stands for half of the host's memory.
func New(root string, size int64, log hclog.Logger) (*Driver, error) {
	if size < 0 {
		return nil, fmt.Errorf("key \"size\": %d is no size: %w", size, errdefs.ErrInvalidArgument)
	}
	d := &Driver{root: root, size: size, log: log, all: map[string]record{}}
	if err := os.MkdirAll(d.dir(""), 0o711); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(d.dir(""))
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name := entry.Name()
		body, err := os.ReadFile(filepath.Join(d.dir(name), recordName))
		if errors.Is(err, fs.ErrNotExist) {
			if err := d.erase(name); err != nil {
				return nil, err
			}
			continue
		}
		var r record
		if err == nil {
			err = json.Unmarshal(body, &r)
		}
		if err != nil {
			return nil, fmt.Errorf("record of volume %s: %w", name, err)
		}
		d.all[name] = r
		if err := d.attach(name, r); err != nil { // is tried again when somebody wants it
			log.Error("mounting a volume", "volume", name, "error", err)
		}
	}
	return d, nil
}

func (d *Driver) dir(name string) string  { return filepath.Join(d.root, "volumes", name) }
func (d *Driver) data(name string) string { return filepath.Join(d.dir(name), "data") }

func (d *Driver) describe(name string, r record) volume.Volume {
	return volume.Volume{Name: name, Mountpoint: d.data(name), Options: maps.Clone(r.Options), Labels: maps.Clone(r.Labels), Created: r.Created}
}

// find answers a volume's record; the caller holds mu.
func (d *Driver) find(name string) (record, error) {
	r, ok := d.all[name]
	if !ok {
		return record{}, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("get %s: no such volume", name))
	}
	return r, nil
}

// Create implements volume.Driver.
func (d *Driver) Create(_ context.Context, name string, options, labels map[string]string) (volume.Volume, error) {
	if err := volume.CheckName(name); err != nil {
		return volume.Volume{}, err
	}
	if _, err := parse(options); err != nil {
		return volume.Volume{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r, ok := d.all[name]; ok {
		if len(options) > 0 && !maps.Equal(options, r.Options) {
			return volume.Volume{}, fmt.Errorf("volume %s exists with other options: %w", name, errdefs.ErrAlreadyExists)
		}
		return d.describe(name, r), nil
	}
	r := record{Options: options, Labels: labels, Created: time.Now().UTC()}
	if err := d.make(name, r); err != nil {
		return volume.Volume{}, errors.Join(fmt.Errorf("making volume %s: %w", name, err), d.erase(name))
	}
	d.all[name] = r
	v := d.describe(name, r)
	v.Fresh = true
	return v, nil
}

func (d *Driver) make(name string, r record) error {
	if err := os.Mkdir(d.dir(name), 0o711); err != nil {
		return err
	}
	if err := d.attach(name, r); err != nil {
		return err
	}
	return d.write(name, r)
}

func (d *Driver) write(name string, r record) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return atomicwriter.WriteFile(filepath.Join(d.dir(name), recordName), body, 0o600)
}

// attach mounts a volume's tmpfs unless it is mounted.
func (d *Driver) attach(name string, r record) error {
	if there, err := mounted(d.dir(name), d.data(name)); err != nil || there {
		return err
	}
	o, err := parse(r.Options)
	if err != nil {
		return err
	}
	if o.size == 0 {
		o.size = d.size
	}
	if r.Resized != nil {
		o.size = cmp.Or(*r.Resized, noLimit)
	}
	if err := os.MkdirAll(d.data(name), 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", d.data(name), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, o.String()); err != nil {
		return fmt.Errorf("mounting a tmpfs with %s: %w", o, err)
	}
	return nil
}

// mounted says whether something is mounted at data, which is in dir.
func mounted(dir, data string) (bool, error) {
	var outer, inner unix.Stat_t
	if err := unix.Lstat(data, &inner); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	err := unix.Lstat(dir, &outer)
	return outer.Dev != inner.Dev, err
}

// erase removes what is there of a volume, the record first: a removal that is cut off
// is finished at the next start. Containers that still see the tmpfs keep it until
// they end.
func (d *Driver) erase(name string) error {
	if err := os.Remove(filepath.Join(d.dir(name), recordName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for {
		there, err := mounted(d.dir(name), d.data(name))
		if err != nil {
			return err
		}
		if !there {
			break
		}
		if err := unix.Unmount(d.data(name), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmounting volume %s: %w", name, err)
		}
	}
	return os.RemoveAll(d.dir(name))
}

// Get implements volume.Driver.
func (d *Driver) Get(_ context.Context, name string) (volume.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := d.find(name)
	if err != nil {
		return volume.Volume{}, err
	}
	return d.describe(name, r), nil
}

// List implements volume.Driver.
func (d *Driver) List(context.Context) ([]volume.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]volume.Volume, 0, len(d.all))
	for name, r := range d.all {
		list = append(list, d.describe(name, r))
	}
	return list, nil
}

// Remove implements volume.Driver.
func (d *Driver) Remove(_ context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.RemoveUnused(name, func() error {
		if _, err := d.find(name); err != nil {
			return err
		}
		if err := d.erase(name); err != nil {
			return err
		}
		delete(d.all, name)
		return nil
	})
}

// Mount implements volume.Driver.
func (d *Driver) Mount(_ context.Context, name, consumer string) (mount.Mount, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := d.find(name)
	if err == nil {
		err = d.attach(name, r)
	}
	if err != nil {
		return mount.Mount{}, err
	}
	d.Claim(name, consumer)
	return mount.Mount{Type: "bind", Source: d.data(name), Options: []string{"rbind"}}, nil
}

// Usage implements volume.Driver: the memory that a volume's files take, swapped out
// or not.
func (d *Driver) Usage(_ context.Context, name string) (volume.Usage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.find(name); err != nil {
		return volume.Usage{}, err
	}
	if there, err := mounted(d.dir(name), d.data(name)); err != nil || !there {
		return volume.Usage{}, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.data(name), &st); err != nil {
		return volume.Usage{}, err
	}
	return volume.Usage{Size: int64(st.Blocks-st.Bfree) * st.Bsize}, nil
}

// Resize implements volume.Resizer. A tmpfs does not become smaller than what is in
// it.
func (d *Driver) Resize(_ context.Context, name string, size int64) (volume.Volume, error) {
	if size < 0 {
		return volume.Volume{}, fmt.Errorf("a size of %d bytes: %w", size, errdefs.ErrInvalidArgument)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := d.find(name)
	if err != nil {
		return volume.Volume{}, err
	}
	if err := d.attach(name, r); err != nil {
		return volume.Volume{}, err
	}
	err = unix.Mount("", d.data(name), "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d", cmp.Or(size, noLimit)))
	if errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("more is in it: %w", errdefs.ErrFailedPrecondition)
	}
	if err == nil {
		r.Resized = &size
		err = d.write(name, r)
	}
	if err != nil {
		return volume.Volume{}, fmt.Errorf("resizing volume %s to %d bytes: %w", name, size, err)
	}
	d.all[name] = r
	return d.describe(name, r), nil
}
