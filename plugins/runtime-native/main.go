// Davit-runtime-native is davit's own container runtime as a driver plugin.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

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
	program, err := findMonitor(program)
	if err != nil {
		return err
	}
	d.Driver, err = native.New(s.Run, program, s.Logger)
	return err
}

// findMonitor answers the configured program, or the one installed with the
// plugin.
func findMonitor(configured string) (string, error) {
	if configured != "" {
		if _, err := os.Stat(configured); err != nil {
			return "", fmt.Errorf("config key monitor: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		return configured, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(self)
	candidates := []string{filepath.Join(dir, "davit-monitor"), filepath.Join(filepath.Dir(dir), "davit-monitor")}
	for _, path := range candidates {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("davit-monitor is neither %s nor %s: set config key monitor: %w", candidates[0], candidates[1], errdefs.ErrNotFound)
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
