package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/volume-local/fsmount"
)

func TestClone(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	v := create(t, d, "source", nil)
	in := func(name string) string { return filepath.Join(v.Mountpoint, name) }
	if err := errors.Join(
		os.MkdirAll(in("dir"), 0o751), os.WriteFile(in("dir/file"), []byte("content"), 0o640), os.Chown(in("dir/file"), 33, 34),
		os.Link(in("dir/file"), in("same")), unix.Setxattr(in("same"), "user.davit", []byte("v"), 0), os.Chown(v.Mountpoint, 5, 6),
	); err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"a": "b"}
	made, err := d.Clone(t.Context(), "source", "copy", labels)
	if err != nil || !made.Fresh || made.Labels["a"] != "b" || made.Mountpoint != d.data("copy") {
		t.Fatalf("%+v, %v", made, err)
	}
	var file, same, top unix.Stat_t
	if err := errors.Join(unix.Stat(d.data("copy")+"/dir/file", &file), unix.Stat(d.data("copy")+"/same", &same), unix.Stat(d.data("copy"), &top)); err != nil {
		t.Fatal(err)
	}
	if file.Ino != same.Ino || file.Uid != 33 || file.Gid != 34 || file.Mode&0o777 != 0o640 || top.Uid != 5 {
		t.Errorf("the copy is %+v in %+v", file, top)
	}
	if again, err := d.Clone(t.Context(), "source", "copy", labels); err != nil || again.Fresh {
		t.Errorf("again: %+v, %v", again, err)
	}
	create(t, d, "other", nil)
	if _, err := d.Clone(t.Context(), "source", "other", nil); !errdefs.IsAlreadyExists(err) {
		t.Errorf("onto another one: %v", err)
	}
	if _, err := d.Clone(t.Context(), "nosuch", "x2", nil); !errdefs.IsNotFound(err) {
		t.Errorf("of none: %v", err)
	}
	create(t, d, "memory", map[string]string{"type": "tmpfs", "device": "x"})
	if _, err := d.Clone(t.Context(), "memory", "x2", nil); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), `of type "tmpfs"`) {
		t.Errorf("of a mounted one: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Clone(cancelled, "source", "x2", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left, err := os.ReadDir(d.trash()); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := d.Remove(t.Context(), "source"); err != nil {
		t.Error(err)
	}
	if v, err := open(t, root).Get(t.Context(), "copy"); err != nil || v.Labels["a"] != "b" {
		t.Errorf("after a restart: %+v, %v", v, err)
	}
}

// TestAClonesDataIsShared where the filesystem can share it: a clone takes next to
// nothing, and goes its own way.
func TestAClonesDataIsShared(t *testing.T) {
	for _, kind := range []string{"btrfs", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			root := filesystem(t, kind, "loop")
			d := open(t, root)
			const size = 32 << 20
			v := create(t, d, "source", nil)
			data := make([]byte, size)
			_, _ = rand.Read(data)
			if err := os.WriteFile(v.Mountpoint+"/file", data, 0o600); err != nil {
				t.Fatal(err)
			}
			before := used(t, root)
			clone, err := d.Clone(t.Context(), "source", "copy", nil)
			if err != nil {
				t.Fatal(err)
			}
			if took := used(t, root) - before; took > size/8 {
				t.Errorf("the clone of %d bytes takes %d", size, took)
			}
			if err := os.WriteFile(v.Mountpoint+"/file", []byte("other"), 0o600); err != nil {
				t.Fatal(err)
			}
			if body, err := os.ReadFile(clone.Mountpoint + "/file"); !bytes.Equal(body, data) {
				t.Errorf("the clone changed with its source: %d bytes, %v", len(body), err)
			}
		})
	}
}

// used is how many bytes of a filesystem are taken.
func used(t *testing.T, root string) int64 {
	t.Helper()
	unix.Sync()
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		t.Fatal(err)
	}
	return int64(fs.Blocks-fs.Bfree) * fs.Bsize
}

func TestRename(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	v, err := d.Create(t.Context(), "old", map[string]string{"type": "tmpfs", "device": "x"}, map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	create(t, d, "other", nil)
	mountFor(t, d, "old", "one")
	if _, err := d.Rename(t.Context(), "old", "new"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("in use: %v", err)
	}
	unmountFor(t, d, "old", "one")
	for newName, is := range map[string]func(error) bool{"other": errdefs.IsAlreadyExists, "a/b": errdefs.IsInvalidArgument, "old": errdefs.IsAlreadyExists} {
		if _, err := d.Rename(t.Context(), "old", newName); !is(err) {
			t.Errorf("to %s: %v", newName, err)
		}
	}
	for range 2 { // once more is the same
		renamed, err := d.Rename(t.Context(), "old", "new")
		if err != nil || renamed.Name != "new" || renamed.Labels["a"] != "b" || renamed.Mountpoint != d.data("new") || !renamed.Created.Equal(v.Created) {
			t.Fatalf("%+v, %v", renamed, err)
		}
	}
	if _, err := d.Rename(t.Context(), "nosuch", "newer"); !errdefs.IsNotFound(err) {
		t.Errorf("of none: %v", err)
	}
	mountFor(t, d, "new", "one")
	unmountFor(t, d, "new", "one")
	// Cut off between the directory's new name and the record's.
	if err := os.Rename(d.dir("new"), d.dir("newer")); err != nil {
		t.Fatal(err)
	}
	d = open(t, root)
	if v, err := d.Get(t.Context(), "newer"); err != nil || v.Name != "newer" || v.Labels["a"] != "b" {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestWithoutQuotasThereAreNoLimits(t *testing.T) {
	root := t.TempDir()
	if err := fsmount.Mount(t.Context(), fsmount.Request{Source: "tmpfs", Target: root, Type: "tmpfs"}); err != nil {
		t.Fatal(err)
	}
	d := open(t, root)
	if _, err := d.Create(t.Context(), "data", map[string]string{"size": "1m"}, nil); !errdefs.IsInvalidArgument(err) || err.Error() != "quota size requested but no quota support" {
		t.Errorf("got %v", err)
	}
	create(t, d, "data", nil)
	if _, err := d.Resize(t.Context(), "data", 1<<20); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v", err)
	}
	// One that had a limit before its filesystem was mounted without quotas.
	if err := write(d.dir("data"), record{Name: "data", Options: map[string]string{"size": "1m"}}); err != nil {
		t.Fatal(err)
	}
	d, err := New(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Mount(t.Context(), "data", "one"); !errdefs.IsFailedPrecondition(err) || err.Error() != "size quota requested for volume but no quota support" {
		t.Errorf("got %v", err)
	}
}

// makers make filesystems in a file, with project quotas where they have them.
var makers = map[string][]string{
	"ext4":  {"mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"},
	"xfs":   {"mkfs.xfs", "-q", "-m", "reflink=1"},
	"btrfs": {"mkfs.btrfs", "-q"},
}

// filesystem mounts a new, small filesystem.
func filesystem(t *testing.T, kind, options string) string {
	t.Helper()
	dir := t.TempDir()
	disk, root := filepath.Join(dir, "disk"), filepath.Join(dir, "root")
	run(t, "truncate", "-s", "320M", disk)
	run(t, append(slices.Clone(makers[kind]), disk)...)
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	_ = exec.Command("modprobe", "quota_v2").Run()
	if out, err := exec.Command("mount", "-t", kind, "-o", options, disk, root).CombinedOutput(); err != nil {
		t.Skipf("the kernel mounts no %s with %s: %s", kind, options, out)
	}
	t.Cleanup(func() {
		if err := fsmount.Unmount(root); err != nil {
			t.Error(err)
		}
	})
	return root
}

// fillUp writes a file without the capability that ignores quotas, as containers
// do, and answers how much went in.
func fillUp(t *testing.T, path string) int64 {
	t.Helper()
	type result struct {
		size int64
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends without the capability
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		err := unix.Capget(&head, &caps[0])
		caps[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		caps[0].Permitted &^= 1 << unix.CAP_SYS_RESOURCE
		if err == nil {
			err = unix.Capset(&head, &caps[0])
		}
		if err != nil {
			done <- result{err: err}
			return
		}
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o600)
		var size int64
		part := make([]byte, 64<<10)
		for err == nil && size < 32<<20 {
			var n int
			n, err = unix.Write(fd, part)
			size += int64(max(n, 0))
		}
		_ = unix.Close(fd)
		if errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.ENOSPC) {
			err = nil
		}
		done <- result{size, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.size
}

func TestLimitsOfVolumes(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) { limitsOfVolumes(t, filesystem(t, kind, "loop,prjquota")) })
	}
}

func limitsOfVolumes(t *testing.T, root string) {
	t.Helper()
	d := open(t, root)
	if d.quota == nil {
		t.Fatal("the driver found no quotas")
	}
	v := create(t, d, "small", map[string]string{"size": "2m"})
	create(t, d, "free", nil)
	within := func(dir string, least, most int64) {
		t.Helper()
		if size := fillUp(t, filepath.Join(dir, "file")); size < least || size > most {
			t.Errorf("%s took %d bytes, want %d to %d", dir, size, least, most)
		}
	}
	within(mountFor(t, d, "small", "one"), 1<<20, 2<<20)
	unmountFor(t, d, "small", "one")
	within(d.data("free"), 32<<20, 32<<20)
	if err := os.Remove(d.data("free") + "/file"); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(v.Mountpoint, &fs); err != nil || fs.Blocks*uint64(fs.Bsize) != 2<<20 {
		t.Errorf("df shows %d blocks of %d, %v", fs.Blocks, fs.Bsize, err)
	}
	resized, err := d.Resize(t.Context(), "small", 5<<20)
	if err != nil || resized.Options["size"] != "5242880" {
		t.Fatalf("%+v, %v", resized, err)
	}
	within(v.Mountpoint, 4<<20, 5<<20)
	// A clone has a limit of its own, the same one.
	if err := os.Truncate(v.Mountpoint+"/file", 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Clone(t.Context(), "small", "copy", nil); err != nil {
		t.Fatal(err)
	}
	if limit, used, err := d.quota.Size(d.data("copy")); err != nil || limit != 5<<20 || used < 1<<20 || used > 2<<20 {
		t.Errorf("the clone has %d of %d, %v", used, limit, err)
	}
	within(d.data("copy"), 4<<20, 5<<20)
	within(v.Mountpoint, 4<<20, 5<<20)
	// It is the same after a rename and a restart, and can be taken away.
	if _, err := d.Rename(t.Context(), "copy", "renamed"); err != nil {
		t.Fatal(err)
	}
	d = open(t, d.root)
	create(t, d, "third", map[string]string{"size": "1m"})
	within(d.data("third"), 1<<19, 1<<20)
	within(d.data("renamed"), 4<<20, 5<<20)
	if resized, err := d.Resize(t.Context(), "renamed", 0); err != nil || resized.Options["size"] != "" {
		t.Errorf("%+v, %v", resized, err)
	}
	within(d.data("renamed"), 32<<20, 32<<20)
	for _, name := range []string{"small", "renamed", "third"} {
		if err := d.Remove(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}
