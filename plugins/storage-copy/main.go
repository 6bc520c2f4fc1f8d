// Davit-storage-copy is a storage driver plugin for any filesystem.
package main

import (
	"context"

	"github.com/davit-engine/davit/plugins/storage-copy/copies"
	"github.com/davit-engine/davit/sdk/plugin"
	"github.com/davit-engine/davit/sdk/storage"
)

// version is that of the manifest.
const version = "0.1.0"

// driver is configured after the plugin has started to serve.
type driver struct{ *copies.Driver }

func (d *driver) configure(_ context.Context, s plugin.Setup) (err error) {
	d.Driver, err = copies.New(s.Root, s.Logger)
	return err
}

func main() {
	d := &driver{}
	plugin.Serve(plugin.Plugin{Name: "storage-copy", Version: version, Features: []string{storage.FeatureDiff}, Configure: d.configure, Storage: d})
}
