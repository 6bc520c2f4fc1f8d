// Davit-storage-overlay is davit's default storage driver plugin.
package main

import (
	"context"

	"github.com/davit-engine/davit/plugins/storage-overlay/overlay"
	"github.com/davit-engine/davit/sdk/plugin"
	"github.com/davit-engine/davit/sdk/storage"
)

// version is that of the manifest.
const version = "0.1.0"

// driver is configured after the plugin has started to serve.
type driver struct{ *overlay.Driver }

func (d *driver) configure(_ context.Context, s plugin.Setup) (err error) {
	d.Driver, err = overlay.New(s.Root, s.Logger)
	return err
}

func main() {
	d := &driver{}
	plugin.Serve(plugin.Plugin{Name: "storage-overlay", Version: version, Features: []string{storage.FeatureDiff, storage.FeatureRebase}, Configure: d.configure, Storage: d})
}
