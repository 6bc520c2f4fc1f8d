// Davit-volume-tmpfs is a volume driver plugin for volumes in memory.
package main

import (
	"context"

	"github.com/davit-engine/davit/plugins/volume-tmpfs/memory"
	"github.com/davit-engine/davit/sdk/plugin"
)

// version is that of the manifest.
const version = "0.1.0"

// driver is configured after the plugin has started to serve.
type driver struct{ *memory.Driver }

func (d *driver) configure(_ context.Context, s plugin.Setup) (err error) {
	size, _ := s.Config["size"].(int64)
	d.Driver, err = memory.New(s.Root, size, s.Logger)
	return err
}

func main() {
	d := &driver{}
	plugin.Serve(plugin.Plugin{Name: "volume-tmpfs", Version: version, Configure: d.configure, Volume: d})
}
