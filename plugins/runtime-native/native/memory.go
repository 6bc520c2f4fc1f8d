package native

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/sdk/runtime"
)

// watchMemory tells subscribers whenever the kernel kills a process of the
// container for want of memory. The watch ends with the container's removal, or the
// driver.
func (d *Driver) watchMemory(id string, group *cgroup.Group) {
	ctx, cancel := context.WithCancel(d.life)
	d.watches.Store(id, cancel)
	d.background.Go(func() {
		defer cancel()
		err := d.memory.Watch(ctx, group, func() {
			d.events.send(runtime.Event{ID: id, Type: runtime.EventOOM, At: time.Now()})
		})
		if err != nil && !errors.Is(err, context.Canceled) && !errdefs.IsNotFound(err) {
			d.log.Warn("want of memory will not be reported", "container", id, "error", err)
		}
	})
}

// unwatchMemory is for a container that is removed: its cgroup's end is not always
// an event.
func (d *Driver) unwatchMemory(id string) {
	if cancel, ok := d.watches.LoadAndDelete(id); ok {
		cancel.(context.CancelFunc)()
	}
}

// watchMemories is for the containers that an earlier process of the driver made.
func (d *Driver) watchMemories(ids []string) {
	for _, id := range ids {
		group, err := d.group(id)
		switch {
		case err == nil:
			d.watchMemory(id, group)
		case !errdefs.IsNotFound(err) && !errors.Is(err, fs.ErrNotExist):
			d.log.Warn("want of memory will not be reported", "container", id, "error", err)
		}
	}
}
