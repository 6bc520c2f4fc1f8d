package container

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/record"
)

// cleanBelow joins a path that a caller gave to a base it cannot leave.
func cleanBelow(base, name string) string { return path.Join(base, path.Clean("/"+name)) }

// Kill sends a signal to a container's init, or with all to every process of the
// container, also when the init has ended.
func (r *Runtime) Kill(id string, signal unix.Signal, all bool) error {
	c, err := r.Root.Peek(id)
	if err != nil {
		return err
	}
	// Without a pid namespace of its own nothing else ends what the init started.
	if all || (!c.OwnPID && signal == unix.SIGKILL) {
		return r.killAll(c, signal)
	}
	pidfd, err := openProcess(c)
	if errors.Is(err, ErrProcessGone) {
		return ErrNotRunning
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(pidfd) }()
	if err := unix.PidfdSendSignal(pidfd, signal, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return ErrNotRunning
		}
		return fmt.Errorf("signalling container %s: %w", id, err)
	}
	if signal != unix.SIGKILL {
		return nil
	}
	// A process frozen on cgroup v1 dies only when it runs again.
	group, err := cgroup.Open(c.Cgroup)
	if err != nil {
		return ignoreMissing(err)
	}
	if frozen, err := group.Frozen(); err != nil || !frozen {
		return ignoreMissing(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return ignoreMissing(group.Thaw(ctx))
}

func (r *Runtime) killAll(c *record.Record, signal unix.Signal) error {
	group, err := cgroup.Open(c.Cgroup)
	if err != nil {
		if ignoreMissing(err) == nil {
			return ErrNotRunning
		}
		return err
	}
	if signal == unix.SIGKILL {
		return group.Kill()
	}
	pids, err := group.Procs()
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return ErrNotRunning
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signalling process %d of container %s: %w", pid, c.ID, err)
		}
	}
	return nil
}

// Delete removes a container that has ended or was never started, and every
// trace of it; with force a running one is killed first and a missing one is no
// error.
func (r *Runtime) Delete(id string, force bool) error {
	dir, c, err := r.Root.Open(id)
	if errors.Is(err, record.ErrNotExist) {
		// Perhaps the directory of a creation that was cut off.
		if cut := r.Root.Discard(id, discard); cut != nil && !errors.Is(cut, record.ErrExists) {
			return cut
		}
		if force {
			return nil
		}
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if status := r.status(c); status != specs.StateStopped && status != specs.StateCreated && !force {
		return fmt.Errorf("cannot delete container %s that is not stopped: %s", id, status)
	}
	return r.bury(dir, c)
}

// bury ends a container and removes every trace of it.
func (r *Runtime) bury(dir *record.Dir, c *record.Record) error {
	if err := r.end(c); err != nil {
		return err
	}
	if err := discard(c.Placement); err != nil {
		return err
	}
	r.poststop(c)
	return dir.Remove()
}

// end kills the init and waits for it.
func (r *Runtime) end(c *record.Record) error {
	pidfd, err := openProcess(c)
	if errors.Is(err, ErrProcessGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(pidfd) }()
	if err := r.Kill(c.ID, unix.SIGKILL, false); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	return awaitEnd(pidfd)
}

// find answers a container that is in one of the given states; otherwise the error is
// refused.
func (r *Runtime) find(id string, refused error, states ...specs.ContainerState) (*record.Record, error) {
	c, err := r.Root.Peek(id)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(states, r.status(c)) {
		return nil, refused
	}
	return c, nil
}

// group opens the cgroup of such a container.
func (r *Runtime) group(id string, refused error, states ...specs.ContainerState) (*cgroup.Group, error) {
	c, err := r.find(id, refused, states...)
	if err != nil {
		return nil, err
	}
	return cgroup.Open(c.Cgroup)
}

// Pause freezes all processes of a container.
func (r *Runtime) Pause(id string) error {
	group, err := r.group(id, ErrNotRunning, specs.StateRunning, specs.StateCreated)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := group.Freeze(ctx); err != nil {
		return errors.Join(err, group.Thaw(context.WithoutCancel(ctx)))
	}
	return nil
}

// Resume thaws them.
func (r *Runtime) Resume(id string) error {
	group, err := r.group(id, ErrNotPaused, paused)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return group.Thaw(ctx)
}

// Update changes a container's limits; those that are not set stay.
func (r *Runtime) Update(id string, limits *specs.LinuxResources) error {
	c, err := r.find(id, ErrNotRunning, specs.StateRunning, specs.StateCreated, paused)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), systemdPatience)
	defer cancel()
	return c.Update(ctx, limits)
}

// Processes lists the host's numbers of a container's processes.
func (r *Runtime) Processes(id string) ([]int, error) {
	group, err := r.group(id, ErrNotRunning, specs.StateRunning, specs.StateCreated, paused)
	if err != nil {
		return nil, err
	}
	return group.Procs()
}
