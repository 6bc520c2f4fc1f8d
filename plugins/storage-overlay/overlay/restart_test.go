package overlay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/sdk/storage"
	"github.com/davit-engine/davit/sdk/storage/snapdir"
)

func TestWhatWasMadeIsThereAfterARestart(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	ctx := t.Context()
	layer(t, d, "base", "", func(dir string) { write(t, dir, "file", "etc/passwd") })
	layer(t, d, "top", "base", func(dir string) { write(t, dir, "second"); remove(t, dir, "file") })
	if _, err := d.Prepare(ctx, "active", "top", map[string]string{"l": "v"}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.View(ctx, "view", "top", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.SetLabels(ctx, "base", map[string]string{"late": "label"}); err != nil {
		t.Fatal(err)
	}
	inside(t, d, "active", func(dir string) { write(t, dir, "third") })
	before := all(t, d)
	again := open(t, root) // while the first still runs, as after a crash
	if diff := cmp.Diff(before, all(t, again)); diff != "" {
		t.Error(diff)
	}
	for _, key := range []string{"active", "view"} {
		was, err := d.Mounts(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		is, err := again.Mounts(ctx, key)
		if err != nil || !cmp.Equal(was, is) {
			t.Errorf("mounts of %s: %v %s", key, err, cmp.Diff(was, is))
		}
	}
	inside(t, again, "active", func(dir string) {
		for name, want := range map[string]bool{"file": false, "etc/passwd": true, "second": true, "third": true} {
			if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	prepare(t, again, "new", "top")
	if got := len(all(t, again)); got != len(before)+1 {
		t.Errorf("%d snapshots", got)
	}
}

// number is the directory of a snapshot.
func number(t *testing.T, d *Driver, key string) int {
	t.Helper()
	s, err := d.Find(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return s.Number
}

func TestWhatACrashLeftHalfMadeIsGone(t *testing.T) {
	for what, left := range map[string]func(record string) error{
		"before its record":    os.Remove,
		"with an empty record": func(record string) error { return os.Truncate(record, 0) },
		"while writing its record": func(record string) error {
			return os.Rename(record, record+".new")
		},
	} {
		t.Run(what, func(t *testing.T) {
			root := t.TempDir()
			d := open(t, root)
			layer(t, d, "base", "", nil)
			prepare(t, d, "half", "base")
			n := number(t, d, "half")
			write(t, d.Tree(n), "file")
			if err := left(filepath.Join(d.Dir(n), snapdir.RecordName)); err != nil {
				t.Fatal(err)
			}
			again := open(t, root)
			if _, err := again.Stat(t.Context(), "half"); !errdefs.IsNotFound(err) {
				t.Errorf("the half-made snapshot: %v", err)
			}
			if _, err := os.Stat(d.Dir(n)); !os.IsNotExist(err) {
				t.Errorf("its directory is left: %v", err)
			}
			prepare(t, again, "half", "base") // the key is free
			for _, name := range []string{"half", "base"} {
				if err := again.Remove(t.Context(), name); err != nil {
					t.Errorf("removing %s: %v", name, err)
				}
			}
		})
	}
}

func TestACommitThatWasCutOffAfterItsRecordIsDone(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	layer(t, d, "base", "", nil)
	work := filepath.Join(d.Dir(number(t, d, "base")), "work")
	if err := os.MkdirAll(filepath.Join(work, "work"), 0o711); err != nil {
		t.Fatal(err)
	}
	again := open(t, root)
	if info, err := again.Stat(t.Context(), "base"); err != nil || info.Kind != storage.KindCommitted {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := os.Stat(work); !os.IsNotExist(err) {
		t.Errorf("its work directory is left: %v", err)
	}
}

func TestACorruptRecordStopsTheStartRatherThanLosingData(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	layer(t, d, "base", "", func(dir string) { write(t, dir, "file") })
	n := number(t, d, "base")
	if err := os.WriteFile(filepath.Join(d.Dir(n), snapdir.RecordName), []byte(`{"Name": "ba`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(root, hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), "snapshot 1") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(d.Tree(n), "file")); err != nil {
		t.Error(err)
	}
}

func TestWhatIsRemovedIsDeleted(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	prepare(t, d, "key", "")
	write(t, d.Tree(number(t, d, "key")), "a/b/c", "d")
	if err := d.Remove(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	// What an earlier process renamed but did not come to delete.
	write(t, filepath.Join(root, "trash", "77"), "fs/file")
	if _, err := os.ReadDir(filepath.Join(root, "s")); err != nil {
		t.Fatal(err)
	}
	next, err := New(root, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	prepare(t, next, "other", "")
	if n := number(t, next, "other"); n <= 77 {
		t.Errorf("number %d is given while 77 is not deleted", n)
	}
	next.Close()
	for dir, want := range map[string]int{"trash": 0, "s": 1} {
		left, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil || len(left) != want {
			t.Errorf("%s: %v, %v", dir, left, err)
		}
	}
}

func TestARootThatOverlayfsCannotWriteOnIsRefused(t *testing.T) {
	d := open(t, t.TempDir())
	layer(t, d, "base", "", nil)
	prepare(t, d, "active", "base")
	inside(t, d, "active", func(dir string) {
		_, err := New(filepath.Join(dir, "root"), hclog.NewNullLogger())
		wantKind(t, "New on an overlay", err, errdefs.ErrFailedPrecondition)
	})
	dir := t.TempDir()
	if err := mount.All([]mount.Mount{{Type: "ramfs", Source: "ramfs"}}, dir); err != nil {
		t.Skipf("no filesystem without extended attributes to try: %v", err)
	}
	defer func() {
		if err := mount.UnmountAll(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	_, err := New(dir, hclog.NewNullLogger())
	wantKind(t, "New without extended attributes", err, errdefs.ErrFailedPrecondition)
}
