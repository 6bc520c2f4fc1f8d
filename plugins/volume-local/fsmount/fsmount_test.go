package fsmount

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// TestMain is the mounting process, too; one of the type "silent" waits as mounts
// do for a server that does not answer.
func TestMain(m *testing.M) {
	run(func(source, target, kind, options string) error {
		if kind == "silent" {
			if err := os.WriteFile(source, nil, 0o600); err != nil {
				return err
			}
			time.Sleep(time.Hour)
		}
		return mount.Mount(source, target, kind, options)
	})
	os.Exit(m.Run())
}

func mounts(t *testing.T, at string) []*mountinfo.Info {
	t.Helper()
	list, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(at))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestMountAndUnmount(t *testing.T) {
	target := t.TempDir()
	t.Cleanup(func() { _ = Unmount(target) })
	if err := Mount(t.Context(), Request{Source: "x", Target: target, Type: "tmpfs", Options: "size=64k,nodev,mode=0711"}); err != nil {
		t.Fatal(err)
	}
	list := mounts(t, target)
	if len(list) != 1 || list[0].FSType != "tmpfs" || !strings.Contains(list[0].Options, "nodev") || !strings.Contains(list[0].VFSOptions, "size=64k") {
		t.Fatalf("mounted is %+v", list)
	}
	if err := Unmount(target); err != nil || len(mounts(t, target)) != 0 {
		t.Fatalf("unmounting: %v", err)
	}
	if err := Unmount(target); err != nil {
		t.Fatalf("unmounting what is not mounted: %v", err)
	}
}

func TestAReadOnlyBindOfADirectory(t *testing.T) {
	source, target := t.TempDir(), t.TempDir()
	t.Cleanup(func() { _ = Unmount(target) })
	if err := Mount(t.Context(), Request{Source: source, Target: target, Type: "none", Options: "bind,ro"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(target, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Fatalf("writing: %v", err)
	}
}

func TestErrorsAreTheKernels(t *testing.T) {
	target := t.TempDir()
	err := Mount(t.Context(), Request{Source: "/nosuch", Target: target, Type: "ext4", Options: "acl"})
	if want := "mount /nosuch:" + target + ", data: acl: no such file or directory"; !errors.Is(err, unix.ENOENT) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := Mount(t.Context(), Request{Source: "x", Target: target, Type: "nosuchfs"}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an unknown type: %v", err)
	}
}

// A server that never answers: the caller goes on when its time is over, and
// nobody waits in the kernel any more.
func TestASilentServerIsGivenUp(t *testing.T) {
	dir := t.TempDir()
	began := filepath.Join(dir, "began")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Mount(ctx, Request{Source: began, Target: dir, Type: "silent"}) }()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(began); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the mounting process does not begin")
		}
	}
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the caller waits on")
	}
	if out, err := exec.CommandContext(t.Context(), "pgrep", "-P", pid(), "-f", processName).Output(); err == nil {
		t.Errorf("a mounting process is left: %s", out)
	}
}

func pid() string {
	link, _ := os.Readlink("/proc/self")
	return link
}
