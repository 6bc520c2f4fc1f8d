package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/placement"
	"github.com/davit-engine/davit/plugins/runtime-native/proc"
	"github.com/davit-engine/davit/plugins/runtime-native/translate"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/foreign"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
	"github.com/davit-engine/davit/sdk/monitor/supervise"
	"github.com/davit-engine/davit/sdk/runtime"
)

// Foreign is another OCI runtime, which makes containers and execs in the place of
// davit's own. Their monitors, streams, logs, exit statuses and cgroups are seen to
// as ever.
type Foreign struct {
	Program string   // its absolute path
	Args    []string // global flags it gets besides davit's
}

// Names in the directory of a foreign runtime's container.
const (
	bundleName  = "bundle"
	stateName   = "state"
	stagingName = "staging"
)

// NewForeign makes a driver whose containers another runtime makes.
func NewForeign(run, monitorProgram string, f Foreign, log hclog.Logger) (*Driver, error) {
	return newDriver(run, monitorProgram, &f, log)
}

// command asks the program about a container.
func (d *Driver) command(id string) foreign.Runtime {
	dir := d.dir(id)
	return foreign.Runtime{Program: d.foreign.Program, Args: d.foreign.Args, ID: id, State: filepath.Join(dir, stateName), Work: dir}
}

// forgetForeign has the program forget a container that is being removed. If it
// does not, all that it knew goes with the container's directory.
func (d *Driver) forgetForeign(id string) {
	if d.foreign == nil {
		return
	}
	command := d.command(id)
	if _, err := os.Stat(command.State); errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err := command.Delete(d.spawner.start); err != nil {
		d.log.Warn("the runtime does not delete a container", "container", id, "error", err)
	}
}

// createForeign is create with another runtime, in a directory that is claimed.
func (d *Driver) createForeign(ctx context.Context, spec *specs.Spec, c runtime.Create, dir string, place placement.Placement) (runtime.Process, error) {
	config, err := d.foreignConfig(spec, c, dir, place)
	if err != nil {
		return runtime.Process{}, err
	}
	pid, created, err := d.spawner.spawn(ctx, dir, monitorsOf(place), config)
	if err != nil {
		return runtime.Process{}, convertError(c.ID, err)
	}
	group, err := cgroup.Open(place.Cgroup)
	if err != nil {
		return runtime.Process{}, fmt.Errorf("the runtime made no cgroup %s: %w", place.Cgroup, err)
	}
	r := record{PID: created.PID, Monitor: pid, MonitorStart: proc.StartTime(pid), Placement: place}
	if err := d.save(c.ID, r); err != nil {
		return runtime.Process{}, err
	}
	d.watchMemory(c.ID, group)
	return runtime.Process{PID: created.PID, Socket: d.socket(c.ID)}, nil
}

// foreignVersion is the runtime-spec that bundles for other runtimes name. Fields of
// later ones are optional for who reads them, but crun 1.8 refuses a later version.
const foreignVersion = "1.0.2"

func (d *Driver) foreignConfig(spec *specs.Spec, c runtime.Create, dir string, place placement.Placement) (supervise.Config, error) {
	plan := &foreign.Plan{Runtime: d.command(c.ID), Bundle: filepath.Join(dir, bundleName), Staging: sandbox.Staging{
		Propagation: unix.MS_SLAVE | unix.MS_REC, Rootfs: filepath.Join(dir, rootfsName), Place: filepath.Join(dir, stagingName),
	}}
	if place.Scope != nil {
		plan.Args = append(slices.Clone(plan.Args), "--systemd-cgroup")
	}
	for _, name := range []string{plan.Bundle, plan.State, plan.Staging.Place} {
		if err := os.Mkdir(name, 0o700); err != nil {
			return supervise.Config{}, err
		}
	}
	for _, m := range c.Rootfs {
		converted, err := translate.Mount(specs.Mount{Type: m.Type, Source: m.Source, Destination: m.Target, Options: m.Options})
		if err != nil {
			return supervise.Config{}, err
		}
		if converted.IDMap != nil {
			return supervise.Config{}, fmt.Errorf("a root filesystem with mapped owners (userns_remap) is not for this runtime: %w", errdefs.ErrNotImplemented)
		}
		plan.Staging.Root = append(plan.Staging.Root, converted)
	}
	if err := stageMounts(spec, &plan.Staging); err != nil {
		return supervise.Config{}, err
	}
	if spec.Process == nil {
		return supervise.Config{}, fmt.Errorf("process is missing: %w", errdefs.ErrInvalidArgument)
	}
	inTerminal(spec.Process, c.IO)
	if spec.Process.OOMScoreAdj == nil {
		spec.Process.OOMScoreAdj = &d.oomScore
	}
	spec.Version = foreignVersion
	spec.Root = &specs.Root{Path: plan.Staging.Rootfs, Readonly: spec.Root != nil && spec.Root.Readonly}
	body, err := json.Marshal(spec)
	if err != nil {
		return supervise.Config{}, err
	}
	if err := os.WriteFile(filepath.Join(plan.Bundle, "config.json"), body, 0o600); err != nil {
		return supervise.Config{}, err
	}
	events, err := cgroup.OOMEventPath(place.Cgroup)
	return supervise.Config{ID: c.ID, Dir: dir, Streams: d.streams(c.IO), Foreign: plan, OOMFile: events}, err
}

// stageMounts makes those mounts of a spec beforehand that the program does not
// know how to make, and refuses those that would reach the host: the program works
// in a mount namespace of its own.
func stageMounts(spec *specs.Spec, staging *sandbox.Staging) error {
	if strings.Contains(spec.Linux.RootfsPropagation, "shared") {
		return fmt.Errorf("rootfsPropagation %q is not for this runtime: %w", spec.Linux.RootfsPropagation, errdefs.ErrNotImplemented)
	}
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if slices.Contains(m.Options, "shared") || slices.Contains(m.Options, "rshared") {
			return fmt.Errorf("mount of %s: propagation to the host (shared, rshared) is not for this runtime: %w", m.Destination, errdefs.ErrNotImplemented)
		}
		subdir := slices.IndexFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, runtime.SubdirOption) })
		if subdir < 0 {
			continue
		}
		converted, err := translate.Mount(*m)
		if err != nil {
			return err
		}
		m.Source = filepath.Join(staging.Place, strconv.Itoa(len(staging.External)))
		m.Options = slices.Delete(m.Options, subdir, subdir+1)
		staging.External = append(staging.External, converted)
	}
	return nil
}

// inTerminal says in a process's spec whether it has a terminal.
func inTerminal(p *specs.Process, io runtime.IO) {
	p.Terminal, p.ConsoleSize = io.Terminal, nil
	if io.Terminal && io.Width > 0 && io.Height > 0 {
		p.ConsoleSize = &specs.Box{Width: uint(io.Width), Height: uint(io.Height)}
	}
}

// execForeign is Exec with another runtime, which makes the process when it is
// started: it has no PID before.
func (d *Driver) execForeign(ctx context.Context, e runtime.Exec, process specs.Process) (runtime.Process, error) {
	inTerminal(&process, e.IO)
	body, err := json.Marshal(process)
	if err != nil {
		return runtime.Process{}, err
	}
	s := d.streams(e.IO)
	if _, err := d.ask(ctx, e.ID, monitor.Request{Op: monitor.OpExec, Exec: e.ExecID, Stage: body, Streams: &s}); err != nil {
		return runtime.Process{}, err
	}
	return runtime.Process{Socket: d.socket(e.ID)}, nil
}
