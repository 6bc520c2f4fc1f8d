package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

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

// OOMWatcher tells of want of memory in any number of groups. The zero value is
// one; it is to be closed when no Watch goes on any more.
type OOMWatcher struct {
	mu      sync.Mutex
	changes *changes // v2; nil before the first group
}

// Watch calls fn each time the group is out of memory: on v1 whenever the limit
// cannot be kept, also with the OOM killer off, on v2 when processes have been
// killed. It ends with ctx, or with nil when the group is gone; v2 does not tell of
// the removal of a group that was empty before.
func (w *OOMWatcher) Watch(ctx context.Context, g *Group, fn func()) error {
	notice, err := w.subscribe(g)
	if err != nil {
		return fmt.Errorf("watching cgroup %s for want of memory: %w", g.path, gone(err))
	}
	defer notice.close()
	seen, err := g.OOMKills()
	if err != nil {
		return onlyGone(err)
	}
	for {
		if err := notice.wait(ctx); err != nil {
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

// WatchOOM is [OOMWatcher.Watch] for who watches one group.
func (g *Group) WatchOOM(ctx context.Context, fn func()) error {
	var w OOMWatcher
	defer w.Close()
	return w.Watch(ctx, g, fn)
}

// Close ends what the watcher has open.
func (w *OOMWatcher) Close() {
	if w.changes != nil {
		w.changes.close()
	}
}

func onlyGone(err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// notice comes when something may have happened to one group.
type notice interface {
	wait(ctx context.Context) error
	close()
}

func (w *OOMWatcher) subscribe(g *Group) (notice, error) {
	if g.version() == 1 {
		return newEventfd(g)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changes == nil {
		changes, err := newChanges()
		if err != nil {
			return nil, err
		}
		w.changes = changes
	}
	return w.changes.watch(g.memory(), filepath.Join(g.procs(), "cgroup.events"))
}

// eventfd counts the wants of memory of a v1 group (eventfd(2)).
type eventfd struct{ *os.File }

// newEventfd registers one for v1's memory.oom_control.
func newEventfd(g *Group) (notice, error) {
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
	return eventfd{events}, nil
}

func (e eventfd) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = e.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := e.Read(make([]byte, 8))
	return err
}

func (e eventfd) close() { _ = e.Close() }
