package container

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/sdk/runtime"
)

// Watcher is told what happens to a container.
type Watcher struct {
	Stats func(runtime.Stats) error
	OOM   func() error // the kernel has killed a process for want of memory
}

// Watch tells the watcher the statistics again and again, until the container
// has ended.
func (r *Runtime) Watch(id string, interval time.Duration, w Watcher) error {
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
	killed := oomKills(group)
	for {
		stats, err := group.Stats()
		if errdefs.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) {
			return nil // removed
		}
		if err != nil {
			return err
		}
		if err := w.Stats(stats); err != nil {
			return err
		}
		ended, err := pause(init, interval)
		if err != nil {
			return err
		}
		if now := oomKills(group); now > killed {
			killed = now
			if err := w.OOM(); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
}

// pause waits for the interval or the end of a pidfd's process.
func pause(pidfd int, interval time.Duration) (ended bool, err error) {
	deadline := time.Now().Add(interval)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(max(0, time.Until(deadline).Milliseconds())))
		if err != unix.EINTR {
			return n > 0, err
		}
	}
}

// oomKills counts the processes of a group that were killed for want of memory.
func oomKills(group *cgroup.Group) uint64 {
	body, err := os.ReadFile(group.OOMEventPath())
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(body) {
		if value, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, _ := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
			return n
		}
	}
	return 0
}
