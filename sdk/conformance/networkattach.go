package conformance

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/conformance/netlab"
	"github.com/davit-engine/davit/sdk/network"
)

func networkAttach(t *T) {
	n := t.net("net", nil)
	ns := t.space()
	a := t.wantEnd(n, "one", ns, nil)
	e, err := t.network().Attach(t.ctx, a)
	t.must(err, "Attach")
	if e.NetworkID != n.ID || e.EndpointID != a.EndpointID || e.ContainerID != a.ContainerID || e.Netns != ns.Path || e.Interface != "eth0" {
		t.errorf("asked for %+v, it answers %+v", a, e)
	}
	for _, p := range n.Pools {
		got, gateway := e.IPv4, e.Gateway4
		if p.Subnet.Addr().Is6() {
			got, gateway = e.IPv6, e.Gateway6
		}
		if !p.Subnet.Contains(got.Addr()) || got.Bits() != p.Subnet.Bits() || got.Addr() == p.Gateway || got.Addr() == p.Subnet.Addr() {
			t.errorf("of pool %+v the endpoint has %s", p, got)
		}
		if gateway.IsValid() && gateway != p.Gateway {
			t.errorf("the gateway of pool %+v is %s", p, gateway)
		}
	}
	t.plugged(ns, e, true, n.IPv6)
	named, nsNamed := t.end(n, "named", func(a *network.Attachment) {
		a.Interface, a.MAC, a.Gateway4, a.Gateway6 = "net7", "02:42:ac:77:00:01", false, false
	})
	if named.Interface != "net7" || !strings.EqualFold(named.MAC, "02:42:ac:77:00:01") {
		t.errorf("asked for interface net7 with 02:42:ac:77:00:01, it is %s with %s", named.Interface, named.MAC)
	}
	t.plugged(nsNamed, named, false, false)
}

func networkAttachAgain(t *T) {
	n, ns := t.net("net", nil), t.space()
	a := t.wantEnd(n, "one", ns, nil)
	ends := make([]network.Endpoint, 4)
	for i := range ends { // one after the other, and the last of a new process
		if i == len(ends)-1 {
			t.must(t.again(t.ctx), "killing and starting the plugin")
		}
		var err error
		ends[i], err = t.network().Attach(t.ctx, a)
		t.must(err, "Attach, time %d", i+1)
		t.same(ends[0], ends[i], "Attach answers, time %d", i+1)
	}
	if list, err := ns.Interfaces(); err != nil || len(list) != 1 {
		t.errorf("attached several times there are %+v (%v)", list, err)
	}
	t.must(t.network().Detach(t.ctx, n.ID, a.EndpointID), "Detach")
	t.unplugged(ns, "attached several times and detached once")
}

func networkAttachAtOnce(t *T) {
	n := t.net("net", nil)
	const count = 12
	spaces, ends := make([]*netlab.Namespace, count), make([]network.Endpoint, count)
	for i := range spaces {
		spaces[i] = t.space()
	}
	for i, err := range together(count, func(i int) (err error) {
		ends[i], err = t.network().Attach(t.ctx, t.wantEnd(n, fmt.Sprint("end", i), spaces[i], nil))
		return err
	}) {
		t.must(err, "Attach %d of %d at once", i, count)
	}
	for i, e := range ends {
		t.plugged(spaces[i], e, true, n.IPv6)
		for _, other := range ends[:i] {
			if e.IPv4 == other.IPv4 || e.IPv6.IsValid() && e.IPv6 == other.IPv6 || strings.EqualFold(e.MAC, other.MAC) {
				t.errorf("two endpoints have one address: %+v, %+v", e, other)
			}
		}
	}
}

func networkAttachUnknown(t *T) {
	ns := t.space()
	a := t.wantEnd(network.Network{ID: t.netID("none")}, "one", ns, nil)
	_, err := t.network().Attach(t.ctx, a)
	t.fails(err, errdefs.ErrNotFound, "Attach to an unknown network")
	n := t.net("net", nil)
	a = t.wantEnd(n, "one", ns, nil)
	a.Netns = filepath.Join(t.scratch(), "no-such-namespace")
	if _, err = t.network().Attach(t.ctx, a); err == nil {
		t.errorf("Attach of a namespace that is not there succeeded")
	}
	t.noEnd(a.EndpointID, "after an Attach that failed")
	a.Netns = ns.Path
	e, err := t.network().Attach(t.ctx, a)
	t.must(err, "Attach, after one that failed")
	t.plugged(ns, e, true, n.IPv6)
}

func networkAddresses(t *T) {
	p := pool("10.77.0.0/24")
	p.Gateway = netip.MustParseAddr("10.77.0.1")
	p.Aux = map[string]netip.Addr{"printer": netip.MustParseAddr("10.77.0.5")}
	n := t.net("net", func(n *network.Network) { n.IPv6, n.Pools = false, []network.Pool{p} })
	fixed := func(address string) func(*network.Attachment) {
		return func(a *network.Attachment) { a.IPv4 = netip.MustParseAddr(address) }
	}
	e, ns := t.end(n, "fixed", fixed("10.77.0.77"))
	if e.IPv4.String() != "10.77.0.77/24" {
		t.errorf("asked for 10.77.0.77, the endpoint has %s", e.IPv4)
	}
	t.plugged(ns, e, true, false)
	for _, c := range []struct {
		address, what string
		want          error
	}{
		{"10.77.0.77", "an address that another endpoint has", errdefs.ErrAlreadyExists},
		{"10.77.0.1", "the gateway's address", errdefs.ErrAlreadyExists},
		{"10.77.0.5", "an auxiliary address", errdefs.ErrAlreadyExists},
		{"10.78.0.7", "an address of another pool", errdefs.ErrInvalidArgument},
	} {
		ns := t.space()
		a := t.wantEnd(n, "refused", ns, fixed(c.address))
		_, err := t.network().Attach(t.ctx, a)
		t.fails(err, c.want, "Attach with %s", c.what)
		t.noEnd(a.EndpointID, "after an Attach that failed")
		t.unplugged(ns, "after an Attach that failed")
	}
	t.must(t.network().Detach(t.ctx, n.ID, e.EndpointID), "Detach")
	again, _ := t.end(n, "again", fixed("10.77.0.77"))
	if again.IPv4 != e.IPv4 {
		t.errorf("the address of an endpoint that is detached cannot be had: %s", again.IPv4)
	}
	t.must(t.again(t.ctx), "killing and starting the plugin")
	_, err := t.network().Attach(t.ctx, t.wantEnd(n, "late", t.space(), fixed("10.77.0.77")))
	t.fails(err, errdefs.ErrAlreadyExists, "Attach with an address that another endpoint has, of a new process")
}

// networkExhausted: of eight addresses one is the network's, one the gateway's and one
// for broadcasts.
func networkExhausted(t *T) {
	p := pool("10.77.0.0/29")
	p.Gateway = netip.MustParseAddr("10.77.0.1")
	n := t.net("small", func(n *network.Network) { n.IPv6, n.Pools = false, []network.Pool{p} })
	ends := t.exhaust(n, 5)
	if len(ends) == 0 {
		t.fatalf("no endpoint can be attached")
	}
	if len(ends) < 5 {
		t.errorf("of five addresses %d are given", len(ends))
	}
	t.must(t.network().Detach(t.ctx, n.ID, ends[0].EndpointID), "Detach")
	if e, _ := t.end(n, "next", nil); e.IPv4 != ends[0].IPv4 {
		t.errorf("%s is the only free address, and %s is given", ends[0].IPv4, e.IPv4)
	}
}

func networkTwo(t *T) {
	one, ns := t.net("one", nil), t.space()
	two := t.secondNet("two", nil)
	first, err := t.network().Attach(t.ctx, t.wantEnd(one, "first", ns, nil))
	t.must(err, "Attach")
	second, err := t.network().Attach(t.ctx, t.wantEnd(two, "second", ns, func(a *network.Attachment) {
		a.Interface, a.Gateway4, a.Gateway6 = "eth1", false, false
	}))
	t.must(err, "Attach to a second network")
	t.plugged(ns, first, true, one.IPv6)
	t.plugged(ns, second, false, false)
	t.must(t.network().Detach(t.ctx, two.ID, second.EndpointID), "Detach")
	t.plugged(ns, first, true, one.IPv6)
}

func networkReach(t *T) {
	n := t.net("net", nil)
	a, nsA := t.end(n, "a", nil)
	b, nsB := t.end(n, "b", nil)
	t.serves(nsA, "a", 80)
	t.serves(nsB, "b", 80)
	for _, c := range []struct {
		from netlab.Place
		to   network.Endpoint
		name string
	}{{nsA, b, "b"}, {nsB, a, "a"}} {
		for _, address := range []netip.Prefix{c.to.IPv4, c.to.IPv6} {
			if address.IsValid() {
				t.reached(c.from, netip.AddrPortFrom(address.Addr(), 80), c.name, "a neighbour on the network")
			}
		}
	}
}

func networkGateway(t *T) {
	n := t.net("net", nil)
	e, ns := t.end(n, "one", func(a *network.Attachment) { a.Gateway4, a.Gateway6 = false, false })
	if !e.Gateway4.IsValid() {
		t.skipf("the driver's networks have no gateway")
	}
	t.plugged(ns, e, false, false)
	for _, c := range [][2]bool{{true, false}, {true, n.IPv6}, {false, n.IPv6}, {false, false}} {
		for _, what := range []string{"SetGateway", "SetGateway again"} {
			t.must(t.network().SetGateway(t.ctx, n.ID, e.EndpointID, c[0], c[1]), "%s", what)
			t.plugged(ns, e, c[0], c[1])
		}
	}
	t.fails(t.network().SetGateway(t.ctx, n.ID, t.netID("none"), true, false), errdefs.ErrNotFound, "SetGateway of an unknown endpoint")
}

func networkDetach(t *T) {
	n := t.net("net", nil)
	e, ns := t.end(n, "stays", nil)
	for i, err := range together(4, func(int) error { return t.network().Detach(t.ctx, n.ID, e.EndpointID) }) {
		t.must(err, "Detach %d of 4 at once", i)
	}
	t.unplugged(ns, "after Detach")
	t.must(t.network().Detach(t.ctx, n.ID, e.EndpointID), "Detach again")
	t.must(t.network().Detach(t.ctx, n.ID, t.netID("none")), "Detach of an endpoint that never was")
	t.must(t.network().Detach(t.ctx, t.netID("none"), t.netID("none")), "Detach from a network that never was")
	e, ns = t.end(n, "goes", nil)
	t.must(ns.Close(), "destroying the namespace")
	t.must(t.network().Detach(t.ctx, n.ID, e.EndpointID), "Detach when the namespace is gone")
	t.noEnd(e.EndpointID, "after Detach")
}

func networkRestart(t *T) {
	n := t.net("net", nil)
	a, nsA := t.end(n, "a", nil)
	b, nsB := t.end(n, "b", nil)
	t.serves(nsA, "a", 80)
	t.serves(nsB, "b", 80)
	to := netip.AddrPortFrom(a.IPv4.Addr(), 80)
	t.reached(nsB, to, "a", "a neighbour")
	conn, err := netlab.Dial(nsB, "tcp", to, netPatience)
	t.must(err, "connecting to a neighbour")
	defer func() { _ = conn.Close() }()
	for what, restart := range map[string]func() error{
		"killed": func() error { return t.again(t.ctx) },
		"ended":  func() error { t.plug.stop(t.ctx); t.plug = nil; return t.start(t.ctx) },
	} {
		before := t.listed()
		t.must(restart(), "starting the plugin, which was %s", what)
		if said, err := netlab.Say(conn, netPatience); err != nil || !strings.HasSuffix(said, " to a") {
			t.errorf("a connection between endpoints whose driver was %s: %q (%v)", what, said, err)
		}
		after := t.listed()
		for _, s := range []*network.State{&before, &after} {
			slices.SortFunc(s.Endpoints, func(x, y network.Endpoint) int { return strings.Compare(x.EndpointID, y.EndpointID) })
		}
		t.same(before, after, "a driver that was %s lists", what)
		t.must(t.network().Reconcile(t.ctx, []string{n.ID}, []string{a.EndpointID, b.EndpointID}), "Reconcile")
		t.reached(nsA, netip.AddrPortFrom(b.IPv4.Addr(), 80), "b", "a neighbour, when the driver was "+what)
		late, nsLate := t.end(n, "late, "+what, nil)
		if late.IPv4 == a.IPv4 || late.IPv4 == b.IPv4 {
			t.errorf("a driver that was %s gives %s a second time", what, late.IPv4)
		}
		t.reached(nsLate, to, "a", "a neighbour, from an endpoint made when the driver was "+what)
	}
}

// networkReboot: the directory of what survives a reboot is there, and nothing else.
func networkReboot(t *T) {
	n := t.net("net", nil)
	before, ns := t.end(n, "before", nil)
	t.kill()
	entries, err := os.ReadDir(t.run())
	t.must(err, "looking")
	for _, entry := range entries {
		t.must(os.RemoveAll(filepath.Join(t.run(), entry.Name())), "emptying the run directory")
	}
	t.must(errors.Join(ns.Close(), t.o.host.Close(), t.newHost()), "making another host")
	t.must(t.start(t.ctx), "starting the plugin")
	t.must(t.network().Reconcile(t.ctx, []string{n.ID}, nil), "Reconcile")
	state := t.listed()
	if len(state.Networks) != 1 || len(state.Endpoints) != 0 {
		t.fatalf("a network without endpoints is valid, after a reboot %+v is listed", state)
	}
	t.same(n, state.Networks[0], "after a reboot the network is listed as")
	a, nsA := t.end(n, "a", func(a *network.Attachment) { a.IPv4 = before.IPv4.Addr() })
	_, nsB := t.end(n, "b", nil)
	t.plugged(nsA, a, true, n.IPv6)
	t.serves(nsA, "a", 80)
	t.reached(nsB, netip.AddrPortFrom(a.IPv4.Addr(), 80), "a", "a neighbour, after a reboot")
}

func networkReconcile(t *T) {
	n := t.net("net", nil)
	kept, nsKept := t.end(n, "kept", nil)
	dropped, nsDropped := t.end(n, "dropped", nil)
	t.serves(nsKept, "kept", 80)
	t.must(t.network().Reconcile(t.ctx, []string{n.ID}, []string{kept.EndpointID}), "Reconcile")
	t.unplugged(nsDropped, "when the endpoint was dropped")
	t.noEnd(dropped.EndpointID, "dropped,")
	t.plugged(nsKept, kept, true, n.IPv6)
	next, nsNext := t.end(n, "next", func(a *network.Attachment) { a.IPv4 = dropped.IPv4.Addr() })
	t.reached(nsNext, netip.AddrPortFrom(kept.IPv4.Addr(), 80), "kept", "a neighbour that is valid")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	t.must(t.network().Reconcile(t.ctx, []string{n.ID}, []string{kept.EndpointID}), "Reconcile of a new process")
	t.unplugged(nsNext, "when the endpoint was dropped by a new process")
	t.noEnd(next.EndpointID, "dropped by a new process,")
	t.must(t.network().Reconcile(t.ctx, nil, nil), "Reconcile with nothing valid")
	if state := t.listed(); len(state.Networks)+len(state.Endpoints) > 0 {
		t.errorf("nothing is valid, and %+v is listed", state)
	}
	t.unplugged(nsKept, "when nothing is valid")
	t.nothingLeft()
}

// networkOthers has a bridge and a table of the firewall on the host that somebody
// else made.
func networkOthers(t *T) {
	lines, remove, err := t.o.host.Foreign()
	t.must(err, "making a bridge")
	t.cleanup(func() {
		if err := remove(); err != nil {
			t.errorf("removing a bridge: %v", err)
		}
	})
	n := t.net("net", nil)
	t.end(n, "one", nil)
	t.must(t.again(t.ctx), "killing and starting the plugin")
	t.must(t.network().Reconcile(t.ctx, nil, nil), "Reconcile with nothing valid")
	now, err := t.o.host.Snapshot()
	t.must(err, "looking")
	if gone := missing(now, lines...); len(gone) > 0 {
		t.errorf("nothing is valid, and gone is what the driver did not make: %v", gone)
	}
}
