package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/checkpoint"
	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/record"
	"github.com/davit-engine/davit/plugins/runtime-native/proc"
	"github.com/davit-engine/davit/sdk/monitor/criu"
	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// Checkpoint asks for the state of a container's processes.
type Checkpoint struct {
	ID string
	// Images is the directory for it, Work that of CRIU's log; empty for one that
	// goes with the container.
	Images, Work string
	Options      criu.Options
}

// Checkpoint dumps a container. Unless it is left running, it is gone afterwards,
// as after Delete. If it fails the container goes on.
func (r *Runtime) Checkpoint(o Checkpoint) error {
	dir, c, err := r.Root.Open(o.ID)
	if err != nil {
		return err
	}
	defer dir.Close()
	status := r.status(c)
	if status == specs.StateCreated || status == specs.StateStopped {
		return fmt.Errorf("Container cannot be checkpointed in %s state", status) // runc's text
	}
	if c.User || c.Joined&^unix.CLONE_NEWNET != 0 {
		return fmt.Errorf("container %s has a user namespace, or shares a namespace that is not its network: it cannot be checkpointed: %w", c.ID, errdefs.ErrNotImplemented)
	}
	d, err := r.describeDump(dir, c, o, status == paused)
	if err != nil {
		return err
	}
	if err := checkpoint.Into(o.Images, d, hook.Fork); err != nil {
		return err
	}
	if o.Options.LeaveRunning {
		return nil
	}
	return r.bury(dir, c)
}

func (r *Runtime) describeDump(dir *record.Dir, c *record.Record, o Checkpoint, frozen bool) (d checkpoint.Dump, err error) {
	d = checkpoint.Dump{
		PID: c.PID, Options: o.Options, Pipes: c.Pipes, Terminal: c.Process.Terminal, Network: c.Joined&unix.CLONE_NEWNET != 0,
	}
	if d.Program, err = checkpoint.Program(r.CRIU); err != nil {
		return d, err
	}
	group, err := cgroup.Open(c.Cgroup)
	if err != nil {
		return d, err
	}
	pids, err := group.Procs()
	if err != nil {
		return d, err
	}
	if strangers := slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return descends(pid, c.PID) }); len(strangers) > 0 {
		return d, fmt.Errorf("processes %v of container %s do not descend from its first (running execs?) and cannot be in a checkpoint: %w", strangers, c.ID, errdefs.ErrFailedPrecondition)
	}
	if err := checkpoint.CheckPrivileges(d.Program, pids, hook.Fork); err != nil {
		return d, err
	}
	if frozen {
		d.Options.FreezeCgroup = group.Freezer()
	}
	d.Work, err = workDir(dir, o.Work)
	return d, err
}

// descends says whether a process is another or its descendant; one that has
// ended counts as one.
func descends(pid, ancestor int) bool {
	for pid != ancestor {
		stat, err := proc.ReadStat(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return true
		}
		if err != nil || stat.Parent <= 1 {
			return false
		}
		pid = stat.Parent
	}
	return true
}

// workDir makes the directory for CRIU's log, by default the container's own.
func workDir(dir *record.Dir, wanted string) (string, error) {
	if wanted == "" {
		return dir.Path(), nil
	}
	work, err := filepath.Abs(wanted)
	if err == nil {
		err = os.MkdirAll(work, 0o700)
	}
	if err != nil {
		return "", fmt.Errorf("making the work directory: %w", err)
	}
	return work, nil
}

// pipes are the names of this process's standard streams that are pipes.
func pipes() (names [3]string) {
	for i := range names {
		if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", i)); err == nil && strings.HasPrefix(name, "pipe:[") {
			names[i] = name
		}
	}
	return names
}
