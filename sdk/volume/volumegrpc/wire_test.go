package volumegrpc

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/davit-engine/davit/sdk/internal/wiretest"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/volume"
)

// echo notes what it was called with and answers what it was given.
type echo struct {
	called []any
	volume volume.Volume
	mount  mount.Mount
}

func (e *echo) note(args ...any) error { e.called = args; return nil }

func (e *echo) Create(_ context.Context, name string, options, labels map[string]string) (volume.Volume, error) {
	return e.volume, e.note("create", name, options, labels)
}

func (e *echo) Get(_ context.Context, name string) (volume.Volume, error) {
	return e.volume, e.note("get", name)
}

func (e *echo) List(context.Context) ([]volume.Volume, error) {
	return []volume.Volume{e.volume, {Name: "b"}}, e.note("list")
}

func (e *echo) Remove(_ context.Context, name string) error { return e.note("remove", name) }

func (e *echo) Mount(_ context.Context, name, consumer string) (mount.Mount, error) {
	return e.mount, e.note("mount", name, consumer)
}

func (e *echo) Unmount(_ context.Context, name, consumer string) error {
	return e.note("unmount", name, consumer)
}

func (e *echo) Usage(_ context.Context, name string) (volume.Usage, error) {
	return volume.Usage{Size: -1}, e.note("usage", name)
}

func (e *echo) Reconcile(_ context.Context, claims []volume.Claim) error {
	return e.note("reconcile", claims)
}

func TestEverythingCrossesTheWire(t *testing.T) {
	d := &echo{volume: wiretest.Filled[volume.Volume](t), mount: wiretest.Filled[mount.Mount](t)}
	c := NewClient(wiretest.Serve(t, func(s grpc.ServiceRegistrar) { Register(s, d) }))
	ctx := t.Context()
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

	options, labels := map[string]string{"o": "1"}, map[string]string{"l": "2"}
	v, err := c.Create(ctx, "v", options, labels)
	check(err, "create", "v", options, labels)
	same("volume", d.volume, v)
	v, err = c.Get(ctx, "v")
	check(err, "get", "v")
	same("volume", d.volume, v)
	list, err := c.List(ctx)
	check(err, "list")
	same("list", []volume.Volume{d.volume, {Name: "b"}}, list)
	check(c.Remove(ctx, "v"), "remove", "v")
	m, err := c.Mount(ctx, "v", "c")
	check(err, "mount", "v", "c")
	same("mount", d.mount, m)
	check(c.Unmount(ctx, "v", "c"), "unmount", "v", "c")
	u, err := c.Usage(ctx, "v")
	check(err, "usage", "v")
	same("usage", volume.Usage{Size: -1}, u)
	claims := wiretest.Filled[[]volume.Claim](t)
	check(c.Reconcile(ctx, claims), "reconcile", claims)
}
