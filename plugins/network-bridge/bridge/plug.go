package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/network"
)

// hostLink is the host's end of an endpoint's veth pair.
func hostLink(endpointID string) string { return "veth" + endpointID[:min(11, len(endpointID))] }

// plug makes an endpoint's veth pair with its far end in the namespace, gives it
// its addresses and brings it up. On failure the pair is left to the caller's
// undoing.
func plug(s *netState, e network.Endpoint, a network.Attachment, own endpointOptions, mtu int) error {
	ns, err := netns.GetFromPath(e.Netns)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", e.Netns, err)
	}
	defer func() { _ = ns.Close() }()
	bridge, err := netlink.LinkByName(s.Bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", s.Bridge, err)
	}
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return fmt.Errorf("MAC address: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex, attrs.Flags = hostLink(e.EndpointID), mtuOf(s, mtu), bridge.Attrs().Index, net.FlagUp
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: e.Interface, PeerHardwareAddr: mac, PeerNamespace: netlink.NsFd(int(ns))}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("adding link %s: %w", attrs.Name, err)
	}
	if !s.icc || bridgedPacketsFiltered() {
		port, err := netlink.LinkByName(attrs.Name)
		if err != nil {
			return fmt.Errorf("link %s: %w", attrs.Name, err)
		}
		if err := configurePort(s, port); err != nil {
			return err
		}
	}
	return within(ns, func() error { return configure(e, a, own) })
}

// configure sets an interface up inside its namespace. Steps in order: what the
// kernel would do by itself when the link comes up is settled first; routes need
// the link up.
func configure(e network.Endpoint, a network.Attachment, own endpointOptions) error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer handle.Close()
	device, err := handle.LinkByName(e.Interface)
	if err != nil {
		return fmt.Errorf("link %s: %w", e.Interface, err)
	}
	if err := interfaceSysctls(e, a, own); err != nil {
		return err
	}
	for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
		if !p.IsValid() {
			continue
		}
		if err := handle.AddrAdd(device, &netlink.Addr{IPNet: ipNet(p), Flags: noDAD(p.Addr())}); err != nil {
			return fmt.Errorf("giving %s its address %s: %w", e.Interface, p, err)
		}
	}
	if err := handle.LinkSetUp(device); err != nil {
		return fmt.Errorf("bringing %s up: %w", e.Interface, err)
	}
	return setRoutes(handle, device, e, a.Gateway4, a.Gateway6)
}

// interfaceSysctls writes parameters of an interface from inside its namespace.
func interfaceSysctls(e network.Endpoint, a network.Attachment, own endpointOptions) error {
	conf6 := filepath.Join("net/ipv6/conf", e.Interface)
	if e.IPv6.IsValid() {
		for _, c := range []sysctl{{"disable_ipv6", "0"}, {"accept_ra", "0"}, {"accept_dad", "0"}} {
			if err := writeSysctl(filepath.Join(conf6, c.path), c.value); err != nil {
				return err
			}
		}
	} else if err := writeSysctl(conf6+"/disable_ipv6", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if a.MAC != "" {
		// The address may have been another container's, with another hardware
		// address: neighbours are told.
		if err := writeSysctl(filepath.Join("net/ipv4/conf", e.Interface, "arp_notify"), "1"); err != nil {
			return err
		}
		if e.IPv6.IsValid() {
			if err := writeSysctl(conf6+"/ndisc_notify", "1"); err != nil {
				return err
			}
		}
	}
	for _, c := range own.sysctls {
		path := strings.Replace(c.path, "/IFNAME/", "/"+e.Interface+"/", 1)
		if err := writeSysctl(path, c.value); err != nil {
			return fmt.Errorf("unable to set %s: %w: %w", path, err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// setRoutes adds an endpoint's default routes, or withdraws them.
func setRoutes(handle *netlink.Handle, device netlink.Link, e network.Endpoint, ipv4, ipv6 bool) error {
	for _, r := range []struct {
		gateway netip.Addr
		wanted  bool
	}{{e.Gateway4, ipv4}, {e.Gateway6, ipv6}} {
		if !r.gateway.IsValid() {
			continue
		}
		route := &netlink.Route{LinkIndex: device.Attrs().Index, Gw: r.gateway.AsSlice()}
		if r.wanted {
			if err := handle.RouteAdd(route); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("adding the default route by %s: %w", r.gateway, err)
			}
		} else if err := handle.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("removing the default route by %s: %w", r.gateway, err)
		}
	}
	return nil
}

// within runs fn on a thread inside a network namespace; sockets that it opens
// and sysctls that it writes are the namespace's.
func within(ns netns.NsHandle, fn func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { _ = home.Close() }()
	if err := unix.Setns(int(ns), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("joining the network namespace: %w", err)
	}
	err = fn()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, and ends with its goroutine.
		return errors.Join(err, fmt.Errorf("leaving the network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}
