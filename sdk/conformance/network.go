package conformance

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/conformance/netlab"
	"github.com/davit-engine/davit/sdk/network"
)

func networkChecks() []Check {
	return []Check{
		{Name: "network/create", Rule: "CreateNetwork makes a network and answers it with the pools in use.", run: networkCreate},
		{Name: "network/create-again", Rule: "All methods are idempotent by ID.", run: networkCreateAgain},
		{Name: "network/create-at-once", Rule: "All methods are idempotent by ID.", run: networkCreateAtOnce},
		{Name: "network/pools", Rule: "Part of subnet to allocate from; empty for all of it.", run: networkPools},
		{Name: "network/overlap", Rule: `Pools that overlap another network: INVALID_ARGUMENT with "Pool overlaps with other one on this address space".`, run: networkOverlap},
		{Name: "network/unknown-option", Rule: "An unknown option: INVALID_ARGUMENT naming it.", run: networkUnknownOption},
		{Name: "network/ipv6", Rule: "Whether endpoints get IPv6 addresses.", Need: network.FeatureIPv6, run: networkIPv6},
		{Name: "network/without-ipv6", Rule: "without it CreateNetwork answers NOT_IMPLEMENTED to one that wants it.", run: networkWithoutIPv6},
		{Name: "network/delete", Rule: "FAILED_PRECONDITION while it has endpoints. Succeeds if there is no such network.", run: networkDelete},
		{Name: "network/attach", Rule: "Attach puts an interface into a namespace, with addresses, routes and published ports, all or nothing.", run: networkAttach},
		{Name: "network/attach-again", Rule: "All methods are idempotent by ID.", run: networkAttachAgain},
		{Name: "network/attach-at-once", Rule: "All methods are idempotent by ID.", run: networkAttachAtOnce},
		{Name: "network/attach-unknown", Rule: "NOT_FOUND for an unknown network.", run: networkAttachUnknown},
		{Name: "network/addresses", Rule: "A taken address: ALREADY_EXISTS; one in no pool of the network: INVALID_ARGUMENT; none left: RESOURCE_EXHAUSTED.", run: networkAddresses},
		{Name: "network/exhausted", Rule: "Addresses and ports are free on return.", run: networkExhausted},
		{Name: "network/two-networks", Rule: "Whether this endpoint provides the IPv4 default route.", run: networkTwo},
		{Name: "network/reach", Rule: "Network drivers create networks, own their addresses and attach network namespaces to them.", run: networkReach},
		{Name: "network/internal", Rule: "No way out and no published ports.", run: networkInternal},
		{Name: "network/gateway", Rule: "SetGateway says which default routes of its namespace an endpoint provides from now on.", run: networkGateway},
		{Name: "network/detach", Rule: "Detach undoes Attach, also when the namespace is gone. Succeeds if there is no such endpoint.", run: networkDetach},
		{Name: "network/list", Rule: "List reports all networks and endpoints of the driver.", run: networkList},
		{Name: "network/restart", Rule: "what containers use stays.", run: networkRestart},
		{Name: "network/reboot", Rule: "The driver drops all else that it made for this engine and restores what is missing of the valid.", run: networkReboot},
		{Name: "network/reconcile", Rule: "The driver drops all else that it made for this engine and restores what is missing of the valid.", run: networkReconcile},
		{Name: "network/others", Rule: "The plugin tags every kernel resource it makes with it and touches none without it.", run: networkOthers},
		{Name: "network/many-at-once", Rule: "Every RPC therefore answers a repetition with the same IDs and arguments as it answered the first", run: networkMany},
	}
}

func networkCreate(t *T) {
	want := t.wantNet("new", nil)
	n := t.net("new", nil)
	if n.ID != want.ID || n.Name != want.Name || n.IPv4 != want.IPv4 || n.IPv6 != want.IPv6 || n.Internal || n.Labels["kit"] != "yes" {
		t.errorf("asked for %+v, it answers %+v", want, n)
	}
	four := 0
	for _, p := range n.Pools {
		if p.Subnet.Addr().Is4() {
			four++
		}
		if p.Subnet != p.Subnet.Masked() || p.Gateway.IsValid() && !p.Subnet.Contains(p.Gateway) {
			t.errorf("the pool is odd: %+v", p)
		}
	}
	if four == 0 {
		t.errorf("a network with IPv4 has pools %+v", n.Pools)
	}
}

func networkCreateAgain(t *T) {
	n := t.net("twice", nil)
	again, err := t.network().CreateNetwork(t.ctx, t.wantNet("twice", nil))
	t.must(err, "CreateNetwork again")
	t.same(n, again, "CreateNetwork answers")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	again, err = t.network().CreateNetwork(t.ctx, t.wantNet("twice", nil))
	t.must(err, "CreateNetwork again, of a new process")
	t.same(n, again, "CreateNetwork of a new process answers")
}

func networkCreateAtOnce(t *T) {
	want := t.wantNet("race", nil)
	t.cleanup(func() { t.noNet(want.ID) })
	made := make([]network.Network, 8)
	for i, err := range together(len(made), func(i int) (err error) {
		made[i], err = t.network().CreateNetwork(t.ctx, want)
		return err
	}) {
		t.must(err, "call %d of %d at once", i, len(made))
		t.same(made[0], made[i], "CreateNetwork at once answers")
	}
	if found := len(t.listed().Networks); found != 1 {
		t.errorf("%d calls made %d networks", len(made), found)
	}
	if len(t.o.DriverOptions) > 0 {
		return // which may be for one network only
	}
	for i := range made {
		t.cleanup(func() { t.noNet(t.netID(fmt.Sprint("other", i))) })
	}
	for i, err := range together(len(made), func(i int) (err error) {
		made[i], err = t.network().CreateNetwork(t.ctx, t.wantNet(fmt.Sprint("other", i), nil))
		return err
	}) {
		t.must(err, "network %d of %d at once", i, len(made))
	}
	for i, a := range made {
		for _, b := range made[:i] {
			for _, p := range a.Pools {
				if slices.ContainsFunc(b.Pools, func(q network.Pool) bool { return p.Subnet.Overlaps(q.Subnet) }) {
					t.errorf("two networks that were made at once have pools %+v and %+v", a.Pools, b.Pools)
				}
			}
		}
	}
}

// pool is an IPv4 range that neither the host nor a default has.
func pool(subnet string) network.Pool { return network.Pool{Subnet: netip.MustParsePrefix(subnet)} }

func networkPools(t *T) {
	p := pool("10.77.0.0/24")
	p.Range, p.Gateway = netip.MustParsePrefix("10.77.0.64/29"), netip.MustParseAddr("10.77.0.254")
	p.Aux = map[string]netip.Addr{"printer": netip.MustParseAddr("10.77.0.66")}
	n := t.net("given", func(n *network.Network) { n.IPv6, n.Pools = false, []network.Pool{p} })
	if len(n.Pools) != 1 {
		t.fatalf("one pool was given, %+v are in use", n.Pools)
	}
	t.same(p, n.Pools[0], "CreateNetwork answers the pool")
	for i := range 5 {
		e, ns := t.end(n, fmt.Sprint("end", i), nil)
		if a := e.IPv4.Addr(); !p.Range.Contains(a) || a == p.Aux["printer"] || e.IPv4.Bits() != p.Subnet.Bits() {
			t.errorf("of range %s without %s an endpoint got %s", p.Range, p.Aux["printer"], e.IPv4)
		}
		if e.Gateway4 != p.Gateway {
			t.errorf("the gateway should be %s and is %s", p.Gateway, e.Gateway4)
		}
		t.plugged(ns, e, true, false)
	}
}

func networkOverlap(t *T) {
	if len(t.o.DriverOptions) > 0 {
		t.net("first", nil)
		t.noNet(t.secondNet("second", nil).ID)
		t.noNet(t.netID("first"))
	}
	t.net("wide", func(n *network.Network) { n.IPv6, n.Pools = false, []network.Pool{pool("10.77.0.0/16")} })
	for _, subnet := range []string{"10.77.0.0/16", "10.77.8.0/24", "10.76.0.0/15"} {
		want := t.wantNet("in "+subnet, func(n *network.Network) { n.IPv6, n.Pools = false, []network.Pool{pool(subnet)} })
		t.cleanup(func() { t.noNet(want.ID) })
		_, err := t.network().CreateNetwork(t.ctx, want)
		t.fails(err, errdefs.ErrInvalidArgument, "CreateNetwork with %s beside 10.77.0.0/16", subnet)
		if err != nil && !strings.Contains(err.Error(), "Pool overlaps with other one on this address space") {
			t.errorf("the error has other words: %v", err)
		}
		for _, n := range t.listed().Networks {
			if n.ID == want.ID {
				t.errorf("CreateNetwork failed, and the network is listed")
			}
		}
	}
}

func networkUnknownOption(t *T) {
	want := t.wantNet("odd", func(n *network.Network) {
		n.Options = map[string]string{"kit-no-such-option": "1"}
		for key, value := range t.o.DriverOptions {
			n.Options[key] = value
		}
	})
	t.cleanup(func() { t.noNet(want.ID) })
	_, err := t.network().CreateNetwork(t.ctx, want)
	t.fails(err, errdefs.ErrInvalidArgument, "CreateNetwork with an unknown option")
	if err != nil && !strings.Contains(err.Error(), "kit-no-such-option") {
		t.errorf("the error does not name the option: %v", err)
	}
	if list := t.listed().Networks; len(list) > 0 {
		t.errorf("CreateNetwork failed, and %+v is listed", list)
	}
}

func networkIPv6(t *T) {
	t.needIPv6()
	both := t.net("both", nil)
	e, ns := t.end(both, "both", nil)
	if !e.IPv4.IsValid() || !e.IPv6.IsValid() {
		t.errorf("an endpoint of a network with IPv4 and IPv6 has %s and %s", e.IPv4, e.IPv6)
	}
	t.plugged(ns, e, true, true)
	t.noNet(both.ID)
	p := pool("fd00:77::/64")
	six := t.net("six", func(n *network.Network) { n.IPv4, n.Pools = false, []network.Pool{p} })
	a, nsA := t.end(six, "a", nil)
	b, nsB := t.end(six, "b", func(a *network.Attachment) { a.IPv6 = netip.MustParseAddr("fd00:77::77") })
	if a.IPv4.IsValid() || !p.Subnet.Contains(a.IPv6.Addr()) || b.IPv6 != netip.MustParsePrefix("fd00:77::77/64") {
		t.errorf("endpoints of a network with %s alone have %s and %s, %s", p.Subnet, a.IPv4, a.IPv6, b.IPv6)
	}
	t.plugged(nsA, a, false, true)
	t.serves(nsB, "b", 80)
	t.reached(nsA, netip.AddrPortFrom(b.IPv6.Addr(), 80), "b", "a neighbour on a network with IPv6 alone")
}

func networkWithoutIPv6(t *T) {
	if slices.Contains(t.features(), network.FeatureIPv6) {
		t.skipf("the driver has the feature")
	}
	want := t.wantNet("six", func(n *network.Network) { n.IPv6 = true })
	t.cleanup(func() { t.noNet(want.ID) })
	_, err := t.network().CreateNetwork(t.ctx, want)
	t.fails(err, errdefs.ErrNotImplemented, "CreateNetwork with IPv6")
}

func networkDelete(t *T) {
	given := func(n *network.Network) { n.IPv6, n.Pools = false, []network.Pool{pool("10.77.0.0/24")} }
	n := t.net("gone", given)
	e, _ := t.end(n, "end", nil)
	t.fails(t.network().DeleteNetwork(t.ctx, n.ID), errdefs.ErrFailedPrecondition, "DeleteNetwork of one with an endpoint")
	t.must(t.network().Detach(t.ctx, n.ID, e.EndpointID), "Detach")
	for i, err := range together(8, func(int) error { return t.network().DeleteNetwork(t.ctx, n.ID) }) {
		t.must(err, "DeleteNetwork %d of 8 at once", i)
	}
	t.must(t.network().DeleteNetwork(t.ctx, n.ID), "DeleteNetwork again")
	t.must(t.network().DeleteNetwork(t.ctx, t.netID("none")), "DeleteNetwork of one that never was")
	if list := t.listed().Networks; len(list) > 0 {
		t.errorf("it is deleted, and %+v is listed", list)
	}
	t.net("other", given) // the pool is free
}

func networkInternal(t *T) {
	n := t.net("inside", func(n *network.Network) { n.Internal = true })
	ports := []network.Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8080}}
	a, nsA := t.end(n, "a", func(a *network.Attachment) { a.Ports = ports })
	b, nsB := t.end(n, "b", nil)
	for _, e := range []network.Endpoint{a, b} {
		if len(e.Ports) > 0 || e.Gateway4.IsValid() || e.Gateway6.IsValid() {
			t.errorf("an endpoint of an internal network has a way out: %+v", e)
		}
	}
	t.plugged(nsA, a, false, false)
	t.serves(nsA, "a", 80)
	t.serves(t.o.host.Other, "other", 80)
	t.reached(nsB, netip.AddrPortFrom(a.IPv4.Addr(), 80), "a", "a neighbour on an internal network")
	t.unreached(nsA, "udp", netip.AddrPortFrom(netlab.There4.Addr(), 80), "other", "another host, from an internal network")
	t.unreached(t.o.host.Other, "tcp", netip.AddrPortFrom(netlab.Here4.Addr(), 8080), "a", "a port of an endpoint of an internal network")
}

func networkList(t *T) {
	a := t.net("a", nil)
	e, _ := t.end(a, "in a", nil)
	state := t.listed()
	if len(state.Networks) != 1 || len(state.Endpoints) != 1 {
		t.fatalf("one network and one endpoint were made, %+v is listed", state)
	}
	t.same(a, state.Networks[0], "the network is listed as")
	t.same(e, state.Endpoints[0], "the endpoint is listed as")
	t.must(t.network().Detach(t.ctx, a.ID, e.EndpointID), "Detach")
	if state = t.listed(); len(state.Networks) != 1 || len(state.Endpoints) != 0 {
		t.errorf("after Detach %+v is listed", state)
	}
	b := t.secondNet("b", nil)
	if state = t.listed(); len(state.Networks) != 2 {
		t.errorf("of two networks %+v are listed", state.Networks)
	}
	for _, id := range []string{a.ID, b.ID} {
		t.must(t.network().DeleteNetwork(t.ctx, id), "DeleteNetwork")
	}
	if state = t.listed(); len(state.Networks) > 0 {
		t.errorf("after DeleteNetwork %+v is listed", state)
	}
}

func networkMany(t *T) {
	n := t.net("many", nil)
	spaces := make([]*netlab.Namespace, 12)
	for i := range spaces {
		spaces[i] = t.space()
	}
	for i, err := range together(len(spaces), func(i int) error {
		a := t.wantEnd(n, fmt.Sprint("end", i), spaces[i], nil)
		for range 2 { // twice: what is detached leaves nothing in the way
			if _, err := t.network().Attach(t.ctx, a); err != nil {
				return err
			}
			if _, err := t.network().List(t.ctx); err != nil {
				return err
			}
			if err := t.network().Detach(t.ctx, n.ID, a.EndpointID); err != nil {
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			t.errorf("life %d of %d at once: %v", i, len(spaces), err)
		}
	}
}
