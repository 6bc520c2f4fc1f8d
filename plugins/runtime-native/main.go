// Davit-runtime-native is davit's own container runtime as a driver plugin.
package main

import (
	"context"

	"github.com/davit-engine/davit/plugins/runtime-native/checkpoint"
	"github.com/davit-engine/davit/plugins/runtime-native/native"
	"github.com/davit-engine/davit/sdk/plugin"
	"github.com/davit-engine/davit/sdk/runtime"
)

// version is that of the manifest.
const version = "0.1.0"

// driver is configured after the plugin has started to serve.
type driver struct{ *native.Driver }

func (d *driver) configure(_ context.Context, s plugin.Setup) error {
	program, _ := s.Config["monitor"].(string)
	program, err := native.FindMonitor(program)
	if err != nil {
		return err
	}
	d.Driver, err = native.New(s.Run, program, s.Logger)
	return err
}

func main() {
	d := &driver{}
	features := []string{runtime.FeatureExec, runtime.FeaturePause, runtime.FeatureUpdate, runtime.FeatureStats}
	// Whether it works on this kernel is asked when it is wanted.
	if _, err := checkpoint.Program(""); err == nil {
		features = append(features, runtime.FeatureCheckpoint)
	}
	plugin.Serve(plugin.Plugin{
		Name: "runtime-native", Version: version,
		Features:  features,
		Configure: d.configure,
		Runtime:   d,
	})
}
