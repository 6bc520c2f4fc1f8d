// Davit-runtime-oci runs containers with the program of another OCI runtime: crun,
// runc, youki, runsc, davit-oci. A copy of it under the name davit-runtime-NAME, with
// a manifest of its own, is a driver of that name: so several can be there at once.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/plugins/runtime-native/native"
	"github.com/davit-engine/davit/sdk/plugin"
	"github.com/davit-engine/davit/sdk/runtime"
)

// version is that of the manifest.
const version = "0.1.0"

// driver is configured after the plugin has started to serve. It has the methods of
// the contract only: package native can checkpoint its own containers, not these.
type driver struct{ runtime.Driver }

func (d *driver) configure(_ context.Context, s plugin.Setup) error {
	monitor, _ := s.Config["monitor"].(string)
	monitor, err := native.FindMonitor(monitor)
	if err != nil {
		return err
	}
	var f native.Foreign
	program, _ := s.Config["program"].(string)
	if f.Program, err = findProgram(program); err != nil {
		return err
	}
	args, _ := s.Config["args"].([]any)
	for _, arg := range args {
		text, ok := arg.(string)
		if !ok {
			return fmt.Errorf("config key args: %v is not a string: %w", arg, errdefs.ErrInvalidArgument)
		}
		f.Args = append(f.Args, text)
	}
	s.Logger.Info("containers are made by another runtime", "program", f.Program)
	d.Driver, err = native.NewForeign(s.Run, monitor, f, s.Logger)
	return err
}

// usual are the programs that are looked for where none is configured.
var usual = []string{"crun", "runc"}

func findProgram(configured string) (string, error) {
	names := usual
	if configured != "" {
		names = []string{configured}
	}
	for _, name := range names {
		if found, err := exec.LookPath(name); err == nil {
			return filepath.Abs(found)
		}
	}
	return "", fmt.Errorf("no OCI runtime %v found: install one or set config key program: %w", names, errdefs.ErrNotFound)
}

func main() {
	d := &driver{}
	plugin.Serve(plugin.Plugin{
		Name: strings.TrimPrefix(filepath.Base(os.Args[0]), "davit-"), Version: version,
		Features:  []string{runtime.FeatureExec, runtime.FeaturePause, runtime.FeatureUpdate, runtime.FeatureStats},
		Configure: d.configure,
		Runtime:   d,
	})
}
