package native_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
)

// TestAnOccupiedCgroupIsNotTaken: a container may not be made where somebody
// else's processes are, and the failed creation does them no harm.
func TestAnOccupiedCgroupIsNotTaken(t *testing.T) {
	t.Parallel()
	b := newBox(t, "echo never")
	group, err := cgroup.Create(b.spec.Linux.CgroupsPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	victim := exec.CommandContext(t.Context(), "busybox", "sleep", "600")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	pid := victim.Process.Pid
	t.Cleanup(func() {
		_ = victim.Process.Kill() // the driver reaps it
		waitFor(t, "the cgroup's end", func() bool { return group.Delete(context.Background()) == nil })
	})
	files := group.JoinPaths()
	if group.Version() == 2 {
		files = []string{filepath.Join("/sys/fs/cgroup", b.spec.Linux.CgroupsPath, "cgroup.procs")}
	}
	for _, file := range files {
		if err := os.WriteFile(file, []byte(itoa(pid)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.fails("not empty"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("%v", err)
	}
	if pids, err := group.Procs(); err != nil || len(pids) != 1 || pids[0] != pid {
		t.Errorf("in the cgroup are %v, %v; want %d", pids, err, pid)
	}
}
