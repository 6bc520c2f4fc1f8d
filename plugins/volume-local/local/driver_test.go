package local

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/volume-local/fsmount"
	"github.com/davit-engine/davit/sdk/volume"
)

func TestMain(m *testing.M) {
	fsmount.Main()
	busyDriver()
	os.Exit(m.Run())
}

// open opens a driver whose mounts go with the test.
func open(t *testing.T, root string) *Driver {
	t.Helper()
	d, err := New(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmountBelow(root); err != nil {
			t.Error(err)
		}
	})
	return d
}

func create(t *testing.T, d *Driver, name string, options map[string]string) volume.Volume {
	t.Helper()
	v, err := d.Create(t.Context(), name, options, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mountFor(t *testing.T, d *Driver, name, consumer string) string {
	t.Helper()
	m, err := d.Mount(t.Context(), name, consumer)
	if err != nil {
		t.Fatal(err)
	}
	if m.Type != "bind" || !slices.Equal(m.Options, []string{"rbind"}) {
		t.Fatalf("the mount is %+v", m)
	}
	return m.Source
}

func unmountFor(t *testing.T, d *Driver, name, consumer string) {
	t.Helper()
	if err := d.Unmount(t.Context(), name, consumer); err != nil {
		t.Fatal(err)
	}
}

// places says where something is mounted below a driver's root.
func places(t *testing.T, d *Driver) string {
	t.Helper()
	list, err := mountsBelow(d.root)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

func TestCreateIsIdempotent(t *testing.T) {
	d := open(t, t.TempDir())
	options := map[string]string{"type": "tmpfs", "device": "x", "o": "size=1m"}
	v, err := d.Create(t.Context(), "data", options, map[string]string{"a": "b"})
	if err != nil || !v.Fresh {
		t.Fatalf("%+v, %v", v, err)
	}
	for _, same := range []map[string]string{nil, options} {
		if v, err := d.Create(t.Context(), "data", same, nil); err != nil || v.Fresh || v.Labels["a"] != "b" {
			t.Errorf("again with %v: %+v, %v", same, v, err)
		}
	}
	if _, err := d.Create(t.Context(), "data", map[string]string{"type": "tmpfs", "device": "y"}, nil); !errdefs.IsAlreadyExists(err) {
		t.Errorf("with other options: %v", err)
	}
	for _, name := range []string{"", "x", "a/b", "..", "-a", "a b"} {
		if _, err := d.Create(t.Context(), name, nil, nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("a volume named %q: %v", name, err)
		}
	}
}

// What is written survives the process; what a creation or removal left undone
// is finished; data without a record is kept.
func TestOpeningAgain(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	create(t, d, "kept", map[string]string{"type": "tmpfs", "device": "x"})
	lost := create(t, d, "lost", nil)
	create(t, d, "damaged", nil)
	if err := errors.Join(
		os.WriteFile(filepath.Join(lost.Mountpoint, "file"), []byte("x"), 0o600), os.Remove(filepath.Join(d.dir("lost"), recordName)),
		os.WriteFile(filepath.Join(d.dir("damaged"), recordName), []byte("{"), 0o600),
		os.MkdirAll(d.data("cut-off"), 0o755), os.WriteFile(filepath.Join(d.dir("cut-off"), recordName+".new"), []byte("{"), 0o600),
		os.MkdirAll(filepath.Join(d.trash(), "1", "volume", "_data", "deep"), 0o755),
	); err != nil {
		t.Fatal(err)
	}
	d = open(t, root)
	if v, err := d.Get(t.Context(), "kept"); err != nil || v.Options["type"] != "tmpfs" || v.Created.IsZero() {
		t.Errorf("kept: %+v, %v", v, err)
	}
	if v, err := d.Get(t.Context(), "lost"); err != nil || v.Created.IsZero() {
		t.Errorf("lost: %+v, %v", v, err)
	}
	if body, err := os.ReadFile(filepath.Join(lost.Mountpoint, "file")); string(body) != "x" {
		t.Errorf("the lost volume's data: %q, %v", body, err)
	}
	if _, err := d.Get(t.Context(), "damaged"); err == nil || !strings.Contains(err.Error(), "record of volume damaged") {
		t.Errorf("damaged: %v", err)
	}
	if err := d.Remove(t.Context(), "damaged"); err != nil {
		t.Errorf("removing the damaged one: %v", err)
	}
	if _, err := d.Get(t.Context(), "cut-off"); !errdefs.IsNotFound(err) {
		t.Errorf("cut off: %v", err)
	}
	for dir, want := range map[string]int{d.dir(""): 2, d.trash(): 0} {
		if found, err := os.ReadDir(dir); err != nil || len(found) != want {
			t.Errorf("%s holds %v, %v", dir, found, err)
		}
	}
}

func TestRemoveRefusesWhileUsed(t *testing.T) {
	d := open(t, t.TempDir())
	create(t, d, "data", nil)
	mountFor(t, d, "data", "one")
	if err := d.Remove(t.Context(), "data"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "one") {
		t.Errorf("got %v", err)
	}
	unmountFor(t, d, "data", "one")
	if err := d.Remove(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context(), "data"); !errdefs.IsNotFound(err) {
		t.Errorf("again: %v", err)
	}
}

// Somebody removed the data, or all, with rm -r.
func TestDataThatIsGone(t *testing.T) {
	d := open(t, t.TempDir())
	for name, dir := range map[string]func(string) string{"data": d.data, "all": d.dir} {
		create(t, d, name, nil)
		if err := os.RemoveAll(dir(name)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Mount(t.Context(), name, "c"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "is gone") {
			t.Errorf("mounting %s: %v", name, err)
		}
		if err := d.Remove(t.Context(), name); err != nil {
			t.Errorf("removing %s: %v", name, err)
		}
	}
}

func TestMountedOnFirstUseUntilTheLast(t *testing.T) {
	d := open(t, t.TempDir())
	create(t, d, "memory", map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=1770"})
	if at := places(t, d); at != "" {
		t.Fatalf("mounted before it is used: %s", at)
	}
	dir := mountFor(t, d, "memory", "one")
	if err := os.WriteFile(filepath.Join(dir, "shared"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mountFor(t, d, "memory", "two")
	mountFor(t, d, "memory", "two") // asked twice is claimed once
	if at := places(t, d); at != dir {
		t.Fatalf("mounted at %q", at)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Blocks*uint64(fs.Bsize) != 1<<20 {
		t.Errorf("%d blocks of %d, %v", fs.Blocks, fs.Bsize, err)
	}
	unmountFor(t, d, "memory", "one")
	unmountFor(t, d, "memory", "one")
	if _, err := os.Stat(filepath.Join(dir, "shared")); err != nil {
		t.Error("the second consumer lost the volume:", err)
	}
	unmountFor(t, d, "memory", "two")
	if at := places(t, d); at != "" {
		t.Errorf("left mounted: %s", at)
	}
	if usage, err := d.Usage(t.Context(), "memory"); err != nil || usage.Size != -1 {
		t.Errorf("usage %+v, %v", usage, err)
	}
}

// The driver's process ends while a volume is mounted. Until the engine says who
// uses it, nothing is unmounted; then, what nobody uses.
func TestMountsAndClaimsAfterARestart(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	for _, name := range []string{"used", "unused"} {
		create(t, d, name, map[string]string{"type": "tmpfs", "device": "tmpfs"})
		mountFor(t, d, name, "one")
	}
	d = open(t, root)
	mountFor(t, d, "used", "two")
	unmountFor(t, d, "used", "two")
	if at := places(t, d); at != d.data("used")+" "+d.data("unused") {
		t.Fatalf("mounted at %q", at)
	}
	if err := d.Reconcile(t.Context(), []volume.Claim{{Volume: "used", Consumer: "one"}, {Volume: "nosuch", Consumer: "one"}}); err != nil {
		t.Fatal(err)
	}
	if at := places(t, d); at != d.data("used") {
		t.Fatalf("mounted at %q", at)
	}
	if err := d.Remove(t.Context(), "used"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removing what is used: %v", err)
	}
	unmountFor(t, d, "used", "one")
	if at := places(t, d); at != "" {
		t.Errorf("left mounted: %s", at)
	}
}

// Removing a volume never removes what is mounted in it.
func TestRemoveLeavesTheDevicesData(t *testing.T) {
	root, device := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(device, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := open(t, root)
	create(t, d, "bound", map[string]string{"type": "none", "o": "bind", "device": device})
	dir := mountFor(t, d, "bound", "one")
	if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil {
		t.Fatal(err)
	}
	// Left mounted by a process that was killed, and then without a claim.
	d = open(t, root)
	if err := d.Remove(t.Context(), "bound"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(device, "precious")); err != nil {
		t.Error(err)
	}
	// In the trash, too.
	doomed := filepath.Join(d.trash(), "1")
	if err := errors.Join(os.Mkdir(doomed, 0o700), fsmount.Mount(t.Context(), fsmount.Request{Source: device, Target: doomed, Type: "none", Options: "bind"})); err != nil {
		t.Fatal(err)
	}
	d = open(t, root)
	if _, err := os.Stat(filepath.Join(device, "precious")); err != nil || places(t, d) != "" {
		t.Error(err, places(t, d))
	}
}

func TestAFilesystemOnALoopDevice(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	run(t, "truncate", "-s", "8M", disk)
	run(t, "mkfs.ext4", "-q", disk)
	device := strings.TrimSpace(run(t, "losetup", "--find", "--show", disk))
	t.Cleanup(func() { run(t, "losetup", "--detach", device) })
	d := open(t, filepath.Join(dir, "root"))
	create(t, d, "disk", map[string]string{"type": "ext4", "device": device, "o": "noatime"})
	if err := os.WriteFile(filepath.Join(mountFor(t, d, "disk", "one"), "kept"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	unmountFor(t, d, "disk", "one")
	if body, err := os.ReadFile(filepath.Join(mountFor(t, d, "disk", "two"), "kept")); string(body) != "x" {
		t.Errorf("%q, %v", body, err)
	}
	unmountFor(t, d, "disk", "two")
	if at := places(t, d); at != "" {
		t.Errorf("left mounted: %s", at)
	}
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestMountErrorsAreDockers(t *testing.T) {
	d := open(t, t.TempDir())
	create(t, d, "absent", map[string]string{"type": "none", "o": "bind", "device": "/no/such"})
	_, err := d.Mount(t.Context(), "absent", "one")
	want := fmt.Sprintf("failed to mount local volume: mount /no/such:%s, flags: 0x1000: no such file or directory", d.data("absent"))
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	create(t, d, "secret", map[string]string{"type": "nosuchfs", "device": "//127.0.0.1/share", "o": "user=u,password=hush"})
	_, err = d.Mount(t.Context(), "secret", "one")
	if err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "data: user=u,password=********: no such device") {
		t.Errorf("got %v", err)
	}
	if err := d.Remove(t.Context(), "absent"); err != nil {
		t.Errorf("a volume that was not mounted is not used: %v", err)
	}
}

func TestUsage(t *testing.T) {
	d := open(t, t.TempDir())
	v := create(t, d, "data", nil)
	in := func(name string) string { return filepath.Join(v.Mountpoint, name) }
	if err := errors.Join(
		os.MkdirAll(in("dir/deep"), 0o755), os.WriteFile(in("a"), make([]byte, 1000), 0o600), os.WriteFile(in("dir/deep/b"), make([]byte, 234), 0o600),
		os.Link(in("a"), in("dir/a")), os.Symlink("/etc", in("l")),
	); err != nil {
		t.Fatal(err)
	}
	if usage, err := d.Usage(t.Context(), "data"); err != nil || usage.Size != 1234+int64(len("/etc")) {
		t.Errorf("%+v, %v", usage, err)
	}
	if _, err := d.Usage(t.Context(), "nosuch"); !errdefs.IsNotFound(err) {
		t.Errorf("of none: %v", err)
	}
}
