// Package cgroup gives containers their control groups: one directory on
// cgroup v2, one in each hierarchy on v1 (also where a v2 hierarchy without
// controllers sits beside them). It words the limits of the runtime-spec for
// either version, writes them in as few system calls as possible and reads the
// statistics. It never mounts anything. Programs that live as long as one command
// use it: what it imports must not initialize anything of size.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/runtime"
)

// mountpoint is where cgroup hierarchies are mounted (file-hierarchy(7)).
const mountpoint = "/sys/fs/cgroup"

// Group is the control group of one container, by the path of its directory
// below each hierarchy's root.
type Group struct {
	path string
	hierarchies
}

// hierarchies is what differs between v1 and v2.
type hierarchies interface {
	version() int
	// dir is the directory of a controller's files, empty if the host has none.
	dir(controller string) string
	// dirs are the group's existing directories.
	dirs() []string
	// procs is the directory that lists the group's processes.
	procs() string
	memory() string
	create(*specs.LinuxResources) error
	update(*specs.LinuxResources) error
	stats() (runtime.Stats, error)
	freeze(bool) error
	frozen() (bool, error)
}

// at chooses the version by what is mounted.
func at(name string) (*Group, error) {
	if !path.IsAbs(name) || path.Clean(name) != name || name == "/" {
		return nil, fmt.Errorf("cgroup path %q must be clean, absolute and not the root: %w", name, errdefs.ErrInvalidArgument)
	}
	if cgroups.Mode() == cgroups.Unified {
		return &Group{name, &unified{name}}, nil
	}
	h, err := newLegacy(name)
	return &Group{name, h}, err
}

// Open finds an existing group. Its error is ErrNotFound if there is none.
func Open(name string) (*Group, error) {
	g, err := at(name)
	if err != nil {
		return nil, err
	}
	if len(g.dirs()) == 0 {
		return nil, fmt.Errorf("cgroup %s: %w", name, errdefs.ErrNotFound)
	}
	return g, nil
}

// Create makes a group, its parents and its limits; with nil resources it has
// none. A group that exists gets the limits.
func Create(name string, resources *specs.LinuxResources) (*Group, error) {
	g, err := at(name)
	if err != nil {
		return nil, err
	}
	if resources == nil {
		resources = &specs.LinuxResources{}
	}
	if err := g.create(resources); err != nil {
		return nil, fmt.Errorf("cgroup %s: %w", name, err)
	}
	return g, nil
}

// Vacant answers nil if there is no group of that name, or an empty one that is
// not frozen. Otherwise it is somebody's: ErrFailedPrecondition.
func Vacant(name string) error {
	g, err := at(name)
	if err != nil || len(g.dirs()) == 0 {
		return err
	}
	pids, err := g.Procs()
	if err != nil {
		return fmt.Errorf("cgroup %s: %w", name, err)
	}
	if len(pids) > 0 {
		return fmt.Errorf("container's cgroup is not empty: %d process(es) found in %s: %w", len(pids), name, errdefs.ErrFailedPrecondition)
	}
	if frozen, err := g.frozen(); err == nil && frozen {
		return fmt.Errorf("container's cgroup %s unexpectedly frozen: %w", name, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// Version is 1 or 2.
func (g *Group) Version() int { return g.version() }

// JoinPaths are the files into which a v1 thread writes "0" to join. Written by
// the thread itself they cost no grace period, unlike cgroup.procs.
func (g *Group) JoinPaths() []string {
	var files []string
	for _, dir := range g.dirs() {
		files = append(files, filepath.Join(dir, "tasks"))
	}
	return files
}

// Freezer is the directory of the group by which its processes are stopped.
func (g *Group) Freezer() string { return g.procs() }

// Joining says how a process gets into the group: the files into which its parent's
// thread writes "0" before it forks, and the directory that it is born in
// (CLONE_INTO_CGROUP); none or empty for neither.
//
// On v1 there may be both: systemd keeps count of processes on a v2 hierarchy without
// controllers beside v1, and only it makes groups there.
func (g *Group) Joining() (files []string, dir string) {
	if g.version() == 2 {
		return nil, filepath.Join(mountpoint, g.path)
	}
	var fs unix.Statfs_t
	beside := filepath.Join(mountpoint, "unified", g.path)
	if unix.Statfs(beside, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		dir = beside
	}
	return g.JoinPaths(), dir
}

// Update changes limits; those that resources does not name stay.
func (g *Group) Update(resources *specs.LinuxResources) error {
	if err := g.update(resources); err != nil {
		return fmt.Errorf("cgroup %s: %w", g.path, gone(err))
	}
	return nil
}

// Stats reads what the group has used.
func (g *Group) Stats() (runtime.Stats, error) {
	s, err := g.stats()
	if err != nil {
		return s, fmt.Errorf("reading the statistics of cgroup %s: %w", g.path, gone(err))
	}
	s.Read, s.Version = time.Now(), g.version()
	return s, nil
}

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return err
}

// OOMEventPath is the file whose line "oom_kill N" counts the processes that the
// kernel killed for want of memory.
func (g *Group) OOMEventPath() string { return g.memory() }

// OOMEventPath is that of a group that need not be there yet; empty where memory is
// not controlled.
func OOMEventPath(name string) (string, error) {
	g, err := at(name)
	if err != nil {
		return "", err
	}
	return g.memory(), nil
}

// Procs lists the processes of the group and of groups below it.
func (g *Group) Procs() ([]int, error) {
	var pids []int
	err := walk(g.procs(), func(dir string) error {
		body, err := readFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil // a threaded group: its processes are listed above it
		}
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(body)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

// walk calls fn for a group's directory and all below it; what goes away
// meanwhile is no error.
func walk(root string, fn func(dir string) error) error {
	return filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return skipGone(err)
		}
		return skipGone(fn(name))
	})
}

// skipGone forgives a directory that was removed meanwhile.
func skipGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Freeze stops all processes and waits until the kernel has them stopped.
func (g *Group) Freeze(ctx context.Context) error { return g.turn(ctx, true) }

// Thaw lets them run again.
func (g *Group) Thaw(ctx context.Context) error { return g.turn(ctx, false) }

// Frozen says whether all processes are stopped.
func (g *Group) Frozen() (bool, error) { return g.frozen() }

func (g *Group) turn(ctx context.Context, frozen bool) error {
	delay := 50 * time.Microsecond
	for try := 1; ; try++ {
		// On v1 asking again makes the kernel look at tasks that were busy before, and
		// some only get to where they can be frozen when they may run for a moment.
		if g.version() == 1 && frozen && try%20 == 0 {
			if err := g.freeze(false); err != nil {
				return gone(err)
			}
		}
		if err := g.freeze(frozen); err != nil {
			return gone(err)
		}
		now, err := g.frozen()
		if err != nil {
			return gone(err)
		}
		if now == frozen {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the processes of cgroup %s do not stop: %w", g.path, ctx.Err())
		case <-time.After(delay):
		}
		delay = min(2*delay, 20*time.Millisecond)
	}
}

// Delete removes the group. Processes that are just dying are waited for a
// little; living ones are an error.
func (g *Group) Delete(ctx context.Context) error {
	for delay := 100 * time.Microsecond; ; delay *= 2 {
		var failed error
		for _, dir := range g.dirs() {
			failed = errors.Join(failed, removeTree(dir))
		}
		if failed == nil {
			return nil
		}
		if !errors.Is(failed, unix.EBUSY) || delay > 400*time.Millisecond {
			return fmt.Errorf("removing cgroup %s: %w", g.path, failed)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}

// removeTree removes a cgroup's directory and those that the container made
// below it. Their files are the kernel's and go with them.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	entries, readErr := os.ReadDir(dir)
	if readErr != nil {
		return skipGone(readErr)
	}
	var failed error
	children := false
	for _, entry := range entries {
		if entry.IsDir() {
			children = true
			failed = errors.Join(failed, removeTree(filepath.Join(dir, entry.Name())))
		}
	}
	if failed != nil || !children {
		return errors.Join(failed, &fs.PathError{Op: "rmdir", Path: dir, Err: err})
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
