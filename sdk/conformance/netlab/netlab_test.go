package netlab

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

const patience = 10 * time.Second

func newHost(t *testing.T) *Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces need root")
	}
	h, err := NewHost(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func TestTwoHostsTalk(t *testing.T) {
	h := newHost(t)
	server, err := Serve(h.Other, "other", 80)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for _, proto := range []string{"tcp", "udp"} {
		for to, from := range map[netip.Addr]netip.Addr{There4.Addr(): Here4.Addr(), There6.Addr(): Here6.Addr()} {
			if to.Is6() && !HasIPv6() {
				continue
			}
			if got, want := Ask(h, proto, netip.AddrPortFrom(to, 80), patience), from.String()+" to other"; got != want {
				t.Errorf("%s to %s: %q, not %q", proto, to, got, want)
			}
		}
	}
	if got := Ask(h, "tcp", netip.AddrPortFrom(There4.Addr(), 81), patience); got != "refused" {
		t.Errorf("a port where nobody serves: %q", got)
	}
	if got := Ask(h, "tcp", netip.AddrPortFrom(netip.MustParseAddr("192.0.2.77"), 80), 50*time.Millisecond); got != "no answer" {
		t.Errorf("an address that nobody has: %q", got)
	}
}

// TestNothingIsSeenOutside: neither links nor mounts of a host are the machine's.
func TestNothingIsSeenOutside(t *testing.T) {
	h := newHost(t)
	if err := h.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "kit-test"
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := netlink.LinkByName("kit-test"); err == nil {
		t.Error("a link of the host is the machine's")
	}
	if err := h.Do(func() error { _, err := os.Stat("/sys/class/net/kit-test"); return err }); err != nil {
		t.Errorf("the host's /sys: %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), h.dir) {
		t.Errorf("mounts of the host are the machine's (%v)", err)
	}
	in, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Do(func() error {
		if now, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || now == in {
			t.Errorf("Do calls in %s, outside is %s (%v)", now, in, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotsDiffer(t *testing.T) {
	h := newHost(t)
	before, err := h.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "kit-test"
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	}); err != nil {
		t.Fatal(err)
	}
	after, err := h.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	more := slices.DeleteFunc(slices.Clone(after), func(line string) bool { return slices.Contains(before, line) })
	if !slices.Equal(more, []string{"link kit-test (bridge)"}) {
		t.Errorf("a link was added, and the snapshots differ by %q", more)
	}
}

func TestNamespaces(t *testing.T) {
	h := newHost(t)
	n, err := h.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "a"
		fd, err := os.Open(n.Path) // as a driver does
		if err != nil {
			return err
		}
		defer func() { _ = fd.Close() }()
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "b", PeerNamespace: netlink.NsFd(int(fd.Fd()))})
	}); err != nil {
		t.Fatal(err)
	}
	list, err := n.Interfaces()
	if err != nil || len(list) != 1 || list[0].Name != "b" || list[0].Up {
		t.Errorf("%+v, %v", list, err)
	}
	for range 2 {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(n.Path); !os.IsNotExist(err) {
		t.Errorf("the namespace's file: %v", err)
	}
}

// TestTheFirstThreadStays: what /proc/self shows is that thread's.
func TestTheFirstThreadStays(t *testing.T) {
	h := newHost(t)
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if err := h.Do(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if now, err := os.Readlink("/proc/self/ns/mnt"); err != nil || now != before {
			t.Fatalf("the first thread was in %s and is in %s (%v)", before, now, err)
		}
	}
}
