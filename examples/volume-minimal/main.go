// Davit-volume-minimal is a volume driver: one directory per volume.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/plugin"
	"github.com/davit-engine/davit/sdk/volume"
)

type driver struct {
	plugin.Setup // Root: where the volumes are
	volume.Base  // Unmount, Reconcile, Usage, and who uses what
}

func main() {
	d := &driver{}
	plugin.Serve(plugin.Plugin{Name: "volume-minimal", Version: "1.0.0", Configure: d.Keep, Volume: d})
}

func (d *driver) Create(ctx context.Context, name string, options, _ map[string]string) (volume.Volume, error) {
	if err := cmp.Or(volume.NoOptions(options), volume.CheckName(name)); err != nil {
		return volume.Volume{}, err
	}
	made := os.Mkdir(filepath.Join(d.Root, name), 0o755)
	v, err := d.Get(ctx, name)
	v.Fresh = made == nil
	return v, err
}

func (d *driver) Get(_ context.Context, name string) (volume.Volume, error) {
	path := filepath.Join(d.Root, name)
	info, err := os.Stat(path)
	if cmp.Or(volume.CheckName(name), err) != nil {
		return volume.Volume{}, fmt.Errorf("volume %s: %w", name, errdefs.ErrNotFound)
	}
	return volume.Volume{Name: name, Mountpoint: path, Created: info.ModTime()}, nil
}

func (d *driver) List(context.Context) (vs []volume.Volume, err error) {
	entries, err := os.ReadDir(d.Root)
	for _, entry := range entries {
		vs = append(vs, volume.Volume{Name: entry.Name(), Mountpoint: filepath.Join(d.Root, entry.Name())})
	}
	return vs, err
}

func (d *driver) Remove(ctx context.Context, name string) error {
	return d.RemoveUnused(name, func() error {
		v, err := d.Get(ctx, name)
		return cmp.Or(err, os.RemoveAll(v.Mountpoint)) // of an unknown one: of nothing
	})
}

func (d *driver) Mount(ctx context.Context, name, consumer string) (mount.Mount, error) {
	v, err := d.Get(ctx, name)
	if err == nil {
		d.Claim(name, consumer)
	}
	return mount.Mount{Type: "bind", Source: v.Mountpoint, Options: []string{"rbind"}}, err
}
