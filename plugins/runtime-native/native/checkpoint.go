package native

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/checkpoint"
	"github.com/davit-engine/davit/plugins/runtime-native/translate"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/criu"
	"github.com/davit-engine/davit/sdk/monitor/supervise"
	"github.com/davit-engine/davit/sdk/runtime"
)

// placeName is the directory on which a restored container's mounts are
// prepared.
const placeName = "mounts"

// Checkpoint implements runtime.Checkpointer.
func (d *Driver) Checkpoint(ctx context.Context, c runtime.Checkpoint) error {
	if _, busy := d.dumping.LoadOrStore(c.ID, true); busy {
		return fmt.Errorf("container %s is being checkpointed: %w", c.ID, errdefs.ErrFailedPrecondition)
	}
	defer d.dumping.Delete(c.ID)
	program, err := checkpoint.Program("")
	if err != nil {
		return err
	}
	if !filepath.IsAbs(c.Image) {
		return fmt.Errorf("checkpoint directory %q is not absolute: %w", c.Image, errdefs.ErrInvalidArgument)
	}
	dump, err := d.describe(ctx, c)
	if err != nil {
		return err
	}
	dump.Program = program
	pids, err := d.Processes(ctx, c.ID)
	if err == nil {
		err = checkpoint.CheckPrivileges(program, pids, d.spawner.start)
	}
	if err != nil {
		return fmt.Errorf("checkpointing container %s: %w", c.ID, err)
	}
	if err := checkpoint.Make(ctx, c.Image, *dump, d.spawner.start); err != nil {
		return fmt.Errorf("checkpointing container %s: %w", c.ID, err)
	}
	if c.LeaveRunning {
		return nil
	}
	// The state is safe; what follows is the end of what is in it.
	_ = os.Remove(filepath.Join(d.dir(c.ID), pausedName))
	_, err = d.Wait(ctx, c.ID, "")
	return err
}

// describe finds out what has to be known of a container to dump it.
func (d *Driver) describe(ctx context.Context, c runtime.Checkpoint) (*checkpoint.Dump, error) {
	r, err := d.load(c.ID)
	if err != nil {
		return nil, err
	}
	if r.User || r.Joined&^unix.CLONE_NEWNET != 0 {
		return nil, fmt.Errorf("container %s has a user namespace, or shares a namespace that is not its network: it cannot be checkpointed: %w", c.ID, errdefs.ErrNotImplemented)
	}
	response, err := d.ask(ctx, c.ID, monitor.Request{Op: monitor.OpDescribe})
	switch {
	case errdefs.IsNotFound(err):
		return nil, fmt.Errorf("container %s has ended: %w", c.ID, errdefs.ErrFailedPrecondition)
	case err != nil:
		return nil, err
	case response.State != monitor.StateRunning:
		return nil, fmt.Errorf("container %s is %s, not running: %w", c.ID, response.State, errdefs.ErrFailedPrecondition)
	case response.Description == nil:
		return nil, fmt.Errorf("the monitor of container %s is of an older version, which knows no checkpoints: %w", c.ID, errdefs.ErrFailedPrecondition)
	case response.Description.Execs > 0:
		return nil, fmt.Errorf("container %s has %d running exec(s), which cannot be in a checkpoint: %w", c.ID, response.Description.Execs, errdefs.ErrFailedPrecondition)
	}
	dump := &checkpoint.Dump{
		PID: response.PID, Work: d.dir(c.ID), Pipes: response.Description.Pipes, Terminal: response.Description.Terminal,
		Network: r.Joined&unix.CLONE_NEWNET != 0,
		Options: options(c.Connections),
	}
	dump.Options.LeaveRunning = c.LeaveRunning
	if _, err := os.Stat(filepath.Join(d.dir(c.ID), pausedName)); err == nil {
		group, err := cgroup.Open(r.Cgroup)
		if err != nil {
			return nil, err
		}
		dump.Options.FreezeCgroup = group.Freezer()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return dump, nil
}

func options(c runtime.Connections) criu.Options {
	return criu.Options{
		TCPEstablished: c.TCPEstablished, ExtUnixSockets: c.ExternalUnixSockets, FileLocks: c.FileLocks,
		LinkRemap: true, CgroupMode: criu.CgroupIgnore, NetworkLock: criu.LockNFTables,
	}
}

// Restore implements runtime.Checkpointer.
func (d *Driver) Restore(ctx context.Context, r runtime.Restore) (runtime.Process, error) {
	p, err := d.create(ctx, r.Create, &r)
	if err != nil {
		return p, fmt.Errorf("restoring container %s: %w", r.ID, err)
	}
	return p, nil
}

// plan has a monitor restore its container instead of making a new one.
func (d *Driver) plan(config *supervise.Config, spec *specs.Spec, t *translate.Container, from runtime.Restore) error {
	program, err := checkpoint.Program("")
	if err != nil {
		return err
	}
	place := filepath.Join(config.Dir, placeName)
	if err := os.Mkdir(place, 0o700); err != nil {
		return err
	}
	plan, err := checkpoint.Restore{
		Program: program, Images: from.Image, Work: config.Dir, Place: place, Terminal: from.IO.Terminal, Options: options(from.Connections),
	}.Plan(spec, t)
	if err != nil {
		return err
	}
	plan.CgroupFiles, plan.CgroupDir = config.CgroupFiles, config.CgroupDir
	config.Restore, config.Stage = plan, nil
	return nil
}
