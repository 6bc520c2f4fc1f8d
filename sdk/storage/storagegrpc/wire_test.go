package storagegrpc

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/davit-engine/davit/sdk/internal/wiretest"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/storage"
)

// echo notes what it was called with and answers what it was given.
type echo struct {
	called []any
	mounts []mount.Mount
	info   storage.Info
}

func (e *echo) note(args ...any) error { e.called = args; return nil }

func (e *echo) Prepare(_ context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	return e.mounts, e.note("prepare", key, parent, labels)
}

func (e *echo) View(_ context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	return e.mounts, e.note("view", key, parent, labels)
}

func (e *echo) Mounts(_ context.Context, key string) ([]mount.Mount, error) {
	return e.mounts, e.note("mounts", key)
}

func (e *echo) Commit(_ context.Context, name, key string, labels map[string]string) error {
	return e.note("commit", name, key, labels)
}

func (e *echo) Remove(_ context.Context, key string) error { return e.note("remove", key) }

func (e *echo) Stat(_ context.Context, key string) (storage.Info, error) {
	return e.info, e.note("stat", key)
}

func (e *echo) SetLabels(_ context.Context, key string, labels map[string]string) (storage.Info, error) {
	return e.info, e.note("setlabels", key, labels)
}

func (e *echo) List(_ context.Context, prefix string, fn func(storage.Info) error) error {
	for _, kind := range []storage.Kind{storage.KindView, storage.KindActive, storage.KindCommitted} {
		info := e.info
		info.Kind = kind
		if err := fn(info); err != nil {
			return err
		}
	}
	return e.note("list", prefix)
}

func (e *echo) Usage(_ context.Context, key string) (storage.Usage, error) {
	return storage.Usage{Size: 5, Inodes: 6}, e.note("usage", key)
}

func (e *echo) Release(_ context.Context, key string) error { return e.note("release", key) }

type differ struct{ echo }

func (d *differ) Diff(_ context.Context, key string, fn func(storage.Change) error) error {
	for _, kind := range []storage.ChangeKind{storage.ChangeModify, storage.ChangeAdd, storage.ChangeDelete} {
		if err := fn(storage.Change{Kind: kind, Path: "/" + string(kind)}); err != nil {
			return err
		}
	}
	return fmt.Errorf("reading %s: %w", key, errdefs.ErrDataLoss)
}

func TestEverythingCrossesTheWire(t *testing.T) {
	d := &echo{mounts: wiretest.Filled[[]mount.Mount](t), info: wiretest.Filled[storage.Info](t)}
	d.info.Kind = storage.KindActive
	c := NewClient(wiretest.Serve(t, func(s grpc.ServiceRegistrar) { Register(s, d) }))
	ctx := t.Context()
	labels := map[string]string{"a": "b"}
	same := func(what string, want, got any) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	check := func(err error, args ...any) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v: %v", args[0], err)
		}
		same("arguments", args, d.called)
	}

	ms, err := c.Prepare(ctx, "k", "p", labels)
	check(err, "prepare", "k", "p", labels)
	same("mounts", d.mounts, ms)
	ms, err = c.View(ctx, "k", "p", labels)
	check(err, "view", "k", "p", labels)
	same("mounts", d.mounts, ms)
	ms, err = c.Mounts(ctx, "k")
	check(err, "mounts", "k")
	same("mounts", d.mounts, ms)
	check(c.Commit(ctx, "n", "k", labels), "commit", "n", "k", labels)
	check(c.Remove(ctx, "k"), "remove", "k")
	info, err := c.Stat(ctx, "k")
	check(err, "stat", "k")
	same("info", d.info, info)
	info, err = c.SetLabels(ctx, "k", labels)
	check(err, "setlabels", "k", labels)
	same("info", d.info, info)
	var kinds []storage.Kind
	err = c.List(ctx, "pre", func(i storage.Info) error { kinds = append(kinds, i.Kind); return nil })
	check(err, "list", "pre")
	same("kinds", []storage.Kind{storage.KindView, storage.KindActive, storage.KindCommitted}, kinds)
	usage, err := c.Usage(ctx, "k")
	check(err, "usage", "k")
	same("usage", storage.Usage{Size: 5, Inodes: 6}, usage)
	check(c.Release(ctx, "k"), "release", "k")

	enough := errors.New("enough")
	if err := c.List(ctx, "", func(storage.Info) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("list that is cut short: %v", err)
	}
	if err := c.Diff(ctx, "k", nil); !errdefs.IsNotImplemented(err) {
		t.Errorf("diff without the feature: %v", err)
	}
}

func TestDiffCrossesTheWire(t *testing.T) {
	c := NewClient(wiretest.Serve(t, func(s grpc.ServiceRegistrar) { Register(s, &differ{}) }))
	var got []storage.Change
	err := c.Diff(t.Context(), "k", func(ch storage.Change) error { got = append(got, ch); return nil })
	if !errdefs.IsDataLoss(err) || err.Error() != "reading k: data loss" {
		t.Errorf("got %v", err)
	}
	want := []storage.Change{{Kind: "modify", Path: "/modify"}, {Kind: "add", Path: "/add"}, {Kind: "delete", Path: "/delete"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
