package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/davit-engine/davit/sdk/mount"
)

// overlay lays a writable layer over a directory with a few files.
func overlay(t *testing.T) (mounts []mount.Mount, lower, upper string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	dir := t.TempDir()
	lower, upper = filepath.Join(dir, "lower"), filepath.Join(dir, "upper")
	for _, d := range []string{lower + "/etc", upper, filepath.Join(dir, "work")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, lower+"/etc/passwd", "root:x:0:0::/:/bin/sh\n")
	if err := os.Symlink("/etc/passwd", lower+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../../etc", lower+"/out"); err != nil {
		t.Fatal(err)
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + lower, "upperdir=" + upper, "workdir=" + filepath.Join(dir, "work")}}}, lower, upper
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLinksAreResolvedInsideTheRoot(t *testing.T) {
	mounts, _, _ := overlay(t)
	err := Mounted(context.Background(), mounts, true, func(v *View) error {
		for _, path := range []string{"/etc/passwd", "/link", "/out/passwd", "/../../etc/passwd"} {
			body, err := v.ReadFile(path)
			if err != nil {
				return err
			}
			if string(body) != "root:x:0:0::/:/bin/sh\n" {
				t.Errorf("%s reads %q: that is not the container's file", path, body)
			}
		}
		stat, err := v.Stat("/link")
		if err != nil {
			return err
		}
		if stat.Mode&os.ModeSymlink == 0 || stat.LinkTarget != "/etc/passwd" {
			t.Errorf("stat of a link: %+v", stat)
		}
		_, err = v.Stat("/nosuch")
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stat of nothing: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingStaysMounted(t *testing.T) {
	mounts, _, _ := overlay(t)
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if err := Mounted(context.Background(), mounts, false, func(*View) error { return nil }); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Errorf("mounts changed:\n%s\n%s", before, after)
	}
}

func TestArchiveAndExtractRoundTrip(t *testing.T) {
	mounts, _, upper := overlay(t)
	var buffer bytes.Buffer
	err := Mounted(context.Background(), mounts, true, func(v *View) error { return v.Archive("/etc", &buffer) })
	if err != nil {
		t.Fatal(err)
	}
	reader := tar.NewReader(bytes.NewReader(buffer.Bytes()))
	var names []string
	for {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	if len(names) != 2 || names[0] != "etc/" || names[1] != "etc/passwd" {
		t.Errorf("names in the archive: %q", names)
	}
	err = Mounted(context.Background(), mounts, false, func(v *View) error {
		return v.Extract("/", bytes.NewReader(archiveOf(t, "new/file", "hello")), ExtractOptions{})
	})
	if err != nil {
		t.Fatal(err)
	}
	if body, err := os.ReadFile(filepath.Join(upper, "new/file")); err != nil || string(body) != "hello" {
		t.Errorf("extracted file: %q, %v", body, err)
	}
}

func archiveOf(t *testing.T, name, content string) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// Archives and links that try to write outside are the attack on docker cp.
func TestExtractDoesNotEscape(t *testing.T) {
	mounts, lower, upper := overlay(t)
	outside := t.TempDir()
	if err := os.Symlink(outside, lower+"/escape"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../../../../" + outside + "/a", outside + "/b", "escape/c"} {
		_ = Mounted(context.Background(), mounts, false, func(v *View) error {
			return v.Extract("/", bytes.NewReader(archiveOf(t, name, "evil")), ExtractOptions{})
		})
	}
	entries, err := os.ReadDir(outside)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) > 0 {
		t.Errorf("%s was written to outside of the root (upper layer %s)", entries[0].Name(), upper)
	}
}

func TestCopyUpKeepsOwnersAndModes(t *testing.T) {
	mounts, lower, _ := overlay(t)
	if err := os.MkdirAll(lower+"/data/sub", 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, lower+"/data/sub/file", "content")
	if err := os.Chown(lower+"/data", 1234, 4321); err != nil {
		t.Fatal(err)
	}
	into := t.TempDir()
	if err := CopyUp(context.Background(), mounts, "/data", into); err != nil {
		t.Fatal(err)
	}
	if body, err := os.ReadFile(filepath.Join(into, "sub/file")); err != nil || string(body) != "content" {
		t.Errorf("copied file: %q, %v", body, err)
	}
	info, err := os.Stat(into)
	if err != nil {
		t.Fatal(err)
	}
	if owner := ownerOf(info); owner != [2]uint32{1234, 4321} {
		t.Errorf("owner of the copied directory is %v", owner)
	}
	if err := CopyUp(context.Background(), mounts, "/nosuch", t.TempDir()); err != nil {
		t.Errorf("copying up what the image does not have: %v", err)
	}
}
