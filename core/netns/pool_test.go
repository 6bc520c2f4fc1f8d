package netns

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func mountsBelow(t *testing.T, dir string) int {
	t.Helper()
	body, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(body), " "+dir+"/")
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestPoolGivesAndTakesBack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	dir := t.TempDir()
	pool, err := NewPool(dir, 2, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	ctx := context.Background()
	seen := map[uint64]bool{}
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		path, err := pool.Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		ino := inode(t, path)
		if seen[ino] || ino == inode(t, "/proc/self/ns/net") {
			t.Errorf("namespace %s of %s is not its own", path, id)
		}
		seen[ino] = true
		again, err := pool.Get(ctx, id)
		if err != nil || again != path || inode(t, again) != ino {
			t.Errorf("asking again for %s: %s, %v", id, again, err)
		}
	}
	pool.Put("a")
	pool.Put("a")
	pool.Sweep([]string{"c"})
	pool.Close()
	if n := mountsBelow(t, dir); n != 1 {
		t.Errorf("%d namespaces left, want the one of c", n)
	}
	// The next engine finds it again.
	pool, err = NewPool(dir, 1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	path, err := pool.Get(ctx, "c")
	if err != nil || !seen[inode(t, path)] {
		t.Errorf("namespace of c after a restart: %s, %v", path, err)
	}
	pool.Sweep(nil)
	pool.Close()
	if n := mountsBelow(t, dir); n != 0 {
		t.Errorf("%d namespaces left", n)
	}
}

func TestANamespaceOfAProcessIsAdopted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	dir := t.TempDir()
	p, err := NewPool(dir, 1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	defer p.Close()
	child := exec.CommandContext(t.Context(), "sleep", "60")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill() }()
	own := inode(t, fmt.Sprintf("/proc/%d/ns/net", child.Process.Pid))
	for range 2 { // asking again is the same
		path, err := p.Adopt("c1", child.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if got := inode(t, path); got != own {
			t.Errorf("adopted namespace %d, want %d", got, own)
		}
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	path, err := p.Get(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if got := inode(t, path); got != own {
		t.Errorf("after the process's end it is %d, want %d", got, own)
	}
	if _, err := p.Adopt("c2", child.Process.Pid); err == nil {
		t.Error("a process that has ended had a namespace to adopt")
	}
	p.Put("c1")
}
