package memory

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/volume"
)

func open(t *testing.T, root string) *Driver {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	d, err := New(root, 0, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for name := range d.all {
			if err := d.erase(name); err != nil {
				t.Error(err)
			}
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

func TestOptionsReachTheFilesystem(t *testing.T) {
	d := open(t, t.TempDir())
	v := create(t, d, "v", map[string]string{"size": "1m", "mode": "2750", "uid": "1000", "gid": "100"})
	var st unix.Stat_t
	if err := unix.Stat(v.Mountpoint, &st); err != nil || st.Mode&0o7777 != 0o2750 || st.Uid != 1000 || st.Gid != 100 {
		t.Errorf("mode %o of %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
	}
	file := filepath.Join(v.Mountpoint, "file")
	if err := os.WriteFile(file, make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("2 MiB in a volume of one: %v", err)
	}
	if usage, err := d.Usage(t.Context(), "v"); err != nil || usage.Size != 1<<20 {
		t.Errorf("a full volume has %d bytes, %v", usage.Size, err)
	}
	for _, c := range []struct {
		size int64
		want error
	}{{4 << 20, nil}, {1 << 19, errdefs.ErrFailedPrecondition}, {-1, errdefs.ErrInvalidArgument}, {0, nil}} {
		if _, err := d.Resize(t.Context(), "v", c.size); !errors.Is(err, c.want) {
			t.Errorf("Resize to %d: %v, want %v", c.size, err, c.want)
		}
	}
	if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); err != nil {
		t.Errorf("without a limit: %v", err)
	}
	if usage, err := d.Usage(t.Context(), "v"); err != nil || usage.Size != 8<<20 {
		t.Errorf("it has %d bytes, %v", usage.Size, err)
	}
}

func TestAWrongOptionIsNamed(t *testing.T) {
	d := open(t, t.TempDir())
	for option, value := range map[string]string{"size": "0", "mode": "9", "uid": "-1", "gid": "root", "type": "ext4"} {
		_, err := d.Create(t.Context(), "v", map[string]string{option: value}, nil)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `volume option "`+option+`"`) {
			t.Errorf("%s=%s: %v", option, value, err)
		}
	}
	if _, err := New(t.TempDir(), -1, hclog.NewNullLogger()); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a negative size: %v", err)
	}
}

// TestWhatAVolumeOutlives: the driver's process, but not the host.
func TestWhatAVolumeOutlives(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	v := create(t, d, "v", map[string]string{"size": "1m", "mode": "700"})
	if _, err := d.Resize(t.Context(), "v", 3<<20); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(v.Mountpoint, "file")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, root)
	if body, err := os.ReadFile(file); err != nil || string(body) != "hello" {
		t.Errorf("after SIGKILL of the driver: %q, %v", body, err)
	}
	if err := unix.Unmount(v.Mountpoint, 0); err != nil {
		t.Fatal(err)
	}
	again := open(t, root) // as after a reboot
	if got, err := again.Get(t.Context(), "v"); err != nil || got.Options["mode"] != "700" {
		t.Errorf("after a reboot: %+v, %v", got, err)
	}
	var st unix.Statfs_t
	info, err := os.Stat(v.Mountpoint)
	if err = errors.Join(err, unix.Statfs(v.Mountpoint, &st)); err != nil || info.Mode().Perm() != 0o700 || int64(st.Blocks)*st.Bsize != 3<<20 {
		t.Errorf("after a reboot: %v, %d bytes, %v", info, int64(st.Blocks)*st.Bsize, err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file: %v", err)
	}
	// It is mounted again when somebody wants it, too.
	if err := unix.Unmount(v.Mountpoint, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Mount(t.Context(), "v", "c"); err != nil {
		t.Fatal(err)
	}
	if there, err := mounted(again.dir("v"), v.Mountpoint); err != nil || !there {
		t.Errorf("mounted: %v, %v", there, err)
	}
}

func TestWhatACrashLeftIsGone(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	for _, name := range []string{"made", "removed"} {
		v := create(t, d, name, nil)
		if err := errors.Join(os.WriteFile(filepath.Join(v.Mountpoint, "file"), nil, 0o600), os.Remove(filepath.Join(d.dir(name), recordName))); err != nil {
			t.Fatal(err)
		}
	}
	open(t, root)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(root)) {
		t.Errorf("mounts are left: %v", err)
	}
	if left, err := os.ReadDir(d.dir("")); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
