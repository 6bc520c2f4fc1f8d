package rootfs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/mount"
)

// names are the entries of a directory, in order.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]string, len(entries))
	for i, entry := range entries {
		list[i] = entry.Name()
	}
	sort.Strings(list)
	return strings.Join(list, " ")
}

func TestOnlyAnEmptyVolumeIsFilled(t *testing.T) {
	mounts, lower, _ := overlay(t)
	if err := os.Mkdir(lower+"/data", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, lower+"/data/file", "image")
	write(t, lower+"/a-file", "image")
	volume := t.TempDir()
	write(t, volume+"/own", "volume")
	if err := CopyUp(t.Context(), mounts, "/data", volume); err != nil || names(t, volume) != "own" {
		t.Errorf("a volume with data: %v, %s", err, names(t, volume))
	}
	empty := t.TempDir()
	for _, name := range []string{"/nosuch", "/a-file", "/data/file"} {
		if err := CopyUp(t.Context(), mounts, name, empty); err != nil || names(t, empty) != "" {
			t.Errorf("%s: %v, %s", name, err, names(t, empty))
		}
	}
}

// Linked, special and attributed files arrive as the image has them.
func TestCopyUpIsExact(t *testing.T) {
	mounts, lower, _ := overlay(t)
	in := func(name string) string { return filepath.Join(lower, "data", name) }
	times := []unix.Timespec{{Sec: 1e9, Nsec: 1}, {Sec: 1e9 + 5, Nsec: 123456789}}
	if err := errors.Join(
		os.MkdirAll(in("sub"), 0o755), os.WriteFile(in("sub/file"), []byte("x"), 0o600), os.Link(in("sub/file"), in("same")),
		os.Symlink("/etc", in("out")), os.Lchown(in("out"), 5, 6), unix.Mkfifo(in("fifo"), 0o600),
		unix.Setxattr(in("sub/file"), "user.davit", []byte("v"), 0), unix.Setxattr(in(""), "user.davit", []byte("root"), 0),
		os.Chown(in(""), 7, 8), unix.Chmod(in(""), 0o1770),
		unix.UtimesNanoAt(unix.AT_FDCWD, in("sub/file"), times, 0), unix.UtimesNanoAt(unix.AT_FDCWD, in(""), times, 0),
	); err != nil {
		t.Fatal(err)
	}
	volume := t.TempDir()
	if err := CopyUp(t.Context(), mounts, "/data", volume); err != nil {
		t.Fatal(err)
	}
	if got := names(t, volume); got != "fifo out same sub" {
		t.Errorf("the volume has %s", got)
	}
	var file, same, root, link unix.Stat_t
	if err := errors.Join(unix.Stat(volume+"/sub/file", &file), unix.Stat(volume+"/same", &same), unix.Stat(volume, &root), unix.Lstat(volume+"/out", &link)); err != nil {
		t.Fatal(err)
	}
	if file.Ino != same.Ino || file.Mtim != times[1] {
		t.Errorf("the file is %+v, its other name %+v", file, same)
	}
	if root.Uid != 7 || root.Gid != 8 || root.Mode != unix.S_IFDIR|0o1770 || root.Mtim != times[1] {
		t.Errorf("the volume is %+v", root)
	}
	if link.Uid != 5 || link.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("the link is %+v", link)
	}
	for path, want := range map[string]string{volume + "/sub/file": "v", volume: "root"} {
		value := make([]byte, 10)
		if n, err := unix.Getxattr(path, "user.davit", value); err != nil || string(value[:n]) != want {
			t.Errorf("attribute of %s: %q, %v", path, value, err)
		}
	}
}

// What a container puts into the volume while it is being filled stays.
func TestCopyUpReplacesNothing(t *testing.T) {
	volume := t.TempDir()
	if err := os.MkdirAll(filepath.Join(volume, filled, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(volume, filled, "file"), "image")
	write(t, filepath.Join(volume, filled, "dir/file"), "image")
	write(t, filepath.Join(volume, filled, filling), "an image's own")
	write(t, volume+"/file", "container")
	if err := FinishCopyUp(volume); err != nil {
		t.Fatal(err)
	}
	if body, err := os.ReadFile(volume + "/file"); string(body) != "container" || names(t, volume) != "dir file" {
		t.Errorf("%s, file is %q, %v", names(t, volume), body, err)
	}
}

const killedVolume = "ROOTFS_TEST_VOLUME"

// TestACopyUpThatIsKilled kills a process at any moment of a copy-up. The volume
// is full or can be filled again; it is never found half filled, and a container's
// own file is never lost.
func TestACopyUpThatIsKilled(t *testing.T) {
	const files = 100
	if volume := os.Getenv(killedVolume); volume != "" {
		mounts := []mount.Mount{{Type: "bind", Source: os.Getenv("ROOTFS_TEST_IMAGE"), Options: []string{"rbind"}}}
		fmt.Println(CopyUp(context.Background(), mounts, "/data", volume))
		return
	}
	image := t.TempDir()
	if err := os.Mkdir(image+"/data", 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range files {
		write(t, fmt.Sprintf("%s/data/%03d", image, i), "content")
	}
	mounts := []mount.Mount{{Type: "bind", Source: image, Options: []string{"rbind"}}}
	left := map[string]int{}
	for range 16 {
		volume := t.TempDir()
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestACopyUpThatIsKilled$")
		cmd.Env = append(os.Environ(), killedVolume+"="+volume, "ROOTFS_TEST_IMAGE="+image)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Some time after the copy has begun.
		for deadline := time.Now().Add(30 * time.Second); names(t, volume) == ""; time.Sleep(200 * time.Microsecond) {
			if time.Now().After(deadline) {
				t.Fatal("the copy does not begin")
			}
		}
		time.Sleep(time.Duration(rand.IntN(40000)) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		switch found := names(t, volume); {
		case strings.Contains(found, filling):
			left["begun"]++
		case strings.Contains(found, filled):
			left["complete"]++
		default:
			left["done"]++
		}
		if err := FinishCopyUp(volume); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(volume)
		if err != nil || len(entries) != 0 && len(entries) != files || CopyUpLeft(volume) {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		if err := CopyUp(t.Context(), mounts, "/data", volume); err != nil {
			t.Fatal(err)
		}
		if entries, err = os.ReadDir(volume); err != nil || len(entries) != files {
			t.Fatalf("%d entries after filling again, %v", len(entries), err)
		}
	}
	t.Logf("what was found: %v", left)
	if left["begun"] == 0 {
		t.Error("no copy was cut off: this proves nothing")
	}
}

// A copy that fails leaves an empty volume.
func TestACopyUpThatFails(t *testing.T) {
	mounts, lower, _ := overlay(t)
	if err := os.Mkdir(lower+"/data", 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		write(t, fmt.Sprintf("%s/data/%d", lower, i), strings.Repeat("x", 10000))
	}
	volume := t.TempDir()
	if err := unix.Mount("tmpfs", volume, "tmpfs", 0, "size=100k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(volume, unix.MNT_DETACH) })
	if err := CopyUp(t.Context(), mounts, "/data", volume); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if left := names(t, volume); left != "" {
		t.Errorf("left: %s", left)
	}
}
