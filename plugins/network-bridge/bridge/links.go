package bridge

import (
	"errors"
	"fmt"

	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/network"
)

// hostLink is the host's end of an endpoint's veth pair.
func hostLink(endpointID string) string { return "veth" + endpointID[:min(11, len(endpointID))] }

// mtuOf is the network's own, or the configured one.
func mtuOf(s *netState, configured int) int {
	if n, err := strconv.Atoi(s.Options[optionMTU]); err == nil && n > 0 {
		return n
	}
	return configured
}

// ensureBridge makes a network's bridge as it should be; one that exists is
// completed. A link of another type under the name is not touched.
func ensureBridge(s *netState, mtu int) error {
	link, err := netlink.LinkByName(s.Bridge)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.Flags = s.Bridge, mtuOf(s, mtu), net.FlagUp
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
	pool := s.Pools[0]
	address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(pool.Gateway, pool.Subnet.Bits()))}
	if err := netlink.AddrAdd(link, address); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("giving bridge %s its address %s: %w", s.Bridge, pool.Gateway, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing bridge %s up: %w", s.Bridge, err)
	}
	// Published ports are reached through 127.0.0.1, too: the kernel has to route
	// such packets to the bridge. The firewall drops what others would abuse it for.
	for path, value := range map[string]string{
		filepath.Join("/proc/sys/net/ipv4/conf", s.Bridge, "route_localnet"): "1",
		"/proc/sys/net/ipv4/ip_forward":                                      "1",
	} {
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
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
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("removing bridge %s: %w", name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// plug makes an endpoint's veth pair with its far end in the namespace, gives it
// its address and brings it up. On failure the pair is left to the caller's
// undoing.
func plug(s *netState, e network.Endpoint, gateway bool, mtu int) error {
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
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening netlink in %s: %w", e.Netns, err)
	}
	defer inside.Close()
	device, err := inside.LinkByName(e.Interface)
	if err != nil {
		return fmt.Errorf("link %s in %s: %w", e.Interface, e.Netns, err)
	}
	if err := inside.AddrAdd(device, &netlink.Addr{IPNet: ipNet(e.IPv4)}); err != nil {
		return fmt.Errorf("giving %s its address %s: %w", e.Interface, e.IPv4, err)
	}
	if err := inside.LinkSetUp(device); err != nil {
		return fmt.Errorf("bringing %s up: %w", e.Interface, err)
	}
	if gateway && e.Gateway4.IsValid() {
		route := &netlink.Route{LinkIndex: device.Attrs().Index, Gw: e.Gateway4.AsSlice()}
		if err := inside.RouteAdd(route); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("adding the default route by %s: %w", e.Gateway4, err)
		}
	}
	return nil
}

// linkSweeper deletes links in the background: the kernel takes up to 30 ms for
// each, and most are gone with their namespace before their turn.
type linkSweeper struct {
	log  hclog.Logger
	mu   sync.Mutex
	due  []dueLink
	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

type dueLink struct {
	name string
	at   time.Time
}

func newLinkSweeper(log hclog.Logger) *linkSweeper {
	s := &linkSweeper{log: log, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go s.loop()
	return s
}

func (s *linkSweeper) add(name string, after time.Duration) {
	s.mu.Lock()
	s.due = append(s.due, dueLink{name, time.Now().Add(after)})
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *linkSweeper) loop() {
	defer close(s.done)
	for {
		name, wait := s.next()
		if name != "" {
			s.remove(name)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-s.stop:
			timer.Stop()
			return
		case <-s.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// next answers a link that is due, or how long to wait for one.
func (s *linkSweeper) next() (string, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := time.Hour
	for i, link := range s.due {
		left := time.Until(link.at)
		if left <= 0 {
			s.due = append(s.due[:i:i], s.due[i+1:]...)
			return link.name, 0
		}
		wait = min(wait, left)
	}
	return "", wait
}

func (s *linkSweeper) remove(name string) {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	var missing netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &missing) && !errors.Is(err, unix.ENODEV) {
		s.log.Warn("removing a link", "link", name, "error", err)
	}
}

// close ends the sweeper; what is not due yet goes at once.
func (s *linkSweeper) close() {
	close(s.stop)
	<-s.done
	for _, link := range s.due {
		s.remove(link.name)
	}
}
