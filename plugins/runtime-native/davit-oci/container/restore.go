package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/plugins/runtime-native/checkpoint"
	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/console"
	"github.com/davit-engine/davit/plugins/runtime-native/proc"
	"github.com/davit-engine/davit/sdk/monitor/criu"
	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// mountsName is the directory below a container's on which the mounts of a
// restored one are prepared.
const mountsName = "mounts"

// Restore asks for a container made from a checkpoint.
type Restore struct {
	Create
	// Images is the checkpoint; Work is as in [Checkpoint].
	Images, Work string
	Options      criu.Options
}

// Restore makes a container from a checkpoint and lets it go on. Attached, it
// waits for its end, removes it and answers its exit status.
func (r *Runtime) Restore(o Restore) (int, error) {
	c, err := r.restore(o)
	if err != nil {
		return -1, err
	}
	return c.run(o.Detach, false)
}

// restore makes the container up to the point before it goes on. On error nothing
// is left.
func (r *Runtime) restore(o Restore) (_ *Created, err error) {
	program, err := checkpoint.Program(r.CRIU)
	if err != nil {
		return nil, err
	}
	c, spec, err := r.begin(o.Create)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.undo())
		}
	}()
	if len(spec.Linux.NetDevices) > 0 {
		return nil, fmt.Errorf("linux.netDevices cannot be moved into a restored container: %w", errdefs.ErrNotImplemented)
	}
	group, hold, err := c.makeGroup(spec)
	if err != nil {
		return nil, err
	}
	defer hold.Release()
	t, err := c.translate(spec, group, o.Create)
	if err != nil {
		return nil, err
	}
	work, err := workDir(c.dir, o.Work)
	if err != nil {
		return nil, err
	}
	place := filepath.Join(c.dir.Path(), mountsName)
	if err := os.Mkdir(place, 0o700); err != nil {
		return nil, err
	}
	plan, err := checkpoint.Restore{
		Program: program, Images: o.Images, Work: work, Place: place, Options: o.Options, Terminal: spec.Process.Terminal,
	}.Plan(spec, t)
	if err != nil {
		return nil, err
	}
	plan.CgroupFiles, plan.CgroupDir = group.Joining()
	if !o.Detach {
		c.forwarder = listen()
	}
	if c.tree, err = plan.Start(hook.Fork, [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, c.restoreHooks); err != nil {
		return nil, err
	}
	c.PID = c.tree.PID
	c.StartTime = proc.StartTime(c.PID)
	if c.terminal, err = console.Hand(c.tree.Terminal, o.ConsoleSocket); err != nil {
		return nil, err
	}
	encoded, err := c.Encode()
	if err != nil {
		return nil, err
	}
	if err := c.dir.Save(encoded); err != nil {
		return nil, err
	}
	return c, writePID(o.PIDFile, c.PID)
}

// restoreHooks runs the hooks of the runtime when a restored container's
// namespaces are there.
func (c *Created) restoreHooks(pid int) error {
	if c.Hooks == nil {
		return nil
	}
	return c.createHooks(pid)
}
