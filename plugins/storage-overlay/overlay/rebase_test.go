package overlay

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/storage"
)

// TestLayersInAnyOrder makes layers without those below them and puts them together.
func TestLayersInAnyOrder(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	ctx := t.Context()
	detached := func(key string, fn func(dir string) error) {
		t.Helper()
		prepare(t, d, key, "")
		inside(t, d, key, func(dir string) {
			if err := fn(dir); err != nil {
				t.Fatal(err)
			}
		})
	}
	detached("top", func(dir string) error {
		if err := os.Mkdir(filepath.Join(dir, "dir"), 0o755); err != nil {
			return err
		}
		if err := unix.Setxattr(filepath.Join(dir, "dir"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
			return err
		}
		return unix.Mknod(filepath.Join(dir, "gone"), unix.S_IFCHR, 0)
	})
	if err := d.CommitOnto(ctx, "c", "top", "b", nil); !errdefs.IsNotFound(err) {
		t.Errorf("onto what is not there: %v", err)
	}
	layer(t, d, "a", "", func(dir string) {
		if err := os.Chmod(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, "dir"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"dir/below", "gone", "stays"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	detached("middle", func(dir string) error { return os.WriteFile(filepath.Join(dir, "added"), nil, 0o600) })
	if err := d.CommitOnto(ctx, "b", "middle", "top", nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("onto an active one: %v", err)
	}
	prepare(t, d, "child", "a")
	if err := d.CommitOnto(ctx, "b", "child", "a", nil); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("one that has a parent: %v", err)
	}
	if err := d.CommitOnto(ctx, "b", "middle", "a", map[string]string{"l": "v"}); err != nil {
		t.Fatal(err)
	}
	if err := d.CommitOnto(ctx, "b", "middle", "a", nil); !errdefs.IsAlreadyExists(err) {
		t.Errorf("again: %v", err)
	}
	if err := d.CommitOnto(ctx, "c", "top", "b", nil); err != nil {
		t.Fatal(err)
	}
	check := func(d *Driver, key string) {
		t.Helper()
		if _, err := d.View(ctx, key, "c", nil); err != nil {
			t.Fatal(err)
		}
		inside(t, d, key, func(dir string) {
			var names []string
			for _, path := range []string{"dir/below", "gone", "stays", "added"} {
				if _, err := os.Lstat(filepath.Join(dir, path)); err == nil {
					names = append(names, path)
				}
			}
			info, err := os.Stat(dir)
			if !slices.Equal(names, []string{"stays", "added"}) || err != nil || info.Mode().Perm() != 0o750 {
				t.Errorf("there are %v, %v %v", names, info.Mode(), err)
			}
		})
	}
	check(d, "view")
	if err := d.Remove(ctx, "a"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a parent can be removed: %v", err)
	}
	d = open(t, root)
	if info, err := d.Stat(ctx, "b"); err != nil || info.Parent != "a" || info.Kind != storage.KindCommitted || info.Labels["l"] != "v" {
		t.Errorf("after a restart: %+v, %v", info, err)
	}
	check(d, "view2")
	for _, key := range []string{"view", "view2", "child", "c", "b", "a"} {
		if err := d.Remove(ctx, key); err != nil {
			t.Errorf("removing %s: %v", key, err)
		}
	}
}
