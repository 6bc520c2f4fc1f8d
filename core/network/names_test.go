package network

import (
	"net/netip"
	"slices"
	"testing"

	mobynetwork "github.com/moby/moby/api/types/network"

	sdknetwork "github.com/davit-engine/davit/sdk/network"
)

func named(id, name string, internal bool) Network {
	return Network{ID: id, Name: name, Request: mobynetwork.CreateRequest{Internal: internal}}
}

// on makes an endpoint with the ID "container@network".
func on(n Network, container, name string, addresses ...string) attached {
	a := attached{Attachment: Attachment{
		Attachment:    sdknetwork.Attachment{NetworkID: n.ID, EndpointID: container + "@" + n.ID, ContainerID: container},
		ContainerName: name,
	}}
	for _, text := range addresses {
		if p := netip.MustParsePrefix(text); p.Addr().Is4() {
			a.endpoint.IPv4 = p
		} else {
			a.endpoint.IPv6 = p
		}
	}
	return a
}

func ask(d *directory, container, name string) []string {
	addresses, known := d.lookup(container, name)
	if !known {
		return nil
	}
	list := []string{}
	for _, a := range addresses {
		list = append(list, a.String())
	}
	slices.Sort(list)
	return list
}

const (
	asker = "0123456789abcdef0123456789abcdef"
	other = "fedcba9876543210fedcba9876543210"
	third = "aaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb"
)

func TestNamesOfADirectory(t *testing.T) {
	d := newDirectory()
	front, back, dotted := named("n1", "Front", false), named("n2", "back", true), named("n3", "b.c", false)
	bridge := named("n0", Bridge, false)
	web := on(front, other, "Web", "172.20.0.3/16", "fd00::3/64")
	web.Aliases, web.Hostname = []string{"site", "shared", "web.example.org"}, "host-of-web"
	second := on(front, third, "second", "172.20.0.4/16")
	second.Aliases = []string{"SHARED"}
	me := on(front, asker, "me", "172.20.0.2/16")
	me.Links = map[string]string{"Database": "web", "gone": "nosuch", "second": "web"}
	for _, e := range []struct {
		n Network
		a attached
	}{
		{front, me}, {front, web}, {front, second}, {back, on(back, other, "Web", "172.30.0.3/16")}, {dotted, on(dotted, asker, "me", "172.40.0.2/16")},
		{dotted, on(dotted, other, "a", "172.40.0.3/16")}, {bridge, on(bridge, asker, "me", "172.17.0.2/16")}, {bridge, on(bridge, third, "bridged", "172.17.0.3/16")},
	} {
		d.put(e.n, e.a)
		d.put(e.n, e.a) // again: nothing is twice
	}
	for name, want := range map[string][]string{
		"web": {"172.20.0.3", "fd00::3"}, "WEB": {"172.20.0.3", "fd00::3"}, "web.front": {"172.20.0.3", "fd00::3"}, "Web.FRONT": {"172.20.0.3", "fd00::3"},
		"site": {"172.20.0.3", "fd00::3"}, "host-of-web": {"172.20.0.3", "fd00::3"}, "fedcba987654": {"172.20.0.3", "172.40.0.3", "fd00::3"}, "fedcba987654.front": {"172.20.0.3", "fd00::3"},
		"shared": {"172.20.0.3", "172.20.0.4", "fd00::3"}, "shared.front": {"172.20.0.3", "172.20.0.4", "fd00::3"},
		"web.example.org": {"172.20.0.3", "fd00::3"}, "web.example.org.front": {"172.20.0.3", "fd00::3"}, "a.b.c": {"172.40.0.3"},
		"me": {"172.20.0.2", "172.40.0.2"}, "me.front": {"172.20.0.2"},
		"database": {"172.20.0.3", "fd00::3"}, "DATABASE.front": {"172.20.0.3", "fd00::3"}, "second": {"172.20.0.3", "fd00::3"}, // a link comes first
		"database.b.c": nil, "gone": nil, "web.back": nil, "web.nosuch": nil, "front": nil, "example.org": nil, "bridged": nil, "fedcba98765": nil, "": nil, ".": nil, ".front": nil,
	} {
		if got := ask(d, asker, name); !slices.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
	// Each sees its own networks, and its own links.
	for name, want := range map[string][]string{"web": {"172.20.0.3", "172.30.0.3", "fd00::3"}, "web.back": {"172.30.0.3"}, "database": nil, "second": {"172.20.0.4"}} {
		if got := ask(d, other, name); !slices.Equal(got, want) {
			t.Errorf("the other: %q is %q, want %q", name, got, want)
		}
	}
	if got := ask(d, "nobody", "web"); got != nil {
		t.Errorf("who is on no network is told %q", got)
	}
	for address, want := range map[string]string{"172.20.0.3": "Web.Front", "fd00::3": "Web.Front", "172.40.0.3": "a.b.c", "172.30.0.3": "", "172.17.0.3": "", "172.20.0.99": ""} {
		if got, ok := d.reverse(asker, netip.MustParseAddr(address)); got != want || ok != (want != "") {
			t.Errorf("%s is %q, %v, want %q", address, got, ok, want)
		}
	}
}

func TestADirectoryFollowsChanges(t *testing.T) {
	d := newDirectory()
	front, inner := named("n1", "front", false), named("n2", "inner", true)
	me, web := on(front, asker, "me", "172.20.0.2/16"), on(front, other, "web", "172.20.0.3/16")
	d.put(front, me)
	d.put(front, web)
	web.ContainerName = "renamed"
	d.put(front, web)
	if ask(d, asker, "web") != nil || !slices.Equal(ask(d, asker, "renamed"), []string{"172.20.0.3"}) {
		t.Error("a name that changed is answered as before")
	}
	// An address that another has got by now stays the other's.
	d.put(front, on(front, third, "heir", "172.20.0.3/16"))
	d.drop(front.ID, web.EndpointID)
	d.drop(front.ID, web.EndpointID)
	if name, _ := d.reverse(asker, netip.MustParseAddr("172.20.0.3")); name != "heir.front" || ask(d, asker, "renamed") != nil {
		t.Errorf("172.20.0.3 is %q", name)
	}
	for _, step := range []struct {
		change  func()
		outside bool
	}{
		{func() { d.put(inner, on(inner, asker, "me", "172.30.0.2/16")) }, true},
		{func() { d.drop(front.ID, me.EndpointID) }, false},
		{func() { bridge := named("n0", Bridge, false); d.put(bridge, on(bridge, asker, "me", "172.17.0.2/16")) }, true},
		{func() { d.drop("n0", asker+"@n0") }, false},
		{func() { d.drop(inner.ID, asker+"@n2") }, false},
	} {
		step.change()
		if got := d.outside(asker); got != step.outside {
			t.Errorf("outside is %v, want %v", got, step.outside)
		}
	}
	d.drop(front.ID, third+"@n1")
	if len(d.networks) != 0 || len(d.member) != 0 {
		t.Errorf("left: %v, %v", d.networks, d.member)
	}
}

// The time of one lookup does not depend on how many containers a network has.
func BenchmarkLookup(b *testing.B) {
	d := newDirectory()
	front := named("n1", "front", false)
	d.put(front, on(front, asker, "me", "10.0.0.1/8"))
	for i := range 10_000 {
		address := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		d.put(front, on(front, address.String(), "box-"+address.String(), address.String()+"/8"))
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if list, ok := d.lookup(asker, "box-10.1.3.7"); !ok || len(list) != 1 {
				b.Error(list)
			}
		}
	})
}
