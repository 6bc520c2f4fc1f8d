// Wrong is a volume driver that keeps the contract but for one thing, which its
// setting "fault" names. It shows that the kit notices. Whatever its fault, it
// reaches files through an os.Root only, so that no name leads out of its directory.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/plugin"
	"github.com/davit-engine/davit/sdk/volume"
)

type driver struct {
	plugin.Setup
	volume.Base
	fault string
	files *os.Root
	mu    sync.Mutex
}

func main() {
	d := &driver{}
	p := plugin.Plugin{Name: "volume-wrong", Version: "1", Volume: d, Configure: func(ctx context.Context, s plugin.Setup) error {
		d.fault, _ = s.Config["fault"].(string)
		var err error
		if d.files, err = os.OpenRoot(s.Root); err != nil {
			return err
		}
		return d.Keep(ctx, s)
	}}
	p.Shutdown = func(context.Context) error {
		if d.fault == "hangs at the end" {
			time.Sleep(time.Hour)
		}
		return nil
	}
	plugin.Serve(p)
}

func (d *driver) path(name string) string { return filepath.Join(d.Root, name) }

func (d *driver) Create(ctx context.Context, name string, options, _ map[string]string) (volume.Volume, error) {
	if err := volume.CheckName(name); err != nil {
		if d.fault == "any name" {
			return volume.Volume{Name: name, Fresh: true}, nil // it says so, and makes nothing
		}
		return volume.Volume{}, err
	}
	for option := range options {
		if d.fault == "any option" {
			continue
		}
		if d.fault == "option without name" {
			return volume.Volume{}, errdefs.ErrInvalidArgument
		}
		return volume.Volume{}, fmt.Errorf("volume option %q: %w", option, errdefs.ErrInvalidArgument)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	made := d.files.Mkdir(name, 0o755)
	if made != nil && d.fault == "create once" {
		return volume.Volume{}, errdefs.ErrAlreadyExists
	}
	v, err := d.Get(ctx, name)
	v.Fresh = made == nil || d.fault == "always fresh"
	return v, err
}

func (d *driver) Get(_ context.Context, name string) (volume.Volume, error) {
	if err := volume.CheckName(name); err != nil {
		return volume.Volume{}, err
	}
	if _, err := d.files.Stat(name); err != nil {
		if d.fault == "unknown is internal" {
			return volume.Volume{}, errdefs.ErrInternal
		}
		return volume.Volume{}, fmt.Errorf("volume %s: %w", name, errdefs.ErrNotFound)
	}
	return volume.Volume{Name: name, Mountpoint: d.path(name), Fresh: d.fault == "always fresh"}, nil
}

func (d *driver) List(context.Context) (vs []volume.Volume, err error) {
	entries, err := os.ReadDir(d.Root)
	for _, entry := range entries {
		vs = append(vs, volume.Volume{Name: entry.Name(), Mountpoint: d.path(entry.Name())})
	}
	if d.fault == "twice in the list" {
		vs = append(vs, vs...)
	}
	return vs, err
}

func (d *driver) Remove(ctx context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.Get(ctx, name)
	if err != nil {
		return err
	}
	if err := d.InUse(name); err != nil && d.fault != "removes what is in use" {
		return err
	}
	switch d.fault {
	case "leaves a file":
		return errors.Join(os.WriteFile(filepath.Join(d.Run, name), nil, 0o600), d.files.RemoveAll(v.Name))
	case "leaves a process":
		sleeper := exec.Command("sleep", "60")
		return errors.Join(sleeper.Start(), d.files.RemoveAll(v.Name))
	}
	return d.files.RemoveAll(v.Name)
}

func (d *driver) Mount(ctx context.Context, name, consumer string) (mount.Mount, error) {
	v, err := d.Get(ctx, name)
	if err != nil {
		return mount.Mount{}, err
	}
	if d.fault == "another place each time" {
		v.Mountpoint += "/" // the same, and answered differently
		if d.InUse(name) != nil {
			v.Mountpoint += "/"
		}
	}
	if d.fault == "a mount that cannot be" {
		v.Mountpoint = "/no/where"
	}
	if d.fault == "a mount of the host's" {
		v.Mountpoint = filepath.Dir(filepath.Dir(d.Root)) // where the kit has its directory
	}
	d.Claim(name, consumer)
	return mount.Mount{Type: "bind", Source: v.Mountpoint, Options: []string{"rbind"}}, nil
}

func (d *driver) Unmount(ctx context.Context, name, consumer string) error {
	if d.fault == "unmounts known ones only" && d.InUse(name) == nil {
		return errdefs.ErrNotFound
	}
	return d.Base.Unmount(ctx, name, consumer)
}

func (d *driver) Reconcile(ctx context.Context, claims []volume.Claim) error {
	if d.fault == "drops too little" {
		for _, c := range claims {
			d.Claim(c.Volume, c.Consumer)
		}
		return nil
	}
	if d.fault == "drops too much" {
		claims = nil
	}
	return d.Base.Reconcile(ctx, claims)
}
