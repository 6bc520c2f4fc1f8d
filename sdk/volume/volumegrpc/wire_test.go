package volumegrpc

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
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

// copier is an echo with all that a driver may have besides.
type copier struct{ *echo }

func (c copier) Clone(_ context.Context, source, name string, labels map[string]string) (volume.Volume, error) {
	return c.volume, c.note("clone", source, name, labels)
}

func (c copier) Rename(_ context.Context, name, newName string) (volume.Volume, error) {
	return c.volume, c.note("rename", name, newName)
}

func (c copier) Resize(_ context.Context, name string, size int64) (volume.Volume, error) {
	return c.volume, c.note("resize", name, size)
}

func TestOptionalMethodsCrossTheWire(t *testing.T) {
	d := copier{&echo{volume: wiretest.Filled[volume.Volume](t)}}
	c := NewClient(wiretest.Serve(t, func(s grpc.ServiceRegistrar) { Register(s, d) }))
	labels := map[string]string{"l": "2"}
	for _, call := range []struct {
		args []any
		do   func() (volume.Volume, error)
	}{
		{[]any{"clone", "v", "w", labels}, func() (volume.Volume, error) { return c.Clone(t.Context(), "v", "w", labels) }},
		{[]any{"rename", "v", "w"}, func() (volume.Volume, error) { return c.Rename(t.Context(), "v", "w") }},
		{[]any{"resize", "v", int64(1 << 40)}, func() (volume.Volume, error) { return c.Resize(t.Context(), "v", 1<<40) }},
	} {
		v, err := call.do()
		if diff := cmp.Diff(call.args, d.called) + cmp.Diff(d.volume, v); err != nil || diff != "" {
			t.Errorf("%v: %v, %s", call.args, err, diff)
		}
	}
	if got := Features(d); !slices.Equal(got, []string{"clone", "rename", "resize"}) {
		t.Errorf("features %v", got)
	}
}

func TestADriverWithoutOptionalMethods(t *testing.T) {
	d := &echo{}
	c := NewClient(wiretest.Serve(t, func(s grpc.ServiceRegistrar) { Register(s, d) }))
	_, cloned := c.Clone(t.Context(), "v", "w", nil)
	_, renamed := c.Rename(t.Context(), "v", "w")
	_, resized := c.Resize(t.Context(), "v", 1)
	for what, err := range map[string]error{"clone": cloned, "rename": renamed, "resize": resized} {
		if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "does not "+what+" volumes") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := Features(d); got != nil {
		t.Errorf("features %v", got)
	}
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
