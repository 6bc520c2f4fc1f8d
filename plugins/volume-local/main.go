// Davit-volume-local is davit's default volume driver plugin.
package main

import (
	"context"

	"github.com/davit-engine/davit/plugins/volume-local/local"
	"github.com/davit-engine/davit/sdk/plugin"
)

// version is that of the manifest.
const version = "0.1.0"

// driver is configured after the plugin has started to serve.
type driver struct{ *local.Driver }

func (d *driver) configure(_ context.Context, s plugin.Setup) (err error) {
	d.Driver, err = local.New(s.Root)
	return err
}

func main() {
	d := &driver{}
	plugin.Serve(plugin.Plugin{Name: "volume-local", Version: version, Configure: d.configure, Volume: d})
}
