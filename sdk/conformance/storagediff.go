package conformance

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/storage"
)

func storageWithoutDiff(t *T) {
	if slices.Contains(t.features(), storage.FeatureDiff) {
		t.skipf("the driver has the feature")
	}
	t.prepared("key", "")
	t.fails(t.storage().Diff(t.ctx, t.name("key"), func(storage.Change) error { return nil }), errdefs.ErrNotImplemented, "Diff")
}

func storageDiff(t *T) {
	base := t.committed("base", "", func(dir string) {
		for _, name := range []string{"kept", "changed", "deleted", "d/one", "d/two"} {
			t.write(filepath.Join(dir, name), "base")
		}
	})
	t.in(t.prepared("top", base), func(dir string) {
		t.write(filepath.Join(dir, "changed"), "other")
		t.write(filepath.Join(dir, "added"), "new")
		t.must(errors.Join(os.Remove(filepath.Join(dir, "deleted")), os.Remove(filepath.Join(dir, "d/two"))), "deleting")
	})
	got := map[string]storage.ChangeKind{}
	t.must(t.storage().Diff(t.ctx, t.name("top"), func(c storage.Change) error { got[c.Path] = c.Kind; return nil }), "Diff")
	delete(got, "/")
	want := map[string]storage.ChangeKind{
		"/changed": storage.ChangeModify, "/added": storage.ChangeAdd, "/deleted": storage.ChangeDelete,
		"/d": storage.ChangeModify, "/d/two": storage.ChangeDelete,
	}
	if !maps.Equal(got, want) {
		t.errorf("Diff answers %v, not %v", got, want)
	}
	t.fails(t.storage().Diff(t.ctx, t.name("none"), func(storage.Change) error { return nil }), errdefs.ErrNotFound, "Diff of an unknown key")
}

func storageDiffView(t *T) {
	base := t.committed("base", "", func(string) {})
	_, err := t.storage().View(t.ctx, t.name("view"), base, nil)
	t.must(err, "View")
	t.cleanup(func() { t.removed(t.name("view")) })
	t.fails(t.storage().Diff(t.ctx, t.name("view"), func(storage.Change) error { return nil }), errdefs.ErrFailedPrecondition, "Diff of a view")
}
