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
// container for want of memory. The watch ends with the cgroup, or the driver.
func (d *Driver) watchMemory(id string, group *cgroup.Group) {
	d.background.Go(func() {
		err := group.WatchOOM(d.life, func() {
			d.events.send(runtime.Event{ID: id, Type: runtime.EventOOM, At: time.Now()})
		})
		if err != nil && !errors.Is(err, context.Canceled) && !errdefs.IsNotFound(err) {
			d.log.Warn("want of memory will not be reported", "container", id, "error", err)
		}
	})
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
