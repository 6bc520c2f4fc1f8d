package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/network"
)

// portHolder reserves host ports by binding a socket to each, without listening:
// no other process can take the port while packets to it go to a container by
// the firewall's maps. The sockets die with the plugin and are bound again when
// it comes back.
type portHolder struct {
	held map[portKey][]heldAddress
	of   map[string][]heldPort // by endpoint
	// Host ports of published ports that name none, and the one to try next.
	first, last, next uint16
}

type portKey struct {
	proto string
	port  uint16
}

type heldAddress struct {
	ip     netip.Addr
	socket int // -1: the kernel does not speak the protocol, nobody can take the port
}

type heldPort struct {
	portKey
	ip netip.Addr
}

func newPortHolder() *portHolder {
	first, last := ephemeralPorts()
	return &portHolder{held: map[portKey][]heldAddress{}, of: map[string][]heldPort{}, first: first, last: last, next: first}
}

// ephemeralPorts is the kernel's own range (ip-sysctl.rst).
func ephemeralPorts() (first, last uint16) {
	body, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		if _, err = fmt.Sscan(string(body), &first, &last); err == nil && first > 0 && first < last {
			return first, last
		}
	}
	return 32768, 60999
}

// target is the container's side of published ports.
type target struct {
	endpointID string
	ip4, ip6   netip.Addr // zero: not published in that family
	any4       netip.Addr // stands for 0.0.0.0 where a port names no address

	// In routed networks no port of the host leads to the container's.
	routed4, routed6 bool
}

// routed is a port as published in the families that are routed.
func (t target) routed(p network.Port) []network.Port {
	var list []network.Port
	add := func(host netip.Addr) {
		list = append(list, network.Port{Proto: p.Proto, ContainerPort: p.ContainerPort, HostIP: host})
	}
	if t.routed4 && t.ip4.IsValid() && !p.HostIP.Is6() {
		add(netip.IPv4Unspecified())
	}
	if t.routed6 && t.ip6.IsValid() && !p.HostIP.Is4() {
		add(netip.IPv6Unspecified())
	}
	return list
}

// at is the container's address that a host address leads to.
func (t target) at(host netip.Addr) netip.Addr {
	if host.Is4() {
		return t.ip4
	}
	return t.ip6
}

// hosts are the host addresses that a port is published on.
func (t target) hosts(p network.Port) ([]netip.Addr, error) {
	if p.HostIP.IsValid() {
		host := p.HostIP.Unmap()
		if !t.at(host).IsValid() {
			return nil, fmt.Errorf("cannot publish port %d/%s on %s: the endpoint that gives the default route has no address of that family: %w", p.ContainerPort, p.Proto, host, errdefs.ErrInvalidArgument)
		}
		if host.Is4() && t.routed4 || host.Is6() && t.routed6 {
			return nil, nil
		}
		return []netip.Addr{host}, nil
	}
	var list []netip.Addr
	if t.ip4.IsValid() && !t.routed4 {
		host := netip.IPv4Unspecified()
		if t.any4.IsValid() {
			host = t.any4
		}
		list = append(list, host)
	}
	if t.ip6.IsValid() && !t.routed6 && !t.any4.IsValid() {
		list = append(list, netip.IPv6Unspecified())
	}
	return list, nil
}

// publish takes host ports for all wanted ports, or none.
func (h *portHolder) publish(t target, wanted []network.Port) ([]network.Port, error) {
	var published []network.Port
	for _, p := range wanted {
		some, err := h.publishOne(t, p)
		if err != nil {
			h.release(t.endpointID)
			return nil, err
		}
		published = append(append(published, some...), t.routed(p)...)
	}
	return published, nil
}

// publishOne tries the ports of a range until one is free on all addresses.
func (h *portHolder) publishOne(t target, p network.Port) ([]network.Port, error) {
	if p.ContainerPort == 0 {
		return nil, fmt.Errorf("container port is 0: %w", errdefs.ErrInvalidArgument)
	}
	hosts, err := t.hosts(p)
	if err != nil || len(hosts) == 0 {
		return nil, err
	}
	if p.HostPort == 0 {
		return h.publishEphemeral(t, p, hosts)
	}
	for port := int(p.HostPort); port <= max(int(p.HostPort), int(p.HostPortEnd)); port++ {
		p.HostPort = uint16(port)
		var published []network.Port
		if published, err = h.holdAll(t, p, hosts); err == nil || !errors.Is(err, network.ErrPortInUse) {
			return published, err
		}
	}
	return nil, err
}

func (h *portHolder) publishEphemeral(t target, p network.Port, hosts []netip.Addr) ([]network.Port, error) {
	var err error
	for range int(h.last) - int(h.first) + 1 {
		p.HostPort = h.next
		if h.next++; h.next > h.last || h.next == 0 {
			h.next = h.first
		}
		var published []network.Port
		if published, err = h.holdAll(t, p, hosts); err == nil || !errors.Is(err, network.ErrPortInUse) {
			return published, err
		}
	}
	return nil, fmt.Errorf("no free host port between %d and %d: %w", h.first, h.last, err)
}

// holdAll holds one port on all of its addresses, or on none.
func (h *portHolder) holdAll(t target, p network.Port, hosts []netip.Addr) ([]network.Port, error) {
	p.HostPortEnd = 0
	var published []network.Port
	for _, host := range hosts {
		p.HostIP = host
		if err := h.hold(t, p); err != nil {
			for _, done := range published {
				h.drop(t.endpointID, heldPort{portKey{done.Proto, done.HostPort}, done.HostIP})
			}
			return nil, err
		}
		published = append(published, p)
	}
	return published, nil
}

// hold binds one port on one address for an endpoint.
func (h *portHolder) hold(t target, p network.Port) error {
	key := portKey{p.Proto, p.HostPort}
	for _, other := range h.held[key] {
		if other.ip == p.HostIP || other.ip.Is4() == p.HostIP.Is4() && (other.ip.IsUnspecified() || p.HostIP.IsUnspecified()) {
			return &portError{fmt.Sprintf("Bind for %s failed: port is already allocated", netip.AddrPortFrom(p.HostIP, p.HostPort))}
		}
	}
	socket, err := bind(p)
	if errors.Is(err, unix.EADDRINUSE) {
		// Docker's words, from which people copy the address.
		return &portError{fmt.Sprintf("failed to bind host port for %s:%s/%s: address already in use",
			netip.AddrPortFrom(p.HostIP, p.HostPort), netip.AddrPortFrom(t.at(p.HostIP), p.ContainerPort), p.Proto)}
	}
	if err != nil {
		return fmt.Errorf("failed to bind host port for %s/%s: %w", netip.AddrPortFrom(p.HostIP, p.HostPort), p.Proto, err)
	}
	h.held[key] = append(h.held[key], heldAddress{p.HostIP, socket})
	h.of[t.endpointID] = append(h.of[t.endpointID], heldPort{key, p.HostIP})
	return nil
}

func bind(p network.Port) (int, error) {
	var kind, proto int
	switch p.Proto {
	case "tcp":
		kind, proto = unix.SOCK_STREAM, unix.IPPROTO_TCP
	case "udp":
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case "sctp":
		kind, proto = unix.SOCK_STREAM, unix.IPPROTO_SCTP
	default:
		return -1, fmt.Errorf("protocol %q is not tcp, udp or sctp: %w", p.Proto, errdefs.ErrInvalidArgument)
	}
	family := unix.AF_INET
	if p.HostIP.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if errors.Is(err, unix.EPROTONOSUPPORT) && p.Proto == "sctp" {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if p.HostIP.Is4() {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(p.HostPort), Addr: p.HostIP.As4()})
	} else if err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet6{Port: int(p.HostPort), Addr: p.HostIP.As16()})
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// portError has exactly Docker's text; its kind is [network.ErrPortInUse].
type portError struct{ text string }

func (e *portError) Error() string { return e.text }
func (e *portError) Unwrap() error { return network.ErrPortInUse }

// drop gives one held port back.
func (h *portHolder) drop(endpointID string, p heldPort) {
	left := h.held[p.portKey][:0:0]
	for _, a := range h.held[p.portKey] {
		switch {
		case a.ip != p.ip:
			left = append(left, a)
		case a.socket >= 0:
			_ = unix.Close(a.socket)
		}
	}
	if h.held[p.portKey] = left; len(left) == 0 {
		delete(h.held, p.portKey)
	}
	mine := h.of[endpointID][:0:0]
	for _, own := range h.of[endpointID] {
		if own != p {
			mine = append(mine, own)
		}
	}
	if h.of[endpointID] = mine; len(mine) == 0 {
		delete(h.of, endpointID)
	}
}

// release gives back all ports of an endpoint.
func (h *portHolder) release(endpointID string) {
	all := h.of[endpointID]
	delete(h.of, endpointID)
	for _, p := range all {
		h.drop(endpointID, p)
	}
}

func (h *portHolder) holds(endpointID string) bool { return len(h.of[endpointID]) > 0 }

func (h *portHolder) closeAll() {
	for endpointID := range h.of {
		h.release(endpointID)
	}
}
