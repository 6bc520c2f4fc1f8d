package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/conformance/netlab"
	"github.com/davit-engine/davit/sdk/network"
)

// How long is waited for what has to happen on a network, and for what must not.
const (
	netPatience = 10 * time.Second
	netSilence  = 300 * time.Millisecond
)

// newHost makes the host that a network driver works on: nothing that it does there
// meets the machine's own networks.
func (b *bench) newHost() error {
	dir := filepath.Join(b.dir, "netns")
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		b.o.host, err = netlab.NewHost(dir)
	}
	return err
}

// warmNetwork has the driver make and remove a network with an endpoint, and notes
// what stays in the host's network for good.
func (b *bench) warmNetwork(ctx context.Context) error {
	before, err := b.o.host.Snapshot()
	if err != nil {
		return err
	}
	n := network.Network{ID: networkID("warm"), Name: "kit-warm", IPv4: true, Options: b.o.DriverOptions}
	if _, err := b.network().CreateNetwork(ctx, n); err == nil {
		ns, err := b.o.host.NewNamespace()
		if err != nil {
			return err
		}
		_, _ = b.network().Attach(ctx, network.Attachment{NetworkID: n.ID, EndpointID: n.ID, Netns: ns.Path, Interface: "eth0"})
		_ = b.network().Detach(ctx, n.ID, n.ID)
		_ = b.network().DeleteNetwork(ctx, n.ID)
		if err := ns.Close(); err != nil {
			return err
		}
	}
	b.links = eventually(func() (now []string, same bool) {
		now, err = b.o.host.Snapshot()
		return now, err != nil || len(missing(before, now...)) == 0
	})
	return err
}

// networkID is an ID like the engine's: 64 hexadecimal digits.
func networkID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

func (t *T) netID(name string) string { return networkID(t.name(name)) }

// families says which addresses networks can have here.
func (t *T) ipv6() bool {
	return slices.Contains(t.features(), network.FeatureIPv6) && netlab.HasIPv6()
}

func (t *T) needIPv6() {
	if !netlab.HasIPv6() {
		t.skipf("the kernel has no IPv6")
	}
}

// wantNet is a network to ask for, with the addresses that the driver can give.
func (t *T) wantNet(name string, change func(*network.Network)) network.Network {
	n := network.Network{
		ID: t.netID(name), Name: t.name(name), IPv4: true, IPv6: t.ipv6(),
		Options: t.o.DriverOptions, Labels: map[string]string{"kit": "yes"},
	}
	if change != nil {
		change(&n)
	}
	return n
}

// net is a network that is removed when the check is over.
func (t *T) net(name string, change func(*network.Network)) network.Network {
	n := t.wantNet(name, change)
	t.cleanup(func() { t.noNet(n.ID) })
	made, err := t.network().CreateNetwork(t.ctx, n)
	t.must(err, "CreateNetwork")
	return made
}

// secondNet is another network beside one that is there. Options may be for one
// network only.
func (t *T) secondNet(name string, change func(*network.Network)) network.Network {
	n := t.wantNet(name, change)
	t.cleanup(func() { t.noNet(n.ID) })
	made, err := t.network().CreateNetwork(t.ctx, n)
	if err != nil && len(t.o.DriverOptions) > 0 {
		t.skipf("the driver makes no second network with the options that were given: %v", err)
	}
	t.must(err, "CreateNetwork of a second network")
	return made
}

// noNet removes a network and its endpoints, if they are there.
func (t *T) noNet(id string) {
	if err := t.start(t.ctx); err != nil {
		t.errorf("starting the plugin: %v", err)
		return
	}
	state, err := t.network().List(t.ctx)
	if err != nil {
		t.errorf("List in the end: %v", err)
	}
	for _, e := range state.Endpoints {
		if e.NetworkID == id {
			if err := t.network().Detach(t.ctx, id, e.EndpointID); err != nil {
				t.errorf("Detach in the end: %v", err)
			}
		}
	}
	if err := t.network().DeleteNetwork(t.ctx, id); err != nil {
		t.errorf("DeleteNetwork in the end: %v", err)
	}
}

// space is a namespace that is destroyed when the check is over.
func (t *T) space() *netlab.Namespace {
	ns, err := t.o.host.NewNamespace()
	t.must(err, "making a network namespace")
	t.cleanup(func() {
		if err := ns.Close(); err != nil {
			t.errorf("destroying a network namespace: %v", err)
		}
	})
	return ns
}

// wantEnd is an endpoint to ask for.
func (t *T) wantEnd(n network.Network, name string, ns *netlab.Namespace, change func(*network.Attachment)) network.Attachment {
	a := network.Attachment{
		NetworkID: n.ID, EndpointID: t.netID(name), ContainerID: t.netID("container of " + name), Netns: ns.Path,
		Interface: "eth0", Gateway4: n.IPv4, Gateway6: n.IPv6,
	}
	if change != nil {
		change(&a)
	}
	return a
}

// end is an endpoint in a namespace of its own. It is detached with its network.
func (t *T) end(n network.Network, name string, change func(*network.Attachment)) (network.Endpoint, *netlab.Namespace) {
	ns := t.space()
	e, err := t.network().Attach(t.ctx, t.wantEnd(n, name, ns, change))
	t.must(err, "Attach")
	return e, ns
}

// plugged wants an interface in the namespace as the endpoint says. Gateways are
// those whose default routes it should have.
func (t *T) plugged(ns *netlab.Namespace, e network.Endpoint, gateway4, gateway6 bool) {
	list, err := ns.Interfaces()
	t.must(err, "looking")
	at := slices.IndexFunc(list, func(i netlab.Interface) bool { return i.Name == e.Interface })
	if at < 0 {
		t.errorf("there is no interface %q in the namespace, but %+v", e.Interface, list)
		return
	}
	i := list[at]
	if !i.Up || !strings.EqualFold(i.MAC, e.MAC) {
		t.errorf("the interface is up: %v, with hardware address %s; the endpoint says %s", i.Up, i.MAC, e.MAC)
	}
	for _, want := range []netip.Prefix{e.IPv4, e.IPv6} {
		if want.IsValid() && !slices.Contains(i.Addresses, want) {
			t.errorf("the interface has addresses %v, and not %s", i.Addresses, want)
		}
	}
	for _, r := range []struct {
		wanted    bool
		has, says netip.Addr
	}{{gateway4, i.Gateway4, e.Gateway4}, {gateway6, i.Gateway6, e.Gateway6}} {
		if !r.wanted {
			r.says = netip.Addr{}
		}
		if r.has != r.says {
			t.errorf("the default route is by %s, and should be by %s", r.has, r.says)
		}
	}
}

// unplugged wants no interface in the namespace, soon.
func (t *T) unplugged(ns *netlab.Namespace, when string) {
	if list := eventually(func() ([]netlab.Interface, bool) {
		list, err := ns.Interfaces()
		t.must(err, "looking")
		return list, len(list) == 0
	}); len(list) > 0 {
		t.errorf("%s there are interfaces in the namespace: %+v", when, list)
	}
}

// serves runs a server in a place until the check is over.
func (t *T) serves(at netlab.Place, name string, port uint16) {
	server, err := netlab.Serve(at, name, port)
	t.must(err, "serving")
	t.cleanup(server.Close)
}

// reached wants an answer from a server, over TCP and UDP.
func (t *T) reached(from netlab.Place, to netip.AddrPort, name, what string) {
	for _, proto := range []string{"tcp", "udp"} {
		said := eventually(func() (string, bool) {
			said := netlab.Ask(from, proto, to, netPatience/10)
			return said, strings.HasSuffix(said, " to "+name)
		})
		if !strings.HasSuffix(said, " to "+name) {
			t.errorf("%s: %s to %s: %s", what, proto, to, said)
		}
	}
}

// unreached wants that a server does not answer.
func (t *T) unreached(from netlab.Place, proto string, to netip.AddrPort, name, what string) {
	if said := netlab.Ask(from, proto, to, netSilence); strings.HasSuffix(said, " to "+name) {
		t.errorf("%s: %s to %s is answered: %s", what, proto, to, said)
	}
}

// listed is what the driver has of this check.
func (t *T) listed() network.State {
	state, err := t.network().List(t.ctx)
	t.must(err, "List")
	return state
}

// same wants two answers to be equal.
func (t *T) same(first, again any, what string, args ...any) {
	a, err := json.Marshal(first)
	t.must(err, "encoding")
	b, err := json.Marshal(again)
	t.must(err, "encoding")
	if !bytes.Equal(a, b) {
		t.errorf("%s: %s, and before: %s", fmt.Sprintf(what, args...), b, a)
	}
}

// noEnd wants the endpoint not to be there after a failure.
func (t *T) noEnd(id, when string) {
	for _, e := range t.listed().Endpoints {
		if e.EndpointID == id {
			t.errorf("%s the endpoint is listed: %+v", when, e)
		}
	}
}

// exhaust attaches until no address is left, and answers how many there were.
func (t *T) exhaust(n network.Network, atMost int) (ends []network.Endpoint) {
	for i := range atMost + 1 {
		ns := t.space()
		e, err := t.network().Attach(t.ctx, t.wantEnd(n, fmt.Sprint("end", i), ns, nil))
		if err != nil {
			t.fails(err, errdefs.ErrResourceExhausted, "Attach number %d to a network with %d addresses", i+1, atMost)
			t.unplugged(ns, "after an Attach that failed")
			t.noEnd(t.netID(fmt.Sprint("end", i)), "after an Attach that failed")
			return ends
		}
		ends = append(ends, e)
	}
	t.errorf("%d endpoints were attached to a network with %d addresses", len(ends), atMost)
	return ends
}
