package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/network"
	"github.com/davit-engine/davit/core/resolvconf"
	"github.com/davit-engine/davit/core/rootfs"
	"github.com/davit-engine/davit/core/spec"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/runtime"
)

// Exit codes of containers whose program could not be executed.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
	exitEngine        = 128 // the engine or a driver failed
)

// ContainerStart starts a container; started is false if it runs already.
func (e *Engine) ContainerStart(ctx context.Context, name string, o backend.StartOptions) (started bool, err error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return false, err
	}
	end, err := c.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer end()
	r := c.Record()
	switch r.Status {
	case container.Running:
		return false, nil
	case container.Paused:
		return false, errdefs.ErrConflict.WithMessage("cannot start a paused container, try unpause instead")
	case container.Removing, container.Dead:
		return false, errdefs.ErrConflict.WithMessage(fmt.Sprintf("container is marked for removal and cannot be started: %s", r.ID))
	case container.Created, container.Restarting, container.Exited:
	}
	if err := c.UpdateVolatile(func(r *container.Record) error { r.Stopped, r.RestartCount = false, 0; return nil }); err != nil {
		return false, err
	}
	return true, e.start(ctx, c, o)
}

// start brings a container that is not running to execve. The caller holds its
// turn. Whatever fails, all that was made before is undone.
func (e *Engine) start(ctx context.Context, c *container.Container, o backend.StartOptions) (err error) {
	r := c.Record()
	var u undo
	defer func() {
		if p := recover(); p != nil {
			u.run(ctx, e.Log, "start of container "+r.Name)
			panic(p)
		}
		if err == nil {
			return
		}
		u.run(ctx, e.Log, "start of container "+r.Name)
		e.attaching.fail(r.ID, err)
		code, text := exitEngine, err.Error()
		switch {
		case errors.Is(err, runtime.ErrCommandNotFound):
			code = exitNotFound
		case errors.Is(err, runtime.ErrNotExecutable):
			code = exitNotExecutable
		}
		if updated := c.Update(func(r *container.Record) (err error) {
			r.ExitCode, r.Error, r.PID, r.Socket = code, text, 0, ""
			r.Status, err = r.Status.Next(container.EventStartFailed)
			return err
		}); updated != nil {
			e.Log.Error("recording a failed start", "container", r.Name, "error", updated)
		}
		e.removeIfAsked(c)
	}()
	driver, err := e.Drivers.Runtime(r.RuntimeDriver)
	if err != nil {
		return badDriver(err)
	}
	plan, err := e.prepareStart(ctx, r, &u)
	if err != nil {
		return err
	}
	// Network and runtime do not know of each other until the program starts.
	type networks struct {
		endpoints map[string]container.Endpoint
		err       error
	}
	attached := make(chan networks, 1)
	var networkUndo undo
	attach := func() {
		endpoints, err := e.attachNetworks(ctx, r, plan.netns, &networkUndo)
		attached <- networks{endpoints, err}
	}
	switch {
	case plan.ownNetns:
	case o.Checkpoint != "":
		attach() // what is restored may have its address already
	default:
		go attach()
	}
	process, err := e.createRuntime(ctx, r, driver, plan.create, o)
	if err == nil {
		u.add(func(ctx context.Context) error {
			_, err := driver.Delete(ctx, r.ID, "", true)
			return ignoreNotFound(err)
		})
	}
	if plan.ownNetns {
		// The network is the runtime's work, as it belongs to the user namespace.
		if err == nil {
			plan.netns, err = e.adoptNetns(r, process.PID, &u)
		}
		if err == nil {
			attach()
		} else {
			attached <- networks{}
		}
	}
	if err != nil && o.Checkpoint == "" {
		err = createError(err)
	}
	network := <-attached
	u.steps = append(u.steps, networkUndo.steps...)
	if err = errors.Join(err, network.err); err != nil {
		return err
	}
	r.Endpoints = network.endpoints
	if err := e.writeHosts(r); err != nil {
		return err
	}
	if err := e.serveDNS(ctx, r, plan.netns); err != nil {
		return err
	}
	u.add(func(context.Context) error { e.Networks.StopDNS(r.ID); return nil })
	if err := e.attaching.connect(ctx, r.ID, process.Socket); err != nil {
		return fmt.Errorf("attaching: %w", err)
	}
	if err := driver.Start(ctx, r.ID, ""); err != nil {
		return createError(err)
	}
	if err := c.Update(func(changed *container.Record) (err error) {
		changed.Endpoints = r.Endpoints
		changed.PID, changed.Socket = process.PID, process.Socket
		changed.StartedAt, changed.ExitCode, changed.Error, changed.OOMKilled = time.Now().UTC(), 0, "", false
		changed.Status, err = changed.Status.Next(container.EventStarted)
		return err
	}); err != nil {
		return err
	}
	e.containerEvent(c.Record(), events.ActionStart, nil)
	e.watch(c)
	return nil
}

// createError is Docker's frame around what a runtime says; programs and people
// look for parts of it.
func createError(err error) error {
	if errdefs.IsUnavailable(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	return &startError{"failed to create task for container: failed to create shim task: OCI runtime create failed: unable to start container process: error during container init: " + err.Error(), err}
}

type startError struct {
	text string
	err  error
}

func (e *startError) Error() string { return e.text }
func (e *startError) Unwrap() error { return e.err }

// plan is what a start needs.
type plan struct {
	create runtime.Create
	netns  string
	// ownNetns: the runtime makes the network namespace.
	ownNetns bool
}

// prepareStart collects everything that the drivers are asked for.
func (e *Engine) prepareStart(ctx context.Context, r container.Record, u *undo) (plan, error) {
	var p plan
	storage, err := e.Drivers.Storage(r.StorageDriver)
	if err != nil {
		return p, badDriver(err)
	}
	mounts, err := storage.Mounts(ctx, r.Snapshot)
	if err != nil {
		return p, fmt.Errorf("mounts of the container's layer: %w", err)
	}
	in := spec.Input{
		ID: r.ID, Hostname: r.Config.Hostname, Domainname: r.Config.Domainname, Config: r.Config, HostConfig: r.HostConfig,
		CgroupPath: e.cgroupPath(r), AppArmor: e.AppArmor,
	}
	if err := e.namespaces(ctx, r, &in, &p, u); err != nil {
		return p, err
	}
	if in.Init, err = e.initProgram(r.HostConfig); err != nil {
		return p, err
	}
	if in.Passwd, in.Group, err = e.accounts(ctx, r, mounts); err != nil {
		return p, fmt.Errorf("reading the image's accounts: %w", err)
	}
	if in.Mounts, err = e.specMounts(ctx, r, u); err != nil {
		return p, err
	}
	files, err := e.writeFiles(r)
	if err != nil {
		return p, err
	}
	in.Mounts = append(files, in.Mounts...)
	built, err := spec.Build(in)
	if err != nil {
		return p, err
	}
	if err := e.CDI.Inject(built, r.HostConfig.DeviceRequests); err != nil {
		return p, err
	}
	body, err := spec.Marshal(built)
	if err != nil {
		return p, err
	}
	if e.remapped(r) {
		mounts = mapOwners(mounts)
	}
	p.create = runtime.Create{ID: r.ID, Spec: json.RawMessage(body), Rootfs: mounts, IO: runtime.IO{
		Terminal: r.Config.Tty, Stdin: r.Config.OpenStdin, Stdout: true, Stderr: true, StdinOnce: r.Config.StdinOnce,
		Height: uint16(r.HostConfig.ConsoleSize[0]), Width: uint16(r.HostConfig.ConsoleSize[1]),
	}}
	if r.HostConfig.LogConfig.Type != "none" {
		if p.create.IO.Log, err = e.logOf(r); err != nil {
			return p, err
		}
	}
	return p, nil
}

// cgroupPath is the linux.cgroupsPath of a container's spec: a path, or for systemd
// "slice:prefix:name".
func (e *Engine) cgroupPath(r container.Record) string {
	parent := r.HostConfig.CgroupParent
	if parent == "" {
		parent = e.CgroupParent
	}
	if e.CgroupDriver == systemdDriver {
		return parent + ":davit:" + r.ID
	}
	return filepath.Join("/", parent, r.ID)
}

// namespaces says which namespaces are new, the host's, or another container's.
func (e *Engine) namespaces(ctx context.Context, r container.Record, in *spec.Input, p *plan, u *undo) error {
	host := r.HostConfig
	in.HostPID, in.HostIPC, in.HostUTS = host.PidMode.IsHost(), host.IpcMode.IsHost(), host.UTSMode.IsHost()
	in.HostCgroupns = host.CgroupnsMode.IsHost()
	if e.remapped(r) {
		in.IDs = e.Remap
	}
	shared := func(ref, kind string) (string, error) {
		other, err := e.containers.Find(ref)
		if err != nil {
			return "", err
		}
		record := other.Record()
		if !record.Status.Alive() {
			return "", errdefs.ErrConflict.WithMessage(fmt.Sprintf("cannot join %s namespace of a non running container: container %s is %s", kind, record.Name, record.Status))
		}
		if e.remapped(r) {
			// Who shares one namespace has to share that it belongs to.
			in.UserNS = fmt.Sprintf("/proc/%d/ns/user", record.PID)
		}
		return fmt.Sprintf("/proc/%d/ns/%s", record.PID, kind), nil
	}
	var err error
	if host.PidMode.IsContainer() {
		if in.PIDNS, err = shared(host.PidMode.Container(), "pid"); err != nil {
			return err
		}
	}
	if host.IpcMode.IsContainer() {
		if in.IPCNS, err = shared(host.IpcMode.Container(), "ipc"); err != nil {
			return err
		}
		if in.Shm, err = e.sharedShm(r); err != nil {
			return err
		}
	}
	if host.IpcMode.IsShareable() {
		in.Shm = e.shmPath(r.ID)
		if err := e.mountShm(r); err != nil {
			return err
		}
		u.add(func(context.Context) error { return e.unmountShm(r.ID) })
	}
	switch {
	case host.NetworkMode.IsHost():
		in.HostNetwork = true
	case host.NetworkMode.IsContainer():
		in.Netns, err = shared(host.NetworkMode.ConnectedContainer(), "net")
	case e.remapped(r):
		p.ownNetns = true
	default:
		if p.netns, err = e.Networks.NewNetns(ctx, r.ID); err == nil {
			in.Netns = p.netns
			u.add(func(context.Context) error { e.Networks.FreeNetns(r.ID); return nil })
		}
	}
	return err
}

// accounts are the passwd and group files that a container starts with. One that
// nothing has written to yet has its image's, which are read once: mounting a
// root filesystem for it costs more than most other steps of a start.
func (e *Engine) accounts(ctx context.Context, r container.Record, mounts []mount.Mount) (passwd, group []byte, err error) {
	fresh := r.StartedAt.IsZero() && !r.Written
	if known, ok := e.imageAccounts.Load(r.Image); ok && fresh {
		files := known.([2][]byte)
		return files[0], files[1], nil
	}
	if passwd, group, err = readAccounts(ctx, mounts); err == nil && fresh {
		e.imageAccounts.Store(r.Image, [2][]byte{passwd, group})
	}
	return passwd, group, err
}

// readAccounts reads passwd and group of a root filesystem that is not mounted.
func readAccounts(ctx context.Context, mounts []mount.Mount) (passwd, group []byte, err error) {
	err = rootfs.Mounted(ctx, mounts, true, func(v *rootfs.View) error {
		if passwd, err = v.ReadFile("/etc/passwd"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if group, err = v.ReadFile("/etc/group"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
	return passwd, group, err
}

// serveDNS gives containers on user-defined networks a name server.
func (e *Engine) serveDNS(ctx context.Context, r container.Record, netns string) error {
	if netns == "" || !usesDNS(r) {
		return nil
	}
	if err := e.Networks.ServeDNS(ctx, r.ID, netns, dnsOptions(r)); err != nil {
		return fmt.Errorf("starting the name server: %w", err)
	}
	return nil
}

func usesDNS(r container.Record) bool {
	for name := range r.Endpoints {
		if (network.Network{Name: name}).UserDefined() {
			return true
		}
	}
	return false
}

func dnsOptions(r container.Record) resolvconf.Overrides {
	return resolvconf.Overrides{Servers: r.HostConfig.DNS, Search: r.HostConfig.DNSSearch, Options: r.HostConfig.DNSOptions}
}
