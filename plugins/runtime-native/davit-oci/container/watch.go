package container

import (
	"context"
	"errors"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/sdk/runtime"
)

// Watcher is told what happens to a container.
type Watcher struct {
	Usage func(Usage) error
	OOM   func() error // the kernel has killed a process for want of memory
}

// Usage is what a container uses and, by resource, how much it waits.
type Usage struct {
	runtime.Stats
	Pressures map[string]cgroup.Pressure
}

// Usage reads a container's.
func (r *Runtime) Usage(id string) (Usage, error) {
	group, err := r.group(id, ErrNotRunning, specs.StateRunning, specs.StateCreated, paused)
	if err != nil {
		return Usage{}, err
	}
	return usage(group)
}

func usage(group *cgroup.Group) (u Usage, err error) {
	if u.Stats, err = group.Stats(); err != nil {
		return u, err
	}
	u.Pressures, err = group.Pressures()
	return u, err
}

// Watch tells the watcher the statistics again and again, and want of memory when
// it happens, until the container has ended.
func (r *Runtime) Watch(ctx context.Context, id string, interval time.Duration, w Watcher) error {
	c, err := r.Root.Peek(id)
	if err != nil {
		return err
	}
	init, err := openProcess(c)
	if errors.Is(err, ErrProcessGone) {
		return ErrNotRunning
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(init) }()
	group, err := cgroup.Open(c.Cgroup)
	if err != nil {
		return err
	}
	told, err := group.OOMKills()
	if err != nil {
		return ignoreMissing(err)
	}

	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	hungry, ended := make(chan struct{}, 1), make(chan error, 1)
	watching.Go(func() {
		// Without it the count still is looked at in each interval.
		_ = group.WatchOOM(ctx, func() {
			select {
			case hungry <- struct{}{}:
			default:
			}
		})
	})
	watching.Go(func() { ended <- await(ctx, init) })

	tick := time.NewTicker(interval)
	defer tick.Stop()
	for due := true; ; {
		if due {
			u, err := usage(group)
			if err == nil {
				err = w.Usage(u)
			}
			if err != nil {
				return ignoreMissing(err)
			}
		}
		due = false
		over := false
		select {
		case <-tick.C:
			due = true
		case <-hungry:
			// On cgroup v1 the kernel says so before it kills, and counts.
			told++
			if err := w.OOM(); err != nil {
				return err
			}
			continue
		case err := <-ended:
			if err != nil {
				return err
			}
			over = true
		}
		killed, err := group.OOMKills()
		if err != nil {
			return ignoreMissing(err)
		}
		if killed > told {
			told = killed
			if err := w.OOM(); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
	}
}
