package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/mount"
)

// container is a directory as a root filesystem, seen as that of a container.
func container(t *testing.T) (root string, look func(func(*View) error) error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	root = t.TempDir()
	return root, func(fn func(*View) error) error {
		return Mounted(context.Background(), []mount.Mount{{Type: "bind", Source: root, Options: []string{"rbind"}}}, false, fn)
	}
}

// exchange swaps two paths in atomic steps until it is stopped.
func exchange(t *testing.T, a, b string) {
	t.Helper()
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			}
		}
	})
	t.Cleanup(func() { close(done); running.Wait() })
}

// tarOf has entries one after the other: a name that ends in "/" is a directory.
func tarOf(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		header := &tar.Header{Name: name, Mode: 0o777, Size: 4, Typeflag: tar.TypeReg, Uid: 7, Gid: 7}
		if strings.HasSuffix(name, "/") {
			header.Typeflag, header.Size = tar.TypeDir, 0
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if header.Size > 0 {
			if _, err := w.Write([]byte("evil")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A directory on the way of a copy is swapped for a link that leads out.
func TestCVE_2018_15664_CopiesStayInside(t *testing.T) {
	root, look := container(t)
	outside := t.TempDir()
	write(t, outside+"/file", "the host's secret")
	write(t, outside+"/only-outside", "the host's secret")
	if err := os.MkdirAll(root+"/a/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, root+"/a/dir/file", "harmless")
	if err := os.Symlink(strings.Repeat("../", 20)+outside, root+"/a/link"); err != nil {
		t.Fatal(err)
	}
	exchange(t, root+"/a/dir", root+"/a/link")
	copied := 0
	for start := time.Now(); time.Since(start) < 700*time.Millisecond || copied == 0 && time.Since(start) < 20*time.Second; {
		_ = look(func(v *View) error {
			for range 50 {
				for _, name := range []string{"/a/dir/file", "/a/dir/.", "/a", "/a/dir/only-outside"} {
					var b bytes.Buffer
					if v.Archive(name, &b) == nil {
						copied++
					}
					if bytes.Contains(b.Bytes(), []byte("secret")) {
						t.Fatalf("the copy of %s has what is outside", name)
					}
				}
				if body, _ := v.ReadFile("/a/dir/file"); bytes.Contains(body, []byte("secret")) {
					t.Fatal("a file outside was read")
				}
				_ = v.Extract("/a/dir", bytes.NewReader(tarOf(t, "file", "planted")), ExtractOptions{})
				_ = v.Extract("/a", bytes.NewReader(tarOf(t, "dir/", "dir/file", "dir/planted")), ExtractOptions{})
			}
			return nil
		})
	}
	if copied == 0 {
		t.Error("nothing was copied: the race was never run")
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 2 {
		t.Errorf("outside are %v, %v", entries, err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if owner := ownerOf(info); owner != [2]uint32{0, 0} || info.Mode().Perm() != 0o644 {
			t.Errorf("%s outside has owner %v and mode %s", entry.Name(), owner, info.Mode())
		}
	}
}

// A fifo or a device in the place of a file would hold the engine, or be
// operated with the host's rights.
func TestCVE_2018_15664_OnlyRegularFilesAreOpened(t *testing.T) {
	root, look := container(t)
	write(t, root+"/file", "harmless")
	if err := os.Mkdir(root+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/fifo", "/fifo2"} {
		if err := unix.Mkfifo(root+name, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() {
		ended <- look(func(v *View) error {
			if _, err := v.ReadFile("/fifo"); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("reading a fifo: %v", err)
			}
			// The worst moment of the race: it was a file when it was looked at.
			below, err := os.OpenRoot(v.Path())
			if err != nil {
				return err
			}
			defer func() { _ = below.Close() }()
			info, err := below.Lstat("file")
			if err != nil {
				return err
			}
			a := &archiver{root: below, out: tar.NewWriter(io.Discard), links: map[inode]string{}}
			if err := a.add("fifo", "fifo", info); err != nil {
				t.Errorf("archiving what became a fifo: %v", err)
			}
			exchange(t, root+"/file", root+"/fifo")
			exchange(t, root+"/dir", root+"/fifo2")
			for range 300 {
				_ = v.Archive("/", io.Discard)
				_, _ = v.ReadFile("/file")
				_ = v.Extract("/", bytes.NewReader(tarOf(t, "dir/x", "file")), ExtractOptions{})
			}
			return nil
		})
	}()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("a fifo holds the engine")
	}
}

// What a container has for its accounts and libraries is data: names in a copy
// are not looked up there, and the program that copies loads nothing.
func TestCVE_2019_14271_CopiesLoadNothing(t *testing.T) {
	root, look := container(t)
	for _, dir := range []string{"/etc", "/lib/x86_64-linux-gnu"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, root+"/etc/passwd", "evil:x:0:0::/:/bin/sh\n")
	write(t, root+"/etc/group", "evil:x:0:\n")
	write(t, root+"/etc/nsswitch.conf", "passwd: evil\n")
	write(t, root+"/file", "content")
	var b bytes.Buffer
	if err := look(func(v *View) error { return v.Archive("/file", &b) }); err != nil {
		t.Fatal(err)
	}
	header, err := tar.NewReader(&b).Next()
	if err != nil {
		t.Fatal(err)
	}
	if header.Uname != "" || header.Gname != "" || header.Uid != 0 {
		t.Errorf("the copy has owner %q (%d), %q", header.Uname, header.Uid, header.Gname)
	}
}

// The number of a container's process may be another's: its root is not shown.
func TestRunningLooksAtNoOtherProcess(t *testing.T) {
	err := Running(os.Getpid(), strings.Repeat("a", 64), func(*View) error {
		t.Error("the root of a process of the host was opened")
		return nil
	})
	if !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("error is %v", err)
	}
}

// An image's VOLUME names a path of the host (CVE-2022-23648 of containerd).
func TestCVE_2022_23648_VolumesAreFilledFromTheImage(t *testing.T) {
	mounts, lower, _ := overlay(t)
	outside := t.TempDir()
	write(t, outside+"/file", "the host's secret")
	if err := os.Symlink(strings.Repeat("../", 20)+outside, lower+"/data"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/data", "/../../../../../../.." + outside, "/link/../.." + outside} {
		into := t.TempDir()
		if err := CopyUp(context.Background(), mounts, name, into); err != nil {
			t.Logf("filling from %s: %v", name, err)
		}
		if entries, err := os.ReadDir(into); err != nil || len(entries) > 0 {
			t.Errorf("from %s came %v, %v", name, entries, err)
		}
	}
	if _, err := os.Stat(filepath.Join(outside, "file")); err != nil {
		t.Error(err)
	}
}
