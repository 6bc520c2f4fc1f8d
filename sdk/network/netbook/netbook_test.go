package netbook

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/davit-engine/davit/sdk/network"
)

// paper are cables that only remember what was done. The kit judges books with real
// ones.
type paper struct {
	did  []string
	fail string // the call that fails
}

func (p *paper) call(what string) error {
	p.did = append(p.did, what)
	if p.fail != "" && strings.HasPrefix(what, p.fail) {
		return errors.New(what + " fails")
	}
	return nil
}

func (p *paper) MakeNetwork(_ context.Context, n network.Network) error {
	return p.call("make " + n.ID)
}
func (p *paper) Plug(_ context.Context, e network.Endpoint) error {
	return p.call("plug " + e.EndpointID)
}
func (p *paper) Route(_ context.Context, e network.Endpoint, wanted bool) error {
	if wanted {
		return p.call("route " + e.EndpointID)
	}
	return p.call("unroute " + e.EndpointID)
}
func (p *paper) Remove(_ context.Context, link string) error { return p.call("remove " + link) }

func open(t *testing.T, root string) (*Book, *paper) {
	t.Helper()
	p := &paper{}
	b, err := Open(root, "engine", netip.MustParsePrefix("203.0.113.0/24"), p)
	if err != nil {
		t.Fatal(err)
	}
	return b, p
}

func attachment(id string) network.Attachment {
	return network.Attachment{NetworkID: "n", EndpointID: id, Netns: "/proc/self/ns/net", Interface: "eth0", Gateway4: true}
}

// TestWhatFailsIsInNoBook: nothing is listed of it and its address is free.
func TestWhatFailsIsInNoBook(t *testing.T) {
	b, p := open(t, t.TempDir())
	ctx := t.Context()
	p.fail = "make"
	if _, err := b.CreateNetwork(ctx, network.Network{ID: "n", IPv4: true}); err == nil {
		t.Error("a network without a link was made")
	}
	p.fail = ""
	if _, err := b.CreateNetwork(ctx, network.Network{ID: "n", IPv4: true}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"plug", "route"} {
		p.fail, p.did = step, nil
		if _, err := b.Attach(ctx, attachment("e")); err == nil {
			t.Errorf("an endpoint whose %s failed was made", step)
		}
		if last := p.did[len(p.did)-1]; last != "remove "+b.Link("e") {
			t.Errorf("after a %s that failed: %s", step, last)
		}
	}
	p.fail = ""
	e, err := b.Attach(ctx, attachment("e"))
	if err != nil || e.IPv4.String() != "203.0.113.2/24" {
		t.Errorf("%+v, %v", e, err)
	}
	p.fail = "remove"
	if err := b.Detach(ctx, "n", "e"); err == nil {
		t.Error("an endpoint whose link stays is gone")
	}
	if s, err := b.List(ctx); err != nil || len(s.Endpoints) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestBooksAreReadAgain: also which endpoint has the default route, when its link has
// to be made again.
func TestBooksAreReadAgain(t *testing.T) {
	root := t.TempDir()
	b, _ := open(t, root)
	ctx := t.Context()
	if _, err := b.CreateNetwork(ctx, network.Network{ID: "n", IPv4: true, Labels: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"with", "without"} {
		if _, err := b.Attach(ctx, attachment(id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.SetGateway(ctx, "n", "without", false, false); err != nil {
		t.Fatal(err)
	}
	want, err := b.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	again, p := open(t, root)
	got, err := again.List(ctx)
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); err != nil || diff != "" {
		t.Errorf("%v: %s", err, diff)
	}
	if err := again.Reconcile(ctx, []string{"n"}, []string{"with", "without"}); err != nil {
		t.Fatal(err)
	}
	made := []string{"remove " + b.Link("n"), "make n", "remove " + b.Link("with"), "plug with", "route with", "remove " + b.Link("without"), "plug without"}
	if diff := cmp.Diff(made, p.did); diff != "" {
		t.Errorf("what was missing: %s", diff)
	}
	if len(b.Link("n")) > 15 || b.Link("n") == b.Link("with") {
		t.Errorf("links are called %s and %s", b.Link("n"), b.Link("with"))
	}
}

func TestABaseHasRoom(t *testing.T) {
	for _, base := range []string{"10.0.0.0/25", "fd00::/64"} {
		if _, err := Open(t.TempDir(), "engine", netip.MustParsePrefix(base), &paper{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", base, err)
		}
	}
	b, _ := open(t, t.TempDir())
	if _, err := b.CreateNetwork(t.Context(), network.Network{ID: "n", IPv4: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CreateNetwork(t.Context(), network.Network{ID: "m", IPv4: true}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("a second network of a base for one: %v", err)
	}
}
