package conformance

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/conformance/netlab"
	"github.com/davit-engine/davit/sdk/network"
)

// networkPortChecks are those of published ports.
func networkPortChecks() []Check {
	const need = network.FeaturePorts
	return []Check{
		{Name: "network/way-out", Rule: "they reach other hosts through it, and their ports can be published on it", Need: need, run: networkWayOut},
		{Name: "network/ports", Rule: "one port that was asked for on all addresses is answered once as 0.0.0.0 and once as ::, with the same host port.", Need: need, run: networkPorts},
		{Name: "network/ports-of-one-address", Rule: "Host address; empty for all.", Need: need, run: networkPortsAt},
		{Name: "network/port-range", Rule: "First host port to try; 0 for any free one.", Need: need, run: networkPortRange},
		{Name: "network/port-in-use", Rule: `A taken host port: PORT_IN_USE with "Bind for ADDRESS:PORT failed: port is already allocated".`, Need: need, run: networkPortInUse},
		{Name: "network/ports-after-restart", Rule: "what containers use stays.", Need: need, run: networkPortsRestart},
		{Name: "network/update-ports", Rule: "UpdatePorts replaces the published ports of an endpoint. On error the old ones stay.", Need: need, run: networkUpdatePorts},
		{Name: "network/without-ports", Rule: "without it ports that are asked for are ignored, and none are answered.", run: networkWithoutPorts},
	}
}

// tcpPort is port 80 of an endpoint, where its server is, at a port of the host.
func tcpPort(host uint16) network.Port {
	return network.Port{Proto: "tcp", ContainerPort: 80, HostPort: host}
}

// publish is an endpoint with ports and a server at port 80.
func (t *T) publish(n network.Network, name string, ports ...network.Port) network.Endpoint {
	e, ns := t.end(n, name, func(a *network.Attachment) { a.Ports = ports })
	t.serves(ns, name, 80)
	return e
}

// here are the host's addresses of the families that a network has.
func (t *T) here(n network.Network) []netip.Addr {
	list := []netip.Addr{netlab.Here4.Addr()}
	if n.IPv6 {
		list = append(list, netlab.Here6.Addr())
	}
	return list
}

// open wants a published port to lead to a server, from another host.
func (t *T) open(n network.Network, port uint16, name string) {
	for _, address := range t.here(n) {
		t.answered(netip.AddrPortFrom(address, port), name)
	}
}

func (t *T) answered(at netip.AddrPort, name string) {
	said := eventually(func() (string, bool) {
		said := netlab.Ask(t.o.host.Other, "tcp", at, netPatience/10)
		return said, strings.HasSuffix(said, " to "+name)
	})
	if !strings.HasSuffix(said, " to "+name) {
		t.errorf("port %s leads to %s as seen by another host: %s", at, name, said)
	}
}

// closed wants that nobody answers at a port of the host.
func (t *T) closed(n network.Network, port uint16, name, when string) {
	for _, address := range t.here(n) {
		t.unreached(t.o.host.Other, "tcp", netip.AddrPortFrom(address, port), name, when)
	}
}

// free wants that the host's own programs can have a port.
func (t *T) free(port uint16, when string) {
	if err := t.o.host.Do(func() error {
		l, err := new(net.ListenConfig).Listen(t.ctx, "tcp", fmt.Sprintf(":%d", port))
		if err == nil {
			err = l.Close()
		}
		return err
	}); err != nil {
		t.errorf("%s port %d is not free: %v", when, port, err)
	}
}

func networkWayOut(t *T) {
	n := t.net("net", nil)
	_, ns := t.end(n, "one", nil)
	t.serves(t.o.host.Other, "other", 80)
	t.reached(ns, netip.AddrPortFrom(netlab.There4.Addr(), 80), "other", "another host")
	if n.IPv6 {
		t.reached(ns, netip.AddrPortFrom(netlab.There6.Addr(), 80), "other", "another host")
	}
}

func networkPorts(t *T) {
	n := t.net("net", nil)
	udp := network.Port{Proto: "udp", ContainerPort: 80, HostPort: 8081}
	e := t.publish(n, "web", tcpPort(8080), udp)
	want := map[network.Port]bool{}
	for _, p := range []network.Port{tcpPort(8080), udp} {
		for _, host := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			if p.HostIP = host; host.Is4() || n.IPv6 {
				want[p] = true
			}
		}
	}
	for _, p := range e.Ports {
		if !want[p] {
			t.errorf("a port is answered that nobody asked for, or twice: %+v", p)
		}
		delete(want, p)
	}
	if len(want) > 0 {
		t.errorf("of the ports that were asked for it does not answer %+v, but %+v", want, e.Ports)
	}
	t.open(n, 8080, "web")
	for _, address := range t.here(n) {
		at := netip.AddrPortFrom(address, 8081)
		if said := eventually(func() (string, bool) {
			said := netlab.Ask(t.o.host.Other, "udp", at, netPatience/10)
			return said, strings.HasSuffix(said, " to web")
		}); !strings.HasSuffix(said, " to web") {
			t.errorf("port %s/udp as seen by another host: %s", at, said)
		}
	}
	t.must(t.network().Detach(t.ctx, n.ID, e.EndpointID), "Detach")
	t.closed(n, 8080, "web", "after Detach")
	t.free(8080, "after Detach")
}

func networkPortsAt(t *T) {
	n := t.net("net", nil)
	p := tcpPort(8080)
	p.HostIP = netlab.Here4.Addr()
	other := p
	other.HostIP = netip.MustParseAddr("127.0.0.1")
	a, b := t.publish(n, "a", p), t.publish(n, "b", other)
	for e, want := range map[*network.Endpoint]network.Port{&a: p, &b: other} {
		if !slices.Equal(e.Ports, []network.Port{want}) {
			t.errorf("asked for %+v it answers %+v", want, e.Ports)
		}
	}
	t.answered(netip.AddrPortFrom(p.HostIP, 8080), "a")
}

func networkPortRange(t *T) {
	n := t.net("net", nil)
	p := tcpPort(8080)
	p.HostPortEnd = 8081
	a, b := t.publish(n, "a", p), t.publish(n, "b", p)
	port := func(e network.Endpoint) uint16 {
		if len(e.Ports) == 0 {
			t.fatalf("a port was asked for, and none is answered")
		}
		for _, p := range e.Ports {
			if p.HostPort != e.Ports[0].HostPort || p.HostPort == 0 || p.HostPortEnd != 0 {
				t.errorf("one port is published as %+v", e.Ports)
			}
		}
		return e.Ports[0].HostPort
	}
	if port(a) != 8080 || port(b) != 8081 {
		t.errorf("of ports 8080 to 8081 two endpoints have %d and %d", port(a), port(b))
	}
	t.open(n, 8081, "b")
	_, err := t.network().Attach(t.ctx, t.wantEnd(n, "c", t.space(), func(a *network.Attachment) { a.Ports = []network.Port{p} }))
	t.fails(err, network.ErrPortInUse, "Attach with a range of ports that are taken")
	one, two := t.publish(n, "one", tcpPort(0)), t.publish(n, "two", tcpPort(0))
	if port(one) == port(two) {
		t.errorf("two endpoints have any free port, and both have %d", port(one))
	}
	t.open(n, port(one), "one")
}

func networkPortInUse(t *T) {
	n := t.net("net", nil)
	t.publish(n, "first", tcpPort(8080))
	t.serves(t.o.host, "a program on the host", 8081)
	for _, port := range []uint16{8080, 8081} {
		ns := t.space()
		a := t.wantEnd(n, fmt.Sprint("second", port), ns, func(a *network.Attachment) { a.Ports = []network.Port{tcpPort(8090), tcpPort(port)} })
		_, err := t.network().Attach(t.ctx, a)
		t.fails(err, network.ErrPortInUse, "Attach with port %d, which is taken", port)
		if want := fmt.Sprintf("Bind for 0.0.0.0:%d failed: port is already allocated", port); port == 8080 && err != nil && !strings.Contains(err.Error(), want) {
			t.errorf("the error does not say %q: %v", want, err)
		}
		t.noEnd(a.EndpointID, "after an Attach that failed")
		t.unplugged(ns, "after an Attach that failed")
		t.free(8090, "when Attach failed for another port,")
	}
	t.open(n, 8080, "first")
	// Of several at once, one gets the port.
	spaces := []*netlab.Namespace{t.space(), t.space(), t.space(), t.space()}
	t.oneSucceeds(together(len(spaces), func(i int) error {
		_, err := t.network().Attach(t.ctx, t.wantEnd(n, fmt.Sprint("race", i), spaces[i], func(a *network.Attachment) { a.Ports = []network.Port{tcpPort(8085)} }))
		return err
	}), network.ErrPortInUse, "Attach at once with one port")
}

func networkPortsRestart(t *T) {
	n := t.net("net", nil)
	e := t.publish(n, "web", tcpPort(8080))
	t.open(n, 8080, "web")
	t.kill()
	t.open(n, 8080, "web")
	t.must(t.start(t.ctx), "starting the plugin")
	t.must(t.network().Reconcile(t.ctx, []string{n.ID}, []string{e.EndpointID}), "Reconcile")
	t.open(n, 8080, "web")
	_, err := t.network().Attach(t.ctx, t.wantEnd(n, "second", t.space(), func(a *network.Attachment) { a.Ports = []network.Port{tcpPort(8080)} }))
	t.fails(err, network.ErrPortInUse, "Attach with a port that was published by the process before")
}

func networkUpdatePorts(t *T) {
	n := t.net("net", nil)
	t.publish(n, "other", tcpPort(8070))
	e := t.publish(n, "web", tcpPort(8080), tcpPort(8081))
	update := func(ports ...network.Port) ([]network.Port, error) {
		return t.network().UpdatePorts(t.ctx, n.ID, e.EndpointID, ports)
	}
	var first []network.Port
	for i := range 2 {
		got, err := update(tcpPort(8081), tcpPort(8082))
		t.must(err, "UpdatePorts")
		if i == 0 {
			first = got
		}
		t.same(first, got, "UpdatePorts again answers")
	}
	stays := func(when string) {
		for _, listed := range t.listed().Endpoints {
			if listed.EndpointID == e.EndpointID {
				t.same(first, listed.Ports, "%s the endpoint is listed with ports", when)
			}
		}
		t.closed(n, 8080, "web", when)
		t.open(n, 8081, "web")
		t.open(n, 8082, "web")
		t.free(8080, when)
	}
	stays("after UpdatePorts")
	_, err := update(tcpPort(8090), tcpPort(8070))
	t.fails(err, network.ErrPortInUse, "UpdatePorts with a port that is taken")
	t.free(8090, "when UpdatePorts failed for another port,")
	stays("after an UpdatePorts that failed")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	stays("in a new process")
	if got, err := update(); err != nil || len(got) > 0 {
		t.errorf("UpdatePorts with no ports answers %+v, %v", got, err)
	}
	t.closed(n, 8081, "web", "when no port is published")
	_, err = t.network().UpdatePorts(t.ctx, n.ID, t.netID("none"), nil)
	t.fails(err, errdefs.ErrNotFound, "UpdatePorts of an unknown endpoint")
}

func networkWithoutPorts(t *T) {
	if slices.Contains(t.features(), network.FeaturePorts) {
		t.skipf("the driver has the feature")
	}
	n := t.net("net", nil)
	e := t.publish(n, "web", tcpPort(8080))
	got, err := t.network().UpdatePorts(t.ctx, n.ID, e.EndpointID, []network.Port{tcpPort(8081)})
	t.must(err, "UpdatePorts")
	if len(e.Ports)+len(got) > 0 {
		t.errorf("without the feature ports are answered: %+v, %+v", e.Ports, got)
	}
}
