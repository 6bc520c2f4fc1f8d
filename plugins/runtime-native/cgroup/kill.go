package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Kill sends SIGKILL to every process of the group and below it, frozen ones
// too. They may still be dying when it returns.
func (g *Group) Kill() error {
	if g.version() == 2 {
		err := writeFile(filepath.Join(g.procs(), "cgroup.kill"), "1")
		if !errors.Is(err, fs.ErrNotExist) {
			return skipGone(err)
		}
		if len(g.dirs()) == 0 {
			return nil
		}
		// Kernels before 5.14 have no such file.
	}
	return g.killEach()
}

// killRounds bounds killing one by one. Once the group is frozen two rounds do, unless
// processes come in from outside.
const killRounds = 100

// killEach signals the processes until there are none that have not been. If new
// ones go on to appear the group is frozen first: processes that fork faster than they
// are listed would never end.
func (g *Group) killEach() error {
	seen, self := map[int]bool{}, unix.Getpid()
	for round := range killRounds {
		if round > 1 {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			// What is not frozen in time is at least slowed down.
			if err := g.Freeze(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) && skipGone(err) != nil {
				cancel()
				return err
			}
			cancel()
		}
		pids, err := g.Procs()
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			if pid == self {
				continue // v1 lists a process for each of its threads: one was here to fork
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("killing process %d: %w", pid, err)
			}
			fresh = fresh || !seen[pid]
			seen[pid] = true
		}
		// A frozen process dies only when it runs again.
		if err := g.thawAll(); err != nil {
			return err
		}
		if !fresh {
			return nil
		}
	}
	return fmt.Errorf("cgroup %s still gets new processes after killing %d of them", g.path, len(seen))
}

// thawAll thaws the group and those the container froze below it.
func (g *Group) thawAll() error {
	return walk(g.procs(), func(dir string) error {
		file, value := "freezer.state", "THAWED"
		if g.version() == 2 {
			file, value = "cgroup.freeze", "0"
		}
		return writeFile(filepath.Join(dir, file), value)
	})
}
