package copies

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/sdk/storage"
)

// open opens a store on a filesystem of its own.
func open(t *testing.T, fs mount.Mount) (d *Driver, root string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	root = t.TempDir()
	if err := mount.All([]mount.Mount{fs}, root); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.UnmountAll(root, 0); err != nil {
			t.Error(err)
		}
	})
	d, err := New(filepath.Join(root, "store"), hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, root
}

// tree is where a snapshot's files are.
func tree(t *testing.T, d *Driver, key string) string {
	t.Helper()
	mounts, err := d.Mounts(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return mounts[0].Source
}

// TestAnyFilesystem makes layers where overlayfs cannot: on an overlay, and where
// there are no extended attributes.
func TestAnyFilesystem(t *testing.T) {
	lower, upper := t.TempDir(), t.TempDir()
	for name, fs := range map[string]mount.Mount{
		"ramfs": {Type: "ramfs", Source: "ramfs"},
		"an overlay": {Type: "overlay", Source: "overlay", Options: []string{
			"lowerdir=" + lower, "upperdir=" + filepath.Join(upper, "u"), "workdir=" + filepath.Join(upper, "w")}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.MkdirAll(filepath.Join(upper, "u"), 0o755), os.MkdirAll(filepath.Join(upper, "w"), 0o755)); err != nil {
				t.Fatal(err)
			}
			d, _ := open(t, fs)
			ctx := t.Context()
			if _, err := d.Prepare(ctx, "one", "", nil); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"file", "other"} {
				if err := os.WriteFile(filepath.Join(tree(t, d, "one"), name), []byte("one"), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Commit(ctx, "base", "one", nil); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Prepare(ctx, "two", "base", nil); err != nil {
				t.Fatal(err)
			}
			dir := tree(t, d, "two")
			if err := errors.Join(os.WriteFile(filepath.Join(dir, "file"), []byte("two"), 0o640), os.Remove(filepath.Join(dir, "other"))); err != nil {
				t.Fatal(err)
			}
			got := map[string]storage.ChangeKind{}
			if err := d.Diff(ctx, "two", func(c storage.Change) error { got[c.Path] = c.Kind; return nil }); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]storage.ChangeKind{"/file": storage.ChangeModify, "/other": storage.ChangeDelete}, got); diff != "" {
				t.Error(diff)
			}
			if _, err := d.View(ctx, "view", "base", nil); err != nil {
				t.Fatal(err)
			}
			if body, err := os.ReadFile(filepath.Join(tree(t, d, "view"), "file")); err != nil || string(body) != "one" {
				t.Errorf("the parent has %q, %v", body, err)
			}
		})
	}
}

// TestACopyThatDoesNotFitLeavesNothing says what is wrong and gives the space back.
func TestACopyThatDoesNotFitLeavesNothing(t *testing.T) {
	d, root := open(t, mount.Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"size=3m"}})
	ctx := t.Context()
	if _, err := d.Prepare(ctx, "one", "", nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree(t, d, "one"), "large"), make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(ctx, "base", "one", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Prepare(ctx, "two", "base", nil); !errdefs.IsResourceExhausted(err) {
		t.Errorf("Prepare on a full disk: %v", err)
	}
	if _, err := d.Stat(ctx, "two"); !errdefs.IsNotFound(err) {
		t.Errorf("the snapshot: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "store", "s")); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	if err := d.Remove(ctx, "base"); err != nil {
		t.Error(err)
	}
}
