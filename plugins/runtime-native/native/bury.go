package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/runtime"
)

// killedCode is the exit code of a container whose monitor was killed: what is
// left of it is killed, too.
const killedCode = 128 + int(unix.SIGKILL)

// bury ends a container whose monitor is dead and left no status: nobody holds
// its streams, and nobody would learn how it ends. Its mounts go with its last
// process.
func (d *Driver) bury(ctx context.Context, id string, r record) (*runtime.Exit, error) {
	if r.monitorAlive() {
		return nil, fmt.Errorf("monitor %d of container %s does not answer: %w", r.Monitor, id, errdefs.ErrUnavailable)
	}
	group, err := cgroup.Open(r.Cgroup)
	if err == nil {
		if err = group.Kill(); err == nil {
			err = awaitEmpty(ctx, group)
		}
	}
	if err != nil && !errdefs.IsNotFound(err) && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("killing what is left of container %s: %w", id, err)
	}
	exit := monitor.Exit{
		Code: killedCode, At: time.Now().UTC(),
		Reason: fmt.Sprintf("the container's monitor (process %d) was killed, and what was left of the container with it", r.Monitor),
	}
	body, err := json.Marshal(exit)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(d.dir(id), monitor.ExitName)
	if err := os.WriteFile(file+".new", body, 0o600); err != nil {
		return nil, err
	}
	return convertExit(&exit), os.Rename(file+".new", file)
}

// awaitEmpty returns when no process is left in a group that was killed.
func awaitEmpty(ctx context.Context, group *cgroup.Group) error {
	for delay := 200 * time.Microsecond; ; delay = min(2*delay, 50*time.Millisecond) {
		pids, err := group.Procs()
		if err != nil || len(pids) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v do not end: %w", pids, ctx.Err())
		case <-time.After(delay):
		}
	}
}
