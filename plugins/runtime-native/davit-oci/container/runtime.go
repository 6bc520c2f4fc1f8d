// Package container is the life of a container without a monitor: the commands
// of a command-line OCI runtime (runtime-spec, "Operations"), each of which ends
// before or without the container. What lasts is in package record and in the
// kernel.
package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/record"
	"github.com/davit-engine/davit/plugins/runtime-native/placement"
	"github.com/davit-engine/davit/plugins/runtime-native/proc"
)

// The errors have runc's texts: tools look for them.
var (
	ErrNotRunning    = errors.New("container not running")
	ErrNotPaused     = errors.New("container not paused")
	ErrProcessGone   = errors.New("process already finished")
	ErrStartStopped  = errors.New("cannot start a container that has stopped")
	ErrStartRunning  = errors.New("cannot start an already running container")
	ErrExecStopped   = errors.New("cannot exec in a stopped container")
	ErrExecPaused    = errors.New("cannot exec in a paused container (use --ignore-paused to override)")
	ErrConsoleDetach = errors.New("cannot allocate tty if the runtime will detach without setting console socket")
	ErrConsoleNoTTY  = errors.New("cannot use console socket if the runtime will not detach or allocate tty")
)

// paused is the state that runc adds to those of the runtime-spec.
const paused specs.ContainerState = "paused"

// patience bounds waiting for the kernel: dying processes, freezing.
const patience = 10 * time.Second

// systemdPatience bounds what systemd does, which may have much else to do.
const systemdPatience = time.Minute

// Runtime runs the commands on the containers below one root.
type Runtime struct {
	Root record.Root
	// Systemd makes the cgroups through systemd; cgroupsPath is then
	// "slice:prefix:name".
	Systemd bool
	// CRIU is the program for checkpoints, by name or path; empty for "criu".
	CRIU string
	// Warn gets what went wrong without making the command fail.
	Warn func(format string, args ...any)
}

// status finds out how a container is.
func (r *Runtime) status(c *record.Record) specs.ContainerState {
	switch {
	case !alive(c.PID, c.StartTime):
		return specs.StateStopped
	case r.Root.Waits(c.ID):
		return specs.StateCreated
	}
	group, err := cgroup.Open(c.Cgroup)
	if err == nil {
		if frozen, err := group.Frozen(); err == nil && frozen {
			return paused
		}
	}
	return specs.StateRunning
}

// alive says whether the recorded process exists and has not ended.
func alive(pid int, start string) bool {
	stat, err := proc.ReadStat(pid)
	return err == nil && stat.Start == start && stat.Flags&proc.Exiting == 0
}

// openProcess answers a pidfd of the container's init; ErrProcessGone if it has
// ended.
func openProcess(c *record.Record) (int, error) {
	fd, err := unix.PidfdOpen(c.PID, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
			return -1, ErrProcessGone
		}
		return -1, fmt.Errorf("opening process %d: %w", c.PID, err)
	}
	if !alive(c.PID, c.StartTime) { // the number may be another process's by now
		_ = unix.Close(fd)
		return -1, ErrProcessGone
	}
	return fd, nil
}

// awaitEnd waits, but not for ever, for a pidfd's process to end.
func awaitEnd(pidfd int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := await(ctx, pidfd)
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("container init still running")
	}
	return err
}

// await waits for a pidfd's process to end; it looks for the end of ctx twice a
// second.
func await(ctx context.Context, pidfd int) error {
	const interval = 500 * time.Millisecond
	for ctx.Err() == nil {
		wait := interval
		if deadline, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(deadline))
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, max(0, int(wait.Milliseconds())+1))
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			return nil
		}
	}
	return ctx.Err()
}

// discard ends the processes of a cgroup and removes it.
func discard(p placement.Placement) error {
	wait := patience
	if p.Scope != nil {
		wait = systemdPatience
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	return p.Discard(ctx)
}

func ignoreMissing(err error) error {
	if errdefs.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
