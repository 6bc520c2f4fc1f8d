package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// mtuOf is the network's own, or the configured one.
func mtuOf(s *netState, configured int) int {
	if s.mtu > 0 {
		return s.mtu
	}
	return configured
}

// ensureBridge makes a network's bridge as it should be; one that exists is
// completed. A link of another type under the name is not touched. The ports of
// a bridge that somebody removed are put back.
func ensureBridge(s *netState, mtu int) error {
	link, err := netlink.LinkByName(s.Bridge)
	var missing netlink.LinkNotFoundError
	isNew := errors.As(err, &missing)
	if isNew {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = s.Bridge, mtuOf(s, mtu)
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("adding bridge %s: %w", s.Bridge, err)
		}
		link, err = netlink.LinkByName(s.Bridge)
	}
	if err != nil {
		return fmt.Errorf("bridge %s: %w", s.Bridge, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("interface %s exists and is a %s, not a bridge: %w", s.Bridge, link.Type(), errdefs.ErrFailedPrecondition)
	}
	// Before the link is up: what it would do by itself is not wanted.
	if err := bridgeSysctls(s); err != nil {
		return err
	}
	for _, n := range s.families() {
		address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(n.Gateway, n.Subnet.Bits())), Flags: noDAD(n.Gateway)}
		if err := netlink.AddrAdd(link, address); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("giving bridge %s its address %s: %w", s.Bridge, n.Gateway, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing bridge %s up: %w", s.Bridge, err)
	}
	if s.ip6 != nil && loopback6Works() {
		if err := routeLoopback6(link); err != nil {
			return err
		}
	}
	if !isNew {
		return nil
	}
	for id := range s.endpoints {
		if port, err := netlink.LinkByName(hostLink(id)); err == nil {
			if err := enslave(s, port, link); err != nil {
				return err
			}
		}
	}
	return nil
}

// enslave makes a link a port of the bridge.
func enslave(s *netState, port, bridge netlink.Link) error {
	if err := netlink.LinkSetMaster(port, bridge); err != nil {
		return fmt.Errorf("putting %s on bridge %s: %w", port.Attrs().Name, s.Bridge, err)
	}
	return configurePort(s, port)
}

// configurePort sets what a port of the bridge may do.
func configurePort(s *netState, port netlink.Link) error {
	// Ports of a network without inter-container communication are kept from each
	// other; all of them reach the bridge itself.
	if !s.icc {
		if err := netlink.LinkSetIsolated(port, true); err != nil {
			return fmt.Errorf("isolating %s on bridge %s: %w", port.Attrs().Name, s.Bridge, err)
		}
	}
	// Where bridged packets pass through the firewall, one from a container to
	// itself through a published port is turned round within the bridge.
	if bridgedPacketsFiltered() {
		if err := netlink.LinkSetHairpin(port, true); err != nil {
			return fmt.Errorf("setting hairpin mode of %s on bridge %s: %w", port.Attrs().Name, s.Bridge, err)
		}
	}
	return nil
}

// bridgedPacketsFiltered says whether br_netfilter is at work.
func bridgedPacketsFiltered() bool {
	return sysctlIs("net/bridge/bridge-nf-call-iptables", "1") || !loopback6Works()
}

// noDAD lets an IPv6 address be used at once: the driver knows that it is unique.
func noDAD(a netip.Addr) int {
	if a.Is6() {
		return unix.IFA_F_NODAD
	}
	return 0
}

// bridgeSysctls are ip-sysctl.rst's.
func bridgeSysctls(s *netState) error {
	var values [][2]string
	set := func(path, value string) { values = append(values, [2]string{path, value}) }
	own := func(family, key string) string { return filepath.Join("net", family, "conf", s.Bridge, key) }
	if s.ip4 != nil {
		// Published ports are reached through 127.0.0.1, too: the kernel has to route
		// such packets to the bridge. The firewall drops what others would abuse it for.
		set(own("ipv4", "route_localnet"), "1")
		set("net/ipv4/ip_forward", "1")
	}
	if s.ip6 == nil {
		// A link-local address would be a way to the host that nobody asked for.
		if err := writeSysctl(own("ipv6", "disable_ipv6"), "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	} else {
		if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
			return fmt.Errorf("network %s: this kernel runs without IPv6 (ipv6.disable=1): %w", s.Name, errdefs.ErrFailedPrecondition)
		}
		set(own("ipv6", "disable_ipv6"), "0")
		set(own("ipv6", "accept_ra"), "0")
		set(own("ipv6", "accept_dad"), "0")
		if err := forward6(); err != nil {
			return err
		}
	}
	for _, v := range values {
		if err := writeSysctl(v[0], v[1]); err != nil {
			return err
		}
	}
	return nil
}

func writeSysctl(path, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0o644); err != nil {
		return fmt.Errorf("setting sysctl %s: %w", strings.ReplaceAll(path, "/", "."), err)
	}
	return nil
}

func sysctlIs(path, value string) bool {
	body, err := os.ReadFile(filepath.Join("/proc/sys", path))
	return err == nil && strings.TrimSpace(string(body)) == value
}

// forward6 turns IPv6 forwarding on. That would end the acceptance of router
// advertisements, and with it the default route of hosts that have theirs from
// one: interfaces that accept them go on to (accept_ra=2).
func forward6() error {
	const conf = "net/ipv6/conf"
	if sysctlIs(conf+"/all/forwarding", "1") {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join("/proc/sys", conf))
	if err != nil {
		return fmt.Errorf("listing interfaces: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(conf, entry.Name(), "accept_ra")
		if entry.Name() == "all" || !sysctlIs(path, "1") || !sysctlIs(filepath.Join(conf, entry.Name(), "forwarding"), "0") {
			continue
		}
		if err := writeSysctl(path, "2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return writeSysctl(conf+"/all/forwarding", "1")
}

// loopback6Works says whether packets from ::1 can be sent to containers: not
// where bridged packets pass through the firewall (br_netfilter), which would
// give answers their destination ::1 back before the kernel drops such packets
// that come from outside (RFC 4291, 2.5.3).
func loopback6Works() bool { return !sysctlIs("net/bridge/bridge-nf-call-ip6tables", "1") }

// routeLoopback6 takes answers to ::1 that come from the bridge: what
// route_localnet does for IPv4.
func routeLoopback6(bridge netlink.Link) error {
	index := bridge.Attrs().Index
	route := &netlink.Route{
		LinkIndex: index, Dst: ipNet(loopback[ip6]), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL,
		// Its own for each bridge: routes of one metric would share the load.
		Priority: 1024 + index,
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("routing ::1 from bridge %s: %w", bridge.Attrs().Name, err)
	}
	return nil
}

func removeBridge(name string) error {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	if link.Type() != "bridge" {
		return nil // not what we made
	}
	if err := removePorts(link); err != nil {
		return err
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("removing bridge %s: %w", name, err)
	}
	return nil
}

// removePorts removes the host's ends of endpoints that are still on a bridge.
// Without it nothing would tell whose they are.
func removePorts(bridge netlink.Link) error {
	links, err := allLinks()
	if err != nil {
		return err
	}
	for _, link := range links {
		a := link.Attrs()
		if a.MasterIndex != bridge.Attrs().Index || link.Type() != "veth" || !strings.HasPrefix(a.Name, hostLink("")) {
			continue
		}
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("removing link %s: %w", a.Name, err)
		}
	}
	return nil
}

// allLinks lists the namespace's links. The kernel says when the list changed
// while it was read: then it is read again.
func allLinks() ([]netlink.Link, error) {
	const attempts = 16
	var links []netlink.Link
	var err error
	for range attempts {
		if links, err = netlink.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	return links, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
