// Package native is davit's own runtime driver: it turns OCI specs into
// monitors with containers. It keeps nothing in memory that is not also in the
// run directory or the kernel, so it may be killed at any time.
package native

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/netdev"
	"github.com/davit-engine/davit/plugins/runtime-native/placement"
	"github.com/davit-engine/davit/plugins/runtime-native/proc"
	"github.com/davit-engine/davit/plugins/runtime-native/systemd"
	"github.com/davit-engine/davit/plugins/runtime-native/translate"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
	"github.com/davit-engine/davit/sdk/monitor/supervise"
	"github.com/davit-engine/davit/sdk/runtime"
)

// Driver implements runtime.Driver.
type Driver struct {
	run      string
	log      hclog.Logger
	spawner  *spawner
	profiles profiles
	events   *broadcast
	// oomScore is the driver's own, which a container inherits whose spec names none.
	oomScore int
	// dumping are the IDs of containers that are just being checkpointed.
	dumping sync.Map
	// removing has, by the IDs of containers that are being deleted, a channel that is
	// closed afterwards.
	removing sync.Map
	// hugePages says that containers may have what their monitors do without.
	hugePages bool
	// compressor is the program that compresses rotated logs.
	compressor string
	// foreign makes the containers instead; nil for davit's own runtime.
	foreign *Foreign

	memory  cgroup.OOMWatcher
	watches sync.Map // what ends a container's watch, by its ID

	// life ends with Close; background work belongs to it and is waited for.
	life       context.Context
	end        context.CancelFunc
	background sync.WaitGroup
}

// New makes a driver that keeps its containers below run and starts the monitor
// program.
func New(run, monitorProgram string, log hclog.Logger) (*Driver, error) {
	return newDriver(run, monitorProgram, nil, log)
}

func newDriver(run, monitorProgram string, foreign *Foreign, log hclog.Logger) (*Driver, error) {
	hugePages, err := withoutHugePages()
	if err != nil {
		return nil, err
	}
	spawner, err := newSpawner(monitorProgram)
	if err != nil {
		return nil, err
	}
	d := &Driver{run: run, log: log, spawner: spawner, events: newBroadcast(), oomScore: ownOOMScore(), hugePages: hugePages, foreign: foreign}
	d.compressor = filepath.Join(filepath.Dir(monitorProgram), "davit-log-compress")
	// The driver's life is its own, not a caller's.
	d.life, d.end = context.WithCancel(context.Background())
	d.watchMemories(d.sweep())
	return d, nil
}

func ownOOMScore() int {
	body, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(body)))
	if err != nil {
		return 0
	}
	return score
}

// Close ends the driver's own threads; containers go on.
func (d *Driver) Close() {
	d.end()
	d.background.Wait()
	d.memory.Close()
	d.spawner.close()
}

// Create implements runtime.Driver.
func (d *Driver) Create(ctx context.Context, c runtime.Create) (runtime.Process, error) {
	return d.create(ctx, c, nil)
}

// create makes a container that is new or, with from, a checkpoint's.
func (d *Driver) create(ctx context.Context, c runtime.Create, from *runtime.Restore) (_ runtime.Process, err error) {
	if err := checkID(c.ID); err != nil {
		return runtime.Process{}, err
	}
	trace := d.trace("driver: asked")
	if r, err := d.load(c.ID); err == nil {
		if response, err := monitor.Call(ctx, d.socket(c.ID), monitor.Request{Op: monitor.OpStatus}); err == nil && response.State == monitor.StateCreated {
			return runtime.Process{PID: r.PID, Socket: d.socket(c.ID)}, nil // asked again
		}
		return runtime.Process{}, fmt.Errorf("container with ID %s exists: %w", c.ID, errdefs.ErrAlreadyExists)
	}
	spec, filter, err := d.readSpec(c.Spec)
	if err != nil {
		return runtime.Process{}, err
	}
	if spec.Linux == nil || spec.Linux.CgroupsPath == "" {
		return runtime.Process{}, fmt.Errorf("linux.cgroupsPath is missing: %w", errdefs.ErrInvalidArgument)
	}
	trace.Done("driver: reading the spec")
	place, err := place(spec.Linux.CgroupsPath, c.ID)
	if err != nil {
		return runtime.Process{}, err
	}
	dir, err := d.claim(c.ID, place)
	if err != nil {
		return runtime.Process{}, err
	}
	defer func() {
		if err != nil {
			d.abandon(ctx, c.ID)
		}
	}()
	trace.Done("driver: intent and directory")
	if d.foreign != nil {
		return d.createForeign(ctx, spec, c, dir, place)
	}
	group, hold, err := place.Create(ctx, "davit container "+c.ID, cgroup.WithDefaultDevices(spec.Linux.Resources), spec.Annotations)
	if err != nil {
		return runtime.Process{}, fmt.Errorf("making the cgroup: %w", err)
	}
	defer hold.Release()
	trace.Done("driver: cgroups")
	config, err := d.monitorConfig(spec, filter, c, dir, group, from)
	if err != nil {
		return runtime.Process{}, err
	}
	if err := d.saveHooks(c.ID, config.Hooks); err != nil {
		return runtime.Process{}, err
	}
	class, err := d.makeClass(c.ID, spec.Linux.IntelRdt)
	if err != nil {
		return runtime.Process{}, err
	}
	config.Trace = trace != nil
	trace.Done("driver: translating the spec")
	pid, created, err := d.spawner.spawn(ctx, dir, monitorsOf(place), config)
	if err != nil {
		return runtime.Process{}, err
	}
	if class != nil {
		if err := class.Join(created.PID); err != nil {
			return runtime.Process{}, err
		}
	}
	// The program is not started yet; the undo kills what waits for its start.
	if err := netdev.Move(fmt.Sprintf("/proc/%d/ns/net", created.PID), spec.Linux.NetDevices); err != nil {
		return runtime.Process{}, err
	}
	r := record{PID: created.PID, Monitor: pid, MonitorStart: proc.StartTime(pid), Placement: place}
	for _, join := range config.JoinPaths {
		r.Joined |= join.Type
	}
	r.User = slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	if err := d.save(c.ID, r); err != nil {
		return runtime.Process{}, err
	}
	d.watchMemory(c.ID, group)
	trace.Add(created.Trace)
	trace.Done("driver: record")
	d.report(c.ID, trace)
	return runtime.Process{PID: created.PID, Socket: d.socket(c.ID)}, nil
}

// place is where a container's cgroup will be, and that of its monitor, which is
// outside of its container's limits. Where systemd makes cgroups all monitors share
// one unit.
func place(cgroupsPath, id string) (placement.Placement, error) {
	if !systemd.IsCgroupsPath(cgroupsPath) {
		return placement.Placement{Cgroup: cgroupsPath}, nil
	}
	scope, err := systemd.Parse(cgroupsPath, id)
	return placement.InScope(scope), err
}

// monitorsOf is where the monitors of containers beside the given one are.
func monitorsOf(container placement.Placement) placement.Placement {
	if container.Scope == nil {
		return placement.Placement{Cgroup: path.Join(path.Dir(container.Cgroup), "monitors")}
	}
	return placement.InScope(systemd.Scope{Name: "davit-monitors.scope", Slice: systemd.SystemSlice})
}

func (d *Driver) monitorConfig(spec *specs.Spec, filter *sandbox.Seccomp, c runtime.Create, dir string, group *cgroup.Group, from *runtime.Restore) (supervise.Config, error) {
	if err := netdev.Check(spec.Linux.NetDevices, spec.Linux.Namespaces); err != nil {
		return supervise.Config{}, err
	}
	if spec.Process != nil && spec.Process.OOMScoreAdj == nil {
		spec.Process.OOMScoreAdj = &d.oomScore
	}
	t, err := translate.Spec(spec, c.Rootfs, filepath.Join(dir, rootfsName), group)
	if err != nil {
		return supervise.Config{}, err
	}
	t.Stage.Seccomp = filter
	hooks, err := translate.Hooks(spec, c.ID, dir)
	if err != nil {
		return supervise.Config{}, err
	}
	t.Stage.Container.Hooks = hooks
	t.Stage.Process.Terminal = c.IO.Terminal
	if c.IO.Width > 0 && c.IO.Height > 0 {
		t.Stage.Process.Width, t.Stage.Process.Height = c.IO.Width, c.IO.Height
	}
	t.Stage.Process.Keyring = keyring(c.ID)
	t.Stage.HugePages, t.Stage.Trace = d.hugePages, d.log.IsTrace()
	if unknown := translate.UnknownCapabilities(spec.Process); len(unknown) > 0 {
		d.log.Warn("capabilities are unknown and left out", "container", c.ID, "capabilities", unknown)
	}
	stage, err := t.Stage.Encode()
	if err != nil {
		return supervise.Config{}, err
	}
	// What an exec needs again of the container's spec.
	template, err := json.Marshal(execTemplate{
		Birth: t.Exec, Caps: t.Stage.Process.Caps, Seccomp: t.Stage.Seccomp, OOMScoreAdj: spec.Process.OOMScoreAdj, Personality: t.Stage.Process.Personality, MemoryPolicy: t.Stage.Process.MemoryPolicy,
	})
	if err != nil {
		return supervise.Config{}, err
	}
	if err := os.WriteFile(filepath.Join(dir, "exec-template.json"), template, 0o600); err != nil {
		return supervise.Config{}, err
	}
	config := supervise.Config{
		ID: c.ID, Dir: dir, Streams: d.streams(c.IO), Stage: stage, CloneFlags: t.CloneFlags, JoinPaths: t.Join, Birth: t.Birth,
		OOMFile: group.OOMEventPath(), Hooks: hooks, ExecJoin: sandbox.Namespaces, JoinPID: t.OwnPID, Listener: translate.Listener(spec, c.ID, dir),
	}
	config.CgroupFiles, config.CgroupDir = group.Joining()
	if from != nil {
		if err := d.plan(&config, spec, t, *from); err != nil {
			return supervise.Config{}, err
		}
	}
	return config, nil
}

// keyring is the name of a container's session keyring.
func keyring(id string) string { return "_ses." + id }

func (d *Driver) streams(io runtime.IO) monitor.Streams {
	s := monitor.Streams{Terminal: io.Terminal, Stdin: io.Stdin, StdinOnce: io.StdinOnce, Width: io.Width, Height: io.Height}
	if io.Log != nil {
		s.Log = &monitor.Log{Path: io.Log.Path, MaxSize: io.Log.MaxSize, MaxFile: io.Log.MaxFile}
		if io.Log.Compress {
			s.Log.Compressor = d.compressor
		}
		if len(io.Log.Attributes) > 0 {
			s.Log.Attributes, _ = json.Marshal(io.Log.Attributes) // strings cannot fail
		}
	}
	return s
}

// Start implements runtime.Driver.
func (d *Driver) Start(ctx context.Context, id, execID string) error {
	r, err := d.load(id)
	if err != nil {
		return err
	}
	_, err = d.ask(ctx, id, monitor.Request{Op: monitor.OpStart, Exec: execID})
	if execID == "" {
		d.spawner.fill(monitorsOf(r.Placement))
	}
	if errdefs.IsNotFound(err) {
		if exit, found := d.exit(id, execID); found == nil && exit != nil {
			return fmt.Errorf("process of container %s has ended: %w", id, errdefs.ErrFailedPrecondition)
		}
	}
	return err
}

// Signal implements runtime.Driver.
func (d *Driver) Signal(ctx context.Context, id, execID string, number int, all bool) error {
	if !all {
		_, err := d.call(ctx, id, monitor.Request{Op: monitor.OpSignal, Exec: execID, Signal: number})
		return err
	}
	r, err := d.load(id)
	if err != nil {
		return err
	}
	group, err := cgroup.Open(r.Cgroup)
	if err != nil {
		return err
	}
	if unix.Signal(number) == unix.SIGKILL {
		return group.Kill()
	}
	pids, err := group.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.Signal(number)); err != nil && err != unix.ESRCH {
			return fmt.Errorf("signalling process %d of %s: %w", pid, id, err)
		}
	}
	return nil
}

// Resize implements runtime.Driver.
func (d *Driver) Resize(ctx context.Context, id, execID string, width, height uint16) error {
	_, err := d.call(ctx, id, monitor.Request{Op: monitor.OpResize, Exec: execID, Width: width, Height: height})
	return err
}

// CloseStdin implements runtime.Driver.
func (d *Driver) CloseStdin(ctx context.Context, id, execID string) error {
	_, err := d.call(ctx, id, monitor.Request{Op: monitor.OpCloseStdin, Exec: execID})
	return err
}
