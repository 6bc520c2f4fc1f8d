package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// OOMKills is how many processes of the group, and of groups below it, the kernel
// has killed for want of memory.
func (g *Group) OOMKills() (uint64, error) {
	body, err := readFile(g.memory())
	if err != nil {
		return 0, fmt.Errorf("cgroup %s: %w", g.path, gone(err))
	}
	return parseKeyed(string(body))["oom_kill"], nil
}

// WatchOOM calls fn each time the group is out of memory: on v1 whenever the
// limit cannot be kept, also with the OOM killer off, on v2 when processes have
// been killed. It ends with ctx, or with nil when the group is gone.
func (g *Group) WatchOOM(ctx context.Context, fn func()) error {
	watch, wait := g.watchMemory, 8 // an eventfd's counter
	if g.version() == 2 {
		watch, wait = g.watchEvents, 4096
	}
	events, err := watch()
	if err != nil {
		return fmt.Errorf("watching cgroup %s for want of memory: %w", g.path, gone(err))
	}
	stop := context.AfterFunc(ctx, func() { _ = events.Close() })
	defer func() {
		if stop() {
			_ = events.Close()
		}
	}()
	seen, err := g.OOMKills()
	if err != nil {
		return onlyGone(err)
	}
	for buffer := make([]byte, wait); ; {
		if _, err := events.Read(buffer); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("watching cgroup %s for want of memory: %w", g.path, err)
		}
		// Its end is an event, too.
		kills, err := g.OOMKills()
		if err != nil {
			return onlyGone(err)
		}
		if kills > seen || g.version() == 1 {
			fn()
		}
		seen = kills
	}
}

func onlyGone(err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// watchMemory registers an eventfd(2) for v1's memory.oom_control.
func (g *Group) watchMemory() (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	events := os.NewFile(uintptr(fd), "eventfd")
	control, err := unix.Open(g.memory(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = writeFile(filepath.Join(filepath.Dir(g.memory()), "cgroup.event_control"), fmt.Sprintf("%d %d", fd, control))
		_ = unix.Close(control)
	}
	if err != nil {
		_ = events.Close()
		return nil, err
	}
	return events, nil
}

// watchEvents puts an inotify(7) watch on v2's memory.events.
func (g *Group) watchEvents() (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	events := os.NewFile(uintptr(fd), "inotify")
	for _, file := range []string{g.memory(), filepath.Join(g.procs(), "cgroup.events")} {
		if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err != nil {
			_ = events.Close()
			return nil, err
		}
	}
	return events, nil
}
