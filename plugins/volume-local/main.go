// Davit-volume-local is davit's default volume driver plugin.
package main

import (
	"context"
	"time"

	"github.com/davit-engine/davit/plugins/volume-local/fsmount"
	"github.com/davit-engine/davit/plugins/volume-local/local"
	"github.com/davit-engine/davit/sdk/plugin"
)

// version is that of the manifest.
const version = "0.1.0"

// driver is configured after the plugin has started to serve.
type driver struct{ *local.Driver }

func (d *driver) configure(_ context.Context, s plugin.Setup) error {
	o := local.Options{Root: s.Root, Log: s.Logger}
	var err error
	if text, ok := s.Config["mount_timeout"].(string); ok {
		if o.MountTimeout, err = time.ParseDuration(text); err != nil {
			return err
		}
	}
	d.Driver, err = local.New(o)
	return err
}

func main() {
	fsmount.Main() // the process that mounts is this program, too
	d := &driver{}
	plugin.Serve(plugin.Plugin{Name: "volume-local", Version: version, Configure: d.configure, Volume: d})
}
