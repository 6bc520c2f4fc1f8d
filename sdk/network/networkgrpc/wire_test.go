package networkgrpc

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/davit-engine/davit/sdk/internal/wiretest"
	"github.com/davit-engine/davit/sdk/network"
	networkv1 "github.com/davit-engine/davit/sdk/proto/davit/network/v1"
)

// echo notes what it was called with and answers what it was given.
type echo struct {
	called   []any
	network  network.Network
	endpoint network.Endpoint
}

func (e *echo) note(args ...any) error { e.called = args; return nil }

func (e *echo) CreateNetwork(_ context.Context, n network.Network) (network.Network, error) {
	return e.network, e.note("create", n)
}

func (e *echo) DeleteNetwork(_ context.Context, id string) error { return e.note("delete", id) }

func (e *echo) Attach(_ context.Context, a network.Attachment) (network.Endpoint, error) {
	if a.EndpointID == "taken" {
		return network.Endpoint{}, fmt.Errorf("Bind for 0.0.0.0:80 failed: %w", network.ErrPortInUse)
	}
	return e.endpoint, e.note("attach", a)
}

func (e *echo) Detach(_ context.Context, n, ep string) error { return e.note("detach", n, ep) }

func (e *echo) UpdatePorts(_ context.Context, n, ep string, ports []network.Port) ([]network.Port, error) {
	return e.endpoint.Ports, e.note("ports", n, ep, ports)
}

func (e *echo) SetGateway(_ context.Context, n, ep string, ipv4, ipv6 bool) error {
	return e.note("gateway", n, ep, ipv4, ipv6)
}

func (e *echo) List(context.Context) (network.State, error) {
	return network.State{Networks: []network.Network{e.network}, Endpoints: []network.Endpoint{e.endpoint}}, e.note("list")
}

func (e *echo) Reconcile(_ context.Context, networks, endpoints []string) error {
	return e.note("reconcile", networks, endpoints)
}

func TestEverythingCrossesTheWire(t *testing.T) {
	d := &echo{network: wiretest.Filled[network.Network](t), endpoint: wiretest.Filled[network.Endpoint](t)}
	c := NewClient(wiretest.Serve(t, func(s grpc.ServiceRegistrar) { Register(s, d) }))
	ctx := t.Context()
	compare := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	compare2 := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	same := func(what string, want, got any) {
		t.Helper()
		if diff := cmp.Diff(want, got, compare, compare2); diff != "" {
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

	n, err := c.CreateNetwork(ctx, d.network)
	check(err, "create", d.network)
	same("network", d.network, n)
	_, err = c.CreateNetwork(ctx, network.Network{ID: "n"})
	check(err, "create", network.Network{ID: "n"})
	check(c.DeleteNetwork(ctx, "n"), "delete", "n")
	a := wiretest.Filled[network.Attachment](t)
	e, err := c.Attach(ctx, a)
	check(err, "attach", a)
	same("endpoint", d.endpoint, e)
	check(c.Detach(ctx, "n", "e"), "detach", "n", "e")
	ports, err := c.UpdatePorts(ctx, "n", "e", a.Ports)
	check(err, "ports", "n", "e", a.Ports)
	same("ports", d.endpoint.Ports, ports)
	check(c.SetGateway(ctx, "n", "e", true, false), "gateway", "n", "e", true, false)
	check(c.SetGateway(ctx, "n", "e", false, true), "gateway", "n", "e", false, true)
	state, err := c.List(ctx)
	check(err, "list")
	same("state", network.State{Networks: []network.Network{d.network}, Endpoints: []network.Endpoint{d.endpoint}}, state)
	check(c.Reconcile(ctx, []string{"n"}, []string{"e", "f"}), "reconcile", []string{"n"}, []string{"e", "f"})

	_, err = c.Attach(ctx, network.Attachment{EndpointID: "taken"})
	if !errdefs.IsAlreadyExists(err) {
		t.Errorf("taken port: %v", err)
	}
}

func TestMalformedAddressesAreRefused(t *testing.T) {
	for _, a := range []*networkv1.Attachment{
		{Ipv4: "10.0.0"}, {Ipv6: "x"}, {Ports: []*networkv1.Port{{HostPort: 65536}}}, {Ports: []*networkv1.Port{{HostIp: "?"}}},
	} {
		if _, err := attachmentFromProto(a); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", a, err)
		}
	}
	if _, err := networkFromProto(&networkv1.NetworkSpec{Pools: []*networkv1.Pool{{Subnet: "10.0.0.0/99"}}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("subnet: %v", err)
	}
}
