package bridge

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/network"
)

func TestAddressesAndRoutes(t *testing.T) {
	l := newLab(t)
	for _, test := range []struct {
		name     string
		ip4, ip6 bool
	}{{"both", true, true}, {"only4", true, false}, {"only6", false, true}} {
		n := l.network(test.name, func(n *network.Network) {
			n.IPv4, n.IPv6 = test.ip4, test.ip6
			n.Options[optionMTU] = "1400"
		})
		e := l.container(test.name, test.name+"1", nil)
		shown := l.shIn(e.Netns, "ip -o addr show dev eth0; ip route; ip -6 route show default; ip link show eth0")
		has := func(want bool, text string) {
			t.Helper()
			if strings.Contains(shown, text) != want {
				t.Errorf("%s: %q is wanted: %v, in\n%s", test.name, text, want, shown)
			}
		}
		has(true, "mtu 1400")
		has(false, "global tentative") // usable at once
		has(test.ip4, e.IPv4.String())
		has(test.ip6, e.IPv6.String())
		has(test.ip6, "fe80:") // not where nobody asked for IPv6
		has(test.ip4, "default via "+e.Gateway4.String())
		has(test.ip6, "default via "+e.Gateway6.String())
		if test.ip4 != e.IPv4.IsValid() || test.ip6 != e.IPv6.IsValid() {
			t.Errorf("%s: endpoint %+v", test.name, e)
		}
		if want := count(test.ip4, test.ip6); len(n.Pools) != want {
			t.Errorf("%s: pools %+v, want %d", test.name, n.Pools, want)
		}
		bridge := l.sh("ip -o addr show dev dv-" + test.name)
		if strings.Contains(bridge, "fe80:") != test.ip6 || strings.Contains(bridge, "global tentative") {
			t.Errorf("%s: the bridge has\n%s", test.name, bridge)
		}
		// The next container is reached by both.
		l.serve(e.Netns, test.name, 80)
		second := l.container(test.name, test.name+"2", nil)
		if test.ip4 {
			l.expect(second.Netns, "tcp", e.IPv4.Addr().String(), 80, second.IPv4.Addr().String()+" to "+test.name)
		}
		if test.ip6 {
			l.expect(second.Netns, "tcp", e.IPv6.Addr().String(), 80, second.IPv6.Addr().String()+" to "+test.name)
		}
	}
	for path, want := range map[string]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/dv-both/accept_ra": "0"} {
		if !sysctlIs(path, want) {
			t.Errorf("sysctl %s is not %s", path, want)
		}
	}
	// A host that has its routes from router advertisements keeps them.
	if !sysctlIs("net/ipv6/conf/lan/accept_ra", "2") {
		t.Error("forwarding made an interface of the host deaf to router advertisements")
	}
}

func count(all ...bool) (n int) {
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}

func pool(subnet, within, gateway string) network.Pool {
	p := network.Pool{Subnet: netip.MustParsePrefix(subnet)}
	if within != "" {
		p.Range = netip.MustParsePrefix(within)
	}
	if gateway != "" {
		p.Gateway = netip.MustParseAddr(gateway)
	}
	return p
}

func TestNetworksThatCannotBe(t *testing.T) {
	l := newLab(t)
	l.network("there", func(n *network.Network) {
		n.Pools = []network.Pool{pool("10.80.0.0/24", "", ""), pool("fd00:80::/64", "", "")}
	})
	l.sh("ip link add other type veth peer name other2")
	defer l.sh("ip link del other")
	with := func(pools ...network.Pool) func(*network.Network) {
		return func(n *network.Network) { n.Pools = pools }
	}
	option := func(key, value string) func(*network.Network) {
		return func(n *network.Network) { n.Options[key] = value }
	}
	aux := pool("10.81.0.0/24", "", "10.81.0.1")
	aux.Aux = map[string]netip.Addr{"router": aux.Gateway}
	for _, test := range []struct {
		want   string
		change func(*network.Network)
	}{
		{"Pool overlaps with other one on this address space", with(pool("10.80.0.128/25", "", ""))},
		{"Pool overlaps with other one on this address space", with(pool("10.0.0.0/8", "", ""))},
		{"Pool overlaps with other one on this address space", with(pool("fd00:80::/96", "", ""))},
		{"invalid subnet 10.81.0.5/24: it should be 10.81.0.0/24", with(pool("10.81.0.5/24", "", ""))},
		{"invalid subnet 10.81.0.4/31: no room", with(pool("10.81.0.4/31", "", ""))},
		{"invalid subnet 224.0.0.0/8", with(pool("224.0.0.0/8", "", ""))},
		{"invalid subnet fe80::/64", with(pool("fe80::/64", "", ""))},
		{"doesn't contain this address", with(pool("10.81.0.0/24", "", "10.82.0.1"))},
		{"network or the broadcast address", with(pool("10.81.0.0/24", "", "10.81.0.255"))},
		{"doesn't contain ip-range", with(pool("10.81.0.0/24", "10.82.0.0/25", ""))},
		{"is bigger than its parent subnet", with(pool("10.81.0.0/24", "10.81.0.0/16", ""))},
		{"is the gateway", with(aux)},
		{"does not support multiple subnets", with(pool("10.81.0.0/24", "", ""), pool("10.82.0.0/24", "", ""))},
		{"IPv4 or IPv6 must be enabled", func(n *network.Network) { n.IPv4, n.IPv6 = false, false }},
		{"invalid value", option(optionBridge, "a/b")},
		{"exists and is a veth, not a bridge", option(optionBridge, "other")},
		{"is that of network there", option(optionBridge, "dv-there")},
		{"invalid value", option(optionMTU, "12")},
		{"IPv6 needs at least 1280", option(optionMTU, "1000")},
		{"invalid value", option(optionICC, "perhaps")},
		{"want nat, nat-unprotected or routed", option(optionMode4, "magic")},
		{"not an IPv4 address", option(optionBinding4, "::1")},
		{"is not known to driver bridge; known: com.docker.network.bridge.enable_icc", option("colour", "red")},
	} {
		n := network.Network{ID: "bad", Name: "bad", IPv4: true, IPv6: true, Options: map[string]string{}}
		test.change(&n)
		if _, err := l.CreateNetwork(t.Context(), n); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
	if state, err := l.List(t.Context()); err != nil || len(state.Networks) != 1 {
		t.Errorf("left: %+v, %v", state.Networks, err)
	}
	if links := l.sh("ip -o link show type bridge"); strings.Count(links, "\n") != 0 {
		t.Errorf("bridges are left:\n%s", links)
	}
}

func TestDefaultPools(t *testing.T) {
	l := newLab(t)
	// The third subnet is somebody else's.
	l.sh("ip route add 10.90.2.0/25 dev lan", "ip -6 route add fd00:90:0:2::/64 dev lan")
	for i := range 4 {
		n := l.network(fmt.Sprint("n", i), nil)
		number := []int{0, 1, 3, 4}[i]
		if got, want := n.Pools[0].Subnet.String(), fmt.Sprintf("10.90.%d.0/24", number); got != want {
			t.Errorf("subnet %s, want %s", got, want)
		}
		want := netip.MustParsePrefix(fmt.Sprintf("fd00:90:0:%d::/64", number))
		if n.Pools[1].Subnet != want {
			t.Errorf("subnet %s, want %s", n.Pools[1].Subnet, want)
		}
	}
	l.Close()
	l.config.Pools = l.config.Pools[:1]
	l.config.Pools[0].Size = 16
	l.start()
	if _, err := l.CreateNetwork(t.Context(), network.Network{ID: "x", Name: "x", IPv4: true}); !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "all predefined address pools have been fully subnetted") {
		t.Errorf("exhausted: %v", err)
	}
	// Without pools for IPv6 there are unique local ones, the same after a restart.
	first := l.network("u1", func(n *network.Network) { n.IPv4 = false }).Pools[0].Subnet
	l.restart()
	second := l.network("u2", func(n *network.Network) { n.IPv4 = false }).Pools[0].Subnet
	if first.Addr().As16()[0] != 0xfd || first.Bits() != 64 || netip.PrefixFrom(first.Addr(), 48).Masked() != netip.PrefixFrom(second.Addr(), 48).Masked() {
		t.Errorf("unique local subnets %s, %s", first, second)
	}
}

func TestAddressesThatAreAskedFor(t *testing.T) {
	l := newLab(t)
	p := pool("10.70.0.0/24", "10.70.0.8/30", "")
	p.Aux = map[string]netip.Addr{"a": netip.MustParseAddr("10.70.0.8"), "b": netip.MustParseAddr("10.70.0.10")}
	n := l.network("n", func(n *network.Network) { n.IPv6, n.Pools = false, []network.Pool{p} })
	if got := n.Pools[0].Gateway.String(); got != "10.70.0.9" {
		t.Errorf("gateway %s, want the first address of the range that is free", got)
	}
	fixed := func(address string) func(*network.Attachment) {
		return func(a *network.Attachment) { a.IPv4, a.MAC = netip.MustParseAddr(address), "02:00:00:00:00:07" }
	}
	e := l.container("n", "fixed", fixed("10.70.0.200"))
	if link := l.shIn(e.Netns, "ip link show eth0"); e.IPv4.String() != "10.70.0.200/24" || !strings.Contains(link, "02:00:00:00:00:07") {
		t.Errorf("%+v\n%s", e, link)
	}
	if e := l.container("n", "any", nil); e.IPv4.Addr().String() != "10.70.0.11" {
		t.Errorf("address %s, want the last of the range", e.IPv4)
	}
	refused := func(want string, change func(*network.Attachment)) {
		t.Helper()
		a := l.attachment("n", "refused")
		change(&a)
		if _, err := l.Attach(t.Context(), a); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refused("no available IPv4 addresses on this network's address pools: n (n)", func(*network.Attachment) {})
	refused("Address already in use", fixed("10.70.0.200"))
	refused("Address already in use", fixed("10.70.0.9"))
	refused("no configured subnet contains IP address 10.71.0.1", fixed("10.71.0.1"))
	refused("no configured subnet contains IP address fd00::5", func(a *network.Attachment) {
		a.IPv4, a.IPv6 = netip.MustParseAddr("10.70.0.201"), netip.MustParseAddr("fd00::5")
	})
	refused("invalid MAC address", func(a *network.Attachment) { a.MAC = "01:00:00:00:00:07" })
	refused("not known to driver bridge", func(a *network.Attachment) { a.Options = map[string]string{"colour": "red"} })
	l.restart()
	refused("Address already in use", fixed("10.70.0.200"))
	if err := l.Detach(t.Context(), "n", "fixed"); err != nil {
		t.Fatal(err)
	}
	l.container("n", "again", fixed("10.70.0.200"))
}

func TestNetworksAreKeptApart(t *testing.T) {
	l := newLab(t)
	l.network("a", nil)
	l.network("b", nil)
	l.network("inner", func(n *network.Network) { n.Internal = true })
	l.network("quiet", func(n *network.Network) { n.Options[optionICC] = "false" })
	ends := map[string]network.Endpoint{}
	for _, id := range []string{"a1", "a2", "b1", "inner1", "inner2", "quiet1", "quiet2"} {
		ends[id] = l.container(strings.TrimRight(id, "12"), id, func(a *network.Attachment) {
			a.Ports = []network.Port{tcp(80, uint16(8000+len(ends)))}
		})
		l.serve(ends[id].Netns, id, 80)
	}
	l.serve(l.lan, "lan", 90)
	var asking sync.WaitGroup
	for from, reached := range map[string]string{
		"a1": "a1 a2 lan", "b1": "b1 lan", "inner1": "inner1 inner2", "quiet1": "quiet1 lan",
	} {
		for target, e := range ends {
			for _, address := range []netip.Prefix{e.IPv4, e.IPv6} {
				asking.Go(func() {
					got := l.ask(ends[from].Netns, "tcp", address.Addr().String(), 80)
					if want := strings.Contains(reached, target); strings.HasSuffix(got, " to "+target) != want {
						t.Errorf("%s to %s at %s: %q, want an answer: %v", from, target, address, got, want)
					}
				})
			}
		}
		asking.Go(func() {
			got := l.ask(ends[from].Netns, "tcp", lan6, 90)
			if want := strings.Contains(reached, "lan"); strings.HasSuffix(got, " to lan") != want {
				t.Errorf("%s to another host: %q, want an answer: %v", from, got, want)
			}
		})
	}
	asking.Wait()
	if e := ends["inner1"]; len(e.Ports) != 0 || e.Gateway4.IsValid() || e.Gateway6.IsValid() {
		t.Errorf("an internal network has a way out: %+v", e)
	}
	// Nor by the published port of another network.
	if got := l.ask(ends["inner1"].Netns, "tcp", ends["a1"].Gateway4.String(), 8000); strings.Contains(got, "a1") {
		t.Errorf("an internal network reaches a published port: %q", got)
	}
	// Nor is the host's loopback reached from a container.
	l.serve("", "host", 91)
	l.shIn(ends["a1"].Netns, "ip addr del 127.0.0.1/8 dev lo", "sysctl -qw net.ipv4.conf.eth0.route_localnet=1", "ip route add 127.0.0.1 via "+ends["a1"].Gateway4.String())
	if got := l.ask(ends["a1"].Netns, "tcp", "127.0.0.1", 91); strings.Contains(got, "host") {
		t.Errorf("a container reached 127.0.0.1 of the host: %q", got)
	}
}

func TestOptionsOfEndpoints(t *testing.T) {
	l := newLab(t)
	l.network("n", func(n *network.Network) {
		n.Options[optionPrefix], n.Options[optionBinding4], n.Options[optionHost4] = "net", "127.0.0.1", "192.0.2.99"
	})
	l.sh("ip addr add 192.0.2.99/32 dev lan")
	l.serve(l.lan, "lan", 90)
	e := l.container("n", "a", func(a *network.Attachment) {
		a.Options = map[string]string{optionSysctls: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.hop_limit=42"}
		a.Ports = []network.Port{tcp(80, 8080)}
	})
	if e.Interface != "net0" {
		t.Errorf("interface %s, want net0", e.Interface)
	}
	if got := l.shIn(e.Netns, "sysctl -n net.ipv4.conf.net0.log_martians net.ipv6.conf.net0.hop_limit"); got != "1\n42" {
		t.Errorf("sysctls: %q", got)
	}
	if len(e.Ports) != 1 || e.Ports[0].HostIP.String() != "127.0.0.1" {
		t.Errorf("ports without an address: %+v", e.Ports)
	}
	l.expect(e.Netns, "tcp", lan4, 90, "192.0.2.99 to lan")
	if e := l.container("n", "b", func(a *network.Attachment) { a.Options = map[string]string{optionIfname: "wan"} }); e.Interface != "wan" {
		t.Errorf("interface %s, want wan", e.Interface)
	}
	for _, bad := range []string{"net.ipv4.ip_forward=1", "kernel.x.y.IFNAME.z=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.IFNAME.../x=1", "net.ipv4.conf.IFNAME.nothing=1", "x"} {
		a := l.attachment("n", "bad")
		a.Options = map[string]string{optionSysctls: bad}
		if _, err := l.Attach(t.Context(), a); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestSeveralNetworksAndTheirGateway(t *testing.T) {
	l := newLab(t)
	l.network("four", func(n *network.Network) { n.IPv6 = false })
	l.network("both", nil)
	first := l.container("four", "f", func(a *network.Attachment) { a.Gateway6 = false })
	second := l.container("both", "b", func(a *network.Attachment) {
		a.Netns, a.Interface, a.Gateway4 = first.Netns, "eth1", false
	})
	routes := func() string { return l.shIn(first.Netns, "ip route show default; ip -6 route show default") }
	has := func(want ...string) {
		t.Helper()
		got := routes()
		for _, text := range want {
			if !strings.Contains(got, text) {
				t.Errorf("%q is not in\n%s", text, got)
			}
		}
		if strings.Count(got, "default") != len(want) {
			t.Errorf("want %d default routes:\n%s", len(want), got)
		}
	}
	has("via "+first.Gateway4.String()+" dev eth0", "via "+second.Gateway6.String()+" dev eth1")
	set := func(networkID, id string, ip4, ip6 bool) {
		t.Helper()
		for range 2 { // asking again is no error
			if err := l.SetGateway(t.Context(), networkID, id, ip4, ip6); err != nil {
				t.Fatal(err)
			}
		}
	}
	set("four", "f", false, false)
	set("both", "b", true, false)
	has("via " + second.Gateway4.String() + " dev eth1")
	set("both", "b", true, true)
	has("via "+second.Gateway4.String()+" dev eth1", "via "+second.Gateway6.String()+" dev eth1")
	if err := l.SetGateway(t.Context(), "both", "nobody", true, true); !errdefs.IsNotFound(err) {
		t.Errorf("unknown endpoint: %v", err)
	}
}

// A running container that leaves a network and comes back gets the name of its
// interface again, although links are deleted with some delay.
func TestConnectingAgainAtOnce(t *testing.T) {
	l := newLab(t)
	l.network("net", nil)
	e := l.container("net", "a0", nil)
	for i := range 4 {
		if err := l.Detach(t.Context(), "net", e.EndpointID); err != nil {
			t.Fatal(err)
		}
		e = l.container("net", fmt.Sprint("a", i+1), func(a *network.Attachment) { a.Netns = e.Netns })
		if got := l.shIn(e.Netns, "ip -br -4 addr show"); !strings.Contains(got, "eth0") || !strings.Contains(got, e.IPv4.String()) || strings.Contains(got, "eth1") {
			t.Errorf("interfaces %q, want one with %s", got, e.IPv4)
		}
	}
	// A name that something else has stays an error.
	l.shIn(e.Netns, "ip link add taken type veth peer name taken-peer")
	a := l.attachment("net", "other")
	a.Netns, a.Interface = e.Netns, "taken"
	if _, err := l.Attach(t.Context(), a); err == nil || !strings.Contains(err.Error(), "file exists") {
		t.Errorf("an interface of that name exists: %v", err)
	}
}
