package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	davitmount "github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/storage"
)

// open opens a store that is closed after the test.
func open(t *testing.T, root string) *Driver {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("overlays need root")
	}
	d, err := New(root, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// asMounts turns mounts into what containerd mounts.
func asMounts(list []davitmount.Mount) []mount.Mount {
	var mounts []mount.Mount
	for _, m := range list {
		mounts = append(mounts, mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return mounts
}

// inside mounts a snapshot, calls fn with the path and unmounts it.
func inside(t *testing.T, d *Driver, key string, fn func(dir string)) {
	t.Helper()
	mounts, err := d.Mounts(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := mount.All(asMounts(mounts), dir); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mount.UnmountAll(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	fn(dir)
}

func prepare(t *testing.T, d *Driver, key, parent string) {
	t.Helper()
	if _, err := d.Prepare(t.Context(), key, parent, nil); err != nil {
		t.Fatal(err)
	}
}

// layer makes a committed snapshot out of what fn does to its parent.
func layer(t *testing.T, d *Driver, name, parent string, fn func(dir string)) {
	t.Helper()
	key := name + "-active"
	prepare(t, d, key, parent)
	if fn != nil {
		inside(t, d, key, fn)
	}
	if err := d.Commit(t.Context(), name, key, nil); err != nil {
		t.Fatal(err)
	}
}

// write writes files below a directory, and the directories on the way.
func write(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// wantKind fails unless an error is of a kind.
func wantKind(t *testing.T, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: want the kind %q, got: %v", what, kind, err)
	}
}

// all lists a store.
func all(t *testing.T, d *Driver) map[string]storage.Info {
	t.Helper()
	infos := map[string]storage.Info{}
	if err := d.List(t.Context(), "", func(i storage.Info) error {
		infos[i.Name] = i
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return infos
}

func TestUnknownKeysAreNotFound(t *testing.T) {
	d := open(t, t.TempDir())
	ctx := t.Context()
	for what, call := range map[string]func() error{
		"Prepare":   func() error { _, err := d.Prepare(ctx, "key", "nobody", nil); return err },
		"View":      func() error { _, err := d.View(ctx, "key", "nobody", nil); return err },
		"Mounts":    func() error { _, err := d.Mounts(ctx, "nobody"); return err },
		"Commit":    func() error { return d.Commit(ctx, "name", "nobody", nil) },
		"Remove":    func() error { return d.Remove(ctx, "nobody") },
		"Stat":      func() error { _, err := d.Stat(ctx, "nobody"); return err },
		"SetLabels": func() error { _, err := d.SetLabels(ctx, "nobody", map[string]string{"a": "b"}); return err },
		"Usage":     func() error { _, err := d.Usage(ctx, "nobody"); return err },
		"Diff":      func() error { return d.Diff(ctx, "nobody", func(storage.Change) error { return nil }) },
	} {
		err := call()
		wantKind(t, what, err, errdefs.ErrNotFound)
		if err != nil && !strings.Contains(err.Error(), "nobody") {
			t.Errorf("%s does not say what it did not find: %v", what, err)
		}
	}
	if err := d.Release(ctx, "nobody"); err != nil {
		t.Errorf("Release, which has nothing to undo: %v", err)
	}
	if left := all(t, d); len(left) > 0 {
		t.Errorf("refused requests left %v", left)
	}
}

func TestAKeyIsGivenOnce(t *testing.T) {
	d := open(t, t.TempDir())
	ctx := t.Context()
	layer(t, d, "base", "", nil)
	prepare(t, d, "active", "base")
	for _, key := range []string{"base", "active"} {
		_, err := d.Prepare(ctx, key, "base", nil)
		wantKind(t, "Prepare "+key, err, errdefs.ErrAlreadyExists)
		_, err = d.Prepare(ctx, key, "nobody", nil) // the key comes before the parent
		wantKind(t, "Prepare on an unknown parent "+key, err, errdefs.ErrAlreadyExists)
		_, err = d.View(ctx, key, "", nil)
		wantKind(t, "View "+key, err, errdefs.ErrAlreadyExists)
		wantKind(t, "Commit as "+key, d.Commit(ctx, key, "active", nil), errdefs.ErrAlreadyExists)
	}
	if info, err := d.Stat(ctx, "active"); err != nil || info.Kind != storage.KindActive {
		t.Errorf("after commits that were refused: %+v, %v", info, err)
	}
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	d := open(t, t.TempDir())
	ctx := t.Context()
	prepare(t, d, "active", "")
	_, err := d.Prepare(ctx, "", "", nil)
	wantKind(t, "Prepare without a key", err, errdefs.ErrInvalidArgument)
	_, err = d.View(ctx, "", "", nil)
	wantKind(t, "View without a key", err, errdefs.ErrInvalidArgument)
	wantKind(t, "Commit without a name", d.Commit(ctx, "", "active", nil), errdefs.ErrInvalidArgument)
	_, err = d.Prepare(ctx, "child", "active", nil)
	wantKind(t, "Prepare on what is not committed", err, errdefs.ErrInvalidArgument)
}

func TestAKindForbidsWhatOthersMay(t *testing.T) {
	d := open(t, t.TempDir())
	ctx := t.Context()
	layer(t, d, "base", "", nil)
	if _, err := d.View(ctx, "view", "base", nil); err != nil {
		t.Fatal(err)
	}
	_, err := d.Mounts(ctx, "base")
	wantKind(t, "Mounts of a committed snapshot", err, errdefs.ErrFailedPrecondition)
	wantKind(t, "Commit of a committed snapshot", d.Commit(ctx, "again", "base", nil), errdefs.ErrFailedPrecondition)
	wantKind(t, "Commit of a view", d.Commit(ctx, "again", "view", nil), errdefs.ErrFailedPrecondition)
	err = d.Diff(ctx, "view", func(storage.Change) error { return nil })
	wantKind(t, "Diff of a view", err, errdefs.ErrFailedPrecondition)
}

func TestAParentStaysWhileItHasChildren(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	ctx := t.Context()
	layer(t, d, "base", "", nil)
	layer(t, d, "middle", "base", nil)
	prepare(t, d, "active", "middle")
	if _, err := d.View(ctx, "view", "middle", nil); err != nil {
		t.Fatal(err)
	}
	again := open(t, root) // children are counted from the records
	for _, parent := range []string{"base", "middle"} {
		wantKind(t, "Remove "+parent, again.Remove(ctx, parent), errdefs.ErrFailedPrecondition)
	}
	if err := again.Remove(ctx, "active"); err != nil {
		t.Error(err)
	}
	wantKind(t, "Remove middle under its view", again.Remove(ctx, "middle"), errdefs.ErrFailedPrecondition)
	for _, name := range []string{"view", "middle", "base"} {
		if err := again.Remove(ctx, name); err != nil {
			t.Errorf("Remove %s: %v", name, err)
		}
	}
	if left := all(t, again); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestOfManyWhoWantAKeyOneGetsIt(t *testing.T) {
	d := open(t, t.TempDir())
	won := race(t, 16, func(ctx context.Context, _ int) error {
		_, err := d.Prepare(ctx, "key", "", nil)
		return err
	})
	if won != 1 {
		t.Errorf("%d made the same key", won)
	}
}

func TestASnapshotIsCommittedOnce(t *testing.T) {
	d := open(t, t.TempDir())
	prepare(t, d, "key", "")
	won := race(t, 16, func(ctx context.Context, n int) error { return d.Commit(ctx, fmt.Sprint("name", n), "key", nil) })
	if won != 1 {
		t.Errorf("%d committed the same snapshot; there are now %d, of one directory", won, len(all(t, d)))
	}
}

// race calls fn at once from many goroutines and counts those that succeed.
func race(t *testing.T, n int, fn func(context.Context, int) error) int {
	t.Helper()
	errs := make([]error, n)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			<-start
			errs[i] = fn(t.Context(), i)
		})
	}
	close(start)
	all.Wait()
	errs = slices.DeleteFunc(errs, func(err error) bool { return err != nil })
	return len(errs)
}

func TestLabelsAreMerged(t *testing.T) {
	d := open(t, t.TempDir())
	ctx := t.Context()
	if _, err := d.Prepare(ctx, "key", "", map[string]string{"keep": "1", "change": "1", "drop": "1"}); err != nil {
		t.Fatal(err)
	}
	before, err := d.Stat(ctx, "key")
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.SetLabels(ctx, "key", map[string]string{"change": "2", "drop": "", "add": "1", "never there": ""})
	if err != nil {
		t.Fatal(err)
	}
	want := before
	want.Labels = map[string]string{"keep": "1", "change": "2", "add": "1"}
	want.Updated = got.Updated
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !got.Updated.After(before.Updated) || len(before.Labels) != 3 {
		t.Errorf("before %+v, after %+v", before, got)
	}
	if stat, err := d.Stat(ctx, "key"); err != nil || !cmp.Equal(stat, got) {
		t.Errorf("%v: %s", err, cmp.Diff(got, stat))
	}
	// A commit's labels are its own.
	if err := d.Commit(ctx, "name", "key", map[string]string{"only": "1"}); err != nil {
		t.Fatal(err)
	}
	if stat, _ := d.Stat(ctx, "name"); !cmp.Equal(stat.Labels, map[string]string{"only": "1"}) {
		t.Errorf("%v", stat.Labels)
	}
}

func TestListGivesWhatBeginsWithThePrefix(t *testing.T) {
	d := open(t, t.TempDir())
	for _, key := range []string{"a/1", "a/2", "ab", "b/1"} {
		prepare(t, d, key, "")
	}
	var names []string
	if err := d.List(t.Context(), "a/", func(i storage.Info) error {
		names = append(names, i.Name)
		// The lister may ask for more.
		_, err := d.Stat(t.Context(), i.Name)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"a/1", "a/2"}) {
		t.Errorf("%v", names)
	}
	enough, calls := errors.New("enough"), 0
	if err := d.List(t.Context(), "", func(storage.Info) error { calls++; return enough }); !errors.Is(err, enough) || calls != 1 {
		t.Errorf("after %d calls: %v", calls, err)
	}
}
