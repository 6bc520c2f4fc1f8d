package conformance

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/storage"
)

func storageChecks() []Check {
	return []Check{
		{Name: "storage/prepare", Rule: "Prepare creates an active (writable) snapshot on a committed parent.", run: storagePrepare},
		{Name: "storage/prepare-taken", Rule: "ALREADY_EXISTS if the key is in use, whatever its parent", run: storageTaken},
		{Name: "storage/prepare-parent", Rule: "NOT_FOUND for an unknown parent, INVALID_ARGUMENT for one that is not committed and for an empty key.", run: storageParent},
		{Name: "storage/prepare-at-once", Rule: "Of several calls at once, one succeeds.", run: storageAtOnce},
		{Name: "storage/view", Rule: "View is Prepare for a snapshot that is never written to.", run: storageView},
		{Name: "storage/mounts", Rule: "Mounts answers how an active snapshot or view is mounted.", run: storageMounts},
		{Name: "storage/commit", Rule: "Commit turns an active snapshot into a committed one. The key is free afterwards", run: storageCommit},
		{Name: "storage/commit-again", Rule: "ALREADY_EXISTS if the name is in use, which is looked at before the key: that is what a repetition is answered.", run: storageCommitAgain},
		{Name: "storage/commit-labels", Rule: "Labels that replace those of the active snapshot.", run: storageCommitLabels},
		{Name: "storage/kinds", Rule: "FAILED_PRECONDITION for what the snapshot's kind or children forbid", run: storageKinds},
		{Name: "storage/remove", Rule: "Remove deletes a snapshot. FAILED_PRECONDITION while it has children.", run: storageRemove},
		{Name: "storage/remove-at-once", Rule: "The name is free on return", run: storageRemoveAtOnce},
		{Name: "storage/unknown", Rule: "NOT_FOUND for an unknown key", run: storageUnknown},
		{Name: "storage/stat", Rule: "Stat describes a snapshot.", run: storageStat},
		{Name: "storage/labels", Rule: "SetLabels merges labels into a snapshot's; an empty value removes one.", run: storageLabels},
		{Name: "storage/list", Rule: "Only those whose key or name starts with this; empty for all.", run: storageList},
		{Name: "storage/usage", Rule: "Usage measures a snapshot without its parents: what removing it frees.", run: storageUsage},
		{Name: "storage/release", Rule: "Succeeds when there is nothing to undo, and for an unknown key.", run: storageRelease},
		{Name: "storage/layers", Rule: "Finished; others can stand on it.", run: storageLayers},
		{Name: "storage/siblings", Rule: "Prepare creates an active (writable) snapshot on a committed parent.", run: storageSiblings},
		{Name: "storage/attributes", Rule: "Finished; others can stand on it.", run: storageAttributes},
		{Name: "storage/restart", Rule: "The key is free afterwards and the content durable.", run: storageRestart},
		{Name: "storage/many-at-once", Rule: "Every RPC therefore answers a repetition with the same IDs and arguments as it answered the first", run: storageMany},
		{Name: "storage/without-rebase", Rule: "NOT_IMPLEMENTED without the feature.", run: storageWithoutRebase},
		{Name: "storage/rebase", Rule: "a snapshot that was prepared without a parent may be committed as a child of one", Need: storage.FeatureRebase, run: storageRebase},
		{Name: "storage/rebase-refused", Rule: "NOT_FOUND for an unknown parent, FAILED_PRECONDITION for a snapshot that has one already", Need: storage.FeatureRebase, run: storageRebaseRefused},
		{Name: "storage/without-diff", Rule: `NOT_IMPLEMENTED without the feature "diff".`, run: storageWithoutDiff},
		{Name: "storage/diff", Rule: "Diff streams the paths in which a snapshot differs from its parent.", Need: storage.FeatureDiff, run: storageDiff},
		{Name: "storage/diff-of-a-view", Rule: "FAILED_PRECONDITION for a view.", Need: storage.FeatureDiff, run: storageDiffView},
	}
}

// prepared is an active snapshot that is removed when the check is over, whatever
// has become of it.
func (t *T) prepared(key, parent string) []mount.Mount {
	mounts, err := t.storage().Prepare(t.ctx, t.name(key), parent, map[string]string{"kit": "yes"})
	t.must(err, "Prepare")
	t.cleanup(func() { t.removed(t.name(key)) })
	return mounts
}

// removed removes a snapshot that may not be there.
func (t *T) removed(name string) {
	if err := t.start(t.ctx); err != nil {
		t.errorf("starting the plugin: %v", err)
		return
	}
	err := errors.Join(t.storage().Release(t.ctx, name), t.storage().Remove(t.ctx, name))
	if err != nil && !errdefs.IsNotFound(err) {
		t.errorf("removing snapshot %s in the end: %v", name, err)
	}
}

// committed is a committed snapshot that fill wrote, removed when the check is over.
func (t *T) committed(name, parent string, fill func(dir string)) string {
	t.cleanup(func() { t.removed(t.name(name)) })
	t.in(t.prepared(name+"-key", parent), fill)
	t.must(t.storage().Release(t.ctx, t.name(name+"-key")), "Release")
	t.must(t.storage().Commit(t.ctx, t.name(name), t.name(name+"-key"), nil), "Commit")
	return t.name(name)
}

// in calls fn with a directory at which mounts are made.
func (t *T) in(mounts []mount.Mount, fn func(dir string)) {
	dir, unmount := t.mounted(mounts...)
	fn(dir)
	unmount()
}

// viewed calls fn with a view of a committed snapshot.
func (t *T) viewed(parent string, fn func(dir string)) {
	key := fmt.Sprintf("%s-view%d", parent, len(t.undo))
	mounts, err := t.storage().View(t.ctx, key, parent, nil)
	t.must(err, "View")
	t.cleanup(func() { t.removed(key) })
	t.in(mounts, fn)
	t.removed(key)
}

func storagePrepare(t *T) {
	base := t.committed("base", "", func(dir string) { t.write(filepath.Join(dir, "below"), "base") })
	t.in(t.prepared("top", base), func(dir string) {
		t.holds(filepath.Join(dir, "below"), "base", "a snapshot on a parent")
		t.write(filepath.Join(dir, "above"), "top")
		t.holds(filepath.Join(dir, "above"), "top", "a snapshot that was written to")
	})
}

func storageTaken(t *T) {
	base := t.committed("base", "", func(string) {})
	t.prepared("key", "")
	for _, parent := range []string{"", base} {
		_, err := t.storage().Prepare(t.ctx, t.name("key"), parent, nil)
		t.fails(err, errdefs.ErrAlreadyExists, "Prepare of a key in use on %q", parent)
		_, err = t.storage().View(t.ctx, t.name("key"), parent, nil)
		t.fails(err, errdefs.ErrAlreadyExists, "View of a key in use on %q", parent)
	}
	_, err := t.storage().Prepare(t.ctx, base, "", nil)
	t.fails(err, errdefs.ErrAlreadyExists, "Prepare of a key that is a committed snapshot's name")
}

func storageParent(t *T) {
	t.prepared("active", "")
	for name, c := range map[string]struct {
		key, parent string
		want        error
	}{
		"an unknown parent": {t.name("x"), t.name("none"), errdefs.ErrNotFound},
		"an active parent":  {t.name("x"), t.name("active"), errdefs.ErrInvalidArgument},
		"an empty key":      {"", "", errdefs.ErrInvalidArgument},
	} {
		_, err := t.storage().Prepare(t.ctx, c.key, c.parent, nil)
		t.fails(err, c.want, "Prepare with %s", name)
		_, err = t.storage().View(t.ctx, c.key, c.parent, nil)
		t.fails(err, c.want, "View with %s", name)
		if _, err := t.storage().Stat(t.ctx, c.key); !errdefs.IsNotFound(err) && c.key != "" {
			t.errorf("Prepare with %s failed and left a snapshot: %v", name, err)
		}
	}
}

func storageAtOnce(t *T) {
	base := t.committed("base", "", func(dir string) { t.write(filepath.Join(dir, "file"), "base") })
	t.cleanup(func() { t.removed(t.name("race")) })
	t.oneSucceeds(together(16, func(int) error {
		_, err := t.storage().Prepare(t.ctx, t.name("race"), base, nil)
		return err
	}), errdefs.ErrAlreadyExists, "Prepare at once")
	mounts, err := t.storage().Mounts(t.ctx, t.name("race"))
	t.must(err, "Mounts")
	t.in(mounts, func(dir string) { t.holds(filepath.Join(dir, "file"), "base", "the snapshot that one of them made") })
}

func storageView(t *T) {
	one := t.committed("one", "", func(dir string) { t.write(filepath.Join(dir, "one"), "1") })
	two := t.committed("two", one, func(dir string) { t.write(filepath.Join(dir, "two"), "2") })
	t.viewed(two, func(dir string) {
		t.holds(filepath.Join(dir, "one"), "1", "a view")
		t.holds(filepath.Join(dir, "two"), "2", "a view")
		if err := os.WriteFile(filepath.Join(dir, "three"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.errorf("writing to a view: %v, and not that it is read-only", err)
		}
	})
}

func storageMounts(t *T) {
	base := t.committed("base", "", func(string) {})
	first := t.prepared("key", base)
	if len(first) == 0 {
		t.fatalf("Prepare answers no mounts")
	}
	again, err := t.storage().Mounts(t.ctx, t.name("key"))
	t.must(err, "Mounts")
	if !reflect.DeepEqual(first, again) {
		t.errorf("Prepare answers %+v, Mounts %+v", first, again)
	}
	_, err = t.storage().Mounts(t.ctx, base)
	t.fails(err, errdefs.ErrFailedPrecondition, "Mounts of a committed snapshot")
}

func storageCommit(t *T) {
	name := t.committed("name", "", func(dir string) { t.write(filepath.Join(dir, "file"), "hello") })
	_, err := t.storage().Stat(t.ctx, t.name("name-key"))
	t.fails(err, errdefs.ErrNotFound, "Stat of the key after Commit")
	info, err := t.storage().Stat(t.ctx, name)
	t.must(err, "Stat of the committed snapshot")
	if info.Kind != storage.KindCommitted || info.Name != name {
		t.errorf("a committed snapshot is described as %+v", info)
	}
	t.in(t.prepared("name-key", name), func(dir string) { t.holds(filepath.Join(dir, "file"), "hello", "a snapshot on it, of the old key") })
}

func storageCommitAgain(t *T) {
	name := t.committed("name", "", func(string) {})
	t.fails(t.storage().Commit(t.ctx, name, t.name("name-key"), nil), errdefs.ErrAlreadyExists, "Commit again")
	t.prepared("other", "")
	t.fails(t.storage().Commit(t.ctx, name, t.name("other"), nil), errdefs.ErrAlreadyExists, "Commit to a name in use")
	info, err := t.storage().Stat(t.ctx, t.name("other"))
	if err != nil || info.Kind != storage.KindActive {
		t.errorf("after a Commit that failed, the snapshot is %+v (%v)", info, err)
	}
	t.fails(t.storage().Commit(t.ctx, t.name("new"), t.name("none"), nil), errdefs.ErrNotFound, "Commit of an unknown key")
}

func storageCommitLabels(t *T) {
	t.prepared("key", "") // with label kit
	t.cleanup(func() { t.removed(t.name("name")) })
	want := map[string]string{"of": "commit"}
	t.must(t.storage().Commit(t.ctx, t.name("name"), t.name("key"), want), "Commit")
	info, err := t.storage().Stat(t.ctx, t.name("name"))
	t.must(err, "Stat")
	if !maps.Equal(info.Labels, want) {
		t.errorf("committed with labels %v, it has %v", want, info.Labels)
	}
}

func storageKinds(t *T) {
	base := t.committed("base", "", func(string) {})
	_, err := t.storage().View(t.ctx, t.name("view"), base, nil)
	t.must(err, "View")
	t.cleanup(func() { t.removed(t.name("view")) })
	t.fails(t.storage().Commit(t.ctx, t.name("new"), t.name("view"), nil), errdefs.ErrFailedPrecondition, "Commit of a view")
	t.fails(t.storage().Commit(t.ctx, t.name("new"), base, nil), errdefs.ErrFailedPrecondition, "Commit of a committed snapshot")
}

func storageRemove(t *T) {
	base := t.committed("base", "", func(dir string) { t.write(filepath.Join(dir, "file"), "hello") })
	t.prepared("child", base)
	t.fails(t.storage().Remove(t.ctx, base), errdefs.ErrFailedPrecondition, "Remove of a snapshot with a child")
	t.must(t.storage().Release(t.ctx, t.name("child")), "Release")
	t.must(t.storage().Remove(t.ctx, t.name("child")), "Remove of the child")
	t.must(t.storage().Remove(t.ctx, base), "Remove of the parent")
	t.fails(t.storage().Remove(t.ctx, base), errdefs.ErrNotFound, "Remove again")
	t.in(t.prepared("child", ""), func(dir string) { t.holds(filepath.Join(dir, "file"), "", "a snapshot of the name of a removed one") })
}

func storageRemoveAtOnce(t *T) {
	t.prepared("race", "")
	t.must(t.storage().Release(t.ctx, t.name("race")), "Release")
	t.oneSucceeds(together(8, func(int) error { return t.storage().Remove(t.ctx, t.name("race")) }), errdefs.ErrNotFound, "Remove at once")
}

func storageUnknown(t *T) {
	d, none := t.storage(), t.name("none")
	_, err := d.Mounts(t.ctx, none)
	t.fails(err, errdefs.ErrNotFound, "Mounts of an unknown key")
	t.fails(d.Remove(t.ctx, none), errdefs.ErrNotFound, "Remove of an unknown key")
	_, err = d.Stat(t.ctx, none)
	t.fails(err, errdefs.ErrNotFound, "Stat of an unknown key")
	_, err = d.SetLabels(t.ctx, none, map[string]string{"a": "b"})
	t.fails(err, errdefs.ErrNotFound, "SetLabels of an unknown key")
	_, err = d.Usage(t.ctx, none)
	t.fails(err, errdefs.ErrNotFound, "Usage of an unknown key")
}

func storageStat(t *T) {
	base := t.committed("base", "", func(string) {})
	t.prepared("key", base)
	info, err := t.storage().Stat(t.ctx, t.name("key"))
	t.must(err, "Stat")
	if info.Kind != storage.KindActive || info.Name != t.name("key") || info.Parent != base || info.Labels["kit"] != "yes" {
		t.errorf("an active snapshot on %s with label kit=yes is described as %+v", base, info)
	}
	if info.Created.IsZero() || info.Updated.Before(info.Created) {
		t.errorf("it was created at %s and updated at %s", info.Created, info.Updated)
	}
}

func storageLabels(t *T) {
	t.prepared("key", "")
	before, err := t.storage().Stat(t.ctx, t.name("key"))
	t.must(err, "Stat")
	after, err := t.storage().SetLabels(t.ctx, t.name("key"), map[string]string{"kit": "", "new": "1"})
	t.must(err, "SetLabels")
	want := map[string]string{"new": "1"}
	if !maps.Equal(after.Labels, want) {
		t.errorf("the labels kit=yes, with kit= and new=1, became %v", after.Labels)
	}
	if after.Updated.Before(before.Updated) || !after.Created.Equal(before.Created) {
		t.errorf("SetLabels changed the times from %s, %s to %s, %s", before.Created, before.Updated, after.Created, after.Updated)
	}
	t.must(t.again(t.ctx), "killing and starting the plugin")
	kept, err := t.storage().Stat(t.ctx, t.name("key"))
	t.must(err, "Stat")
	if !maps.Equal(kept.Labels, want) {
		t.errorf("after a restart the labels are %v, not %v", kept.Labels, want)
	}
}

func storageList(t *T) {
	for _, key := range []string{"a1", "a2", "b1"} {
		t.prepared(key, "")
	}
	for prefix, want := range map[string][]string{
		t.name("a"): {t.name("a1"), t.name("a2")}, t.name("b1"): {t.name("b1")}, t.name("c"): nil,
		"": {t.name("a1"), t.name("a2"), t.name("b1")},
	} {
		var got []string
		t.must(t.storage().List(t.ctx, prefix, func(i storage.Info) error { got = append(got, i.Name); return nil }), "List")
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.errorf("List with prefix %q answers %q, not %q", prefix, got, want)
		}
	}
}

func storageUsage(t *T) {
	fill := strings.Repeat("0123456789abcdef", 1<<16)
	base := t.committed("base", "", func(dir string) { t.write(filepath.Join(dir, "file"), fill) })
	usage, err := t.storage().Usage(t.ctx, base)
	t.must(err, "Usage")
	if usage.Size < 1<<19 || usage.Size > 1<<22 {
		t.errorf("a file of 1 MiB is %d bytes", usage.Size)
	}
	t.in(t.prepared("top", base), func(dir string) { t.write(filepath.Join(dir, "more"), fill) })
	if usage, err = t.storage().Usage(t.ctx, t.name("top")); err != nil || usage.Size < 1<<19 {
		t.errorf("a file of 1 MiB in a snapshot with a parent is %d bytes (%v)", usage.Size, err)
	}
}

func storageRelease(t *T) {
	t.prepared("key", "")
	for _, what := range []string{"Release", "Release again"} {
		t.must(t.storage().Release(t.ctx, t.name("key")), "%s", what)
	}
	t.must(t.storage().Release(t.ctx, t.name("none")), "Release of an unknown key")
	mounts, err := t.storage().Mounts(t.ctx, t.name("key"))
	t.must(err, "Mounts after Release")
	t.in(mounts, func(dir string) { t.write(filepath.Join(dir, "file"), "x") })
}
