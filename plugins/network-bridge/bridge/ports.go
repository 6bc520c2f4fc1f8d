package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/network"
)

// Host ports of published ports that name none, as Linux's own ephemeral range.
const (
	firstEphemeral = 32768
	lastEphemeral  = 60999
)

// portHolder reserves host ports by binding a socket to each, without listening:
// no other process can take the port while packets to it go to a container by
// the firewall's maps. The sockets die with the plugin and are bound again when
// it comes back.
type portHolder struct {
	held map[heldPort]int      // socket
	of   map[string][]heldPort // by endpoint
	next uint16                // ephemeral port to try next
}

type heldPort struct {
	proto string
	ip    netip.Addr // unspecified for all
	port  uint16
}

func newPortHolder() *portHolder {
	return &portHolder{held: map[heldPort]int{}, of: map[string][]heldPort{}, next: firstEphemeral}
}

// publish takes host ports for all wanted ports, or none.
func (h *portHolder) publish(endpointID string, wanted []network.Port) ([]network.Port, error) {
	var published []network.Port
	for _, p := range wanted {
		one, err := h.publishOne(endpointID, p)
		if err != nil {
			h.release(endpointID)
			return nil, err
		}
		published = append(published, one)
	}
	return published, nil
}

func (h *portHolder) publishOne(endpointID string, p network.Port) (network.Port, error) {
	first, last := p.HostPort, p.HostPortEnd
	if first == 0 {
		return h.publishEphemeral(endpointID, p)
	}
	if last < first {
		last = first
	}
	p.HostPortEnd = 0
	var err error
	for port := int(first); port <= int(last); port++ {
		p.HostPort = uint16(port)
		if err = h.hold(endpointID, p); err == nil {
			return p, nil
		}
	}
	return p, err
}

func (h *portHolder) publishEphemeral(endpointID string, p network.Port) (network.Port, error) {
	p.HostPortEnd = 0
	var err error
	for range lastEphemeral - firstEphemeral + 1 {
		p.HostPort = h.next
		if h.next++; h.next > lastEphemeral {
			h.next = firstEphemeral
		}
		if err = h.hold(endpointID, p); err == nil {
			return p, nil
		}
	}
	return p, fmt.Errorf("no free host port between %d and %d: %w", firstEphemeral, lastEphemeral, err)
}

// hold binds one port for an endpoint.
func (h *portHolder) hold(endpointID string, p network.Port) error {
	key := heldPort{p.Proto, p.HostIP, p.HostPort}
	if !key.ip.IsValid() {
		key.ip = netip.IPv4Unspecified()
	}
	if !key.ip.Is4() {
		return fmt.Errorf("publishing on %s: driver bridge has IPv4 only so far: %w", key.ip, errdefs.ErrNotImplemented)
	}
	for other := range h.held {
		if other.proto == key.proto && other.port == key.port && (other.ip == key.ip || other.ip.IsUnspecified() || key.ip.IsUnspecified()) {
			return &portError{fmt.Sprintf("Bind for %s:%d failed: port is already allocated", key.ip, key.port), network.ErrPortInUse}
		}
	}
	fd, err := bind(key)
	if err != nil {
		return err
	}
	h.held[key] = fd
	h.of[endpointID] = append(h.of[endpointID], key)
	return nil
}

func bind(key heldPort) (int, error) {
	var kind, proto int
	switch key.proto {
	case "tcp":
		kind, proto = unix.SOCK_STREAM, unix.IPPROTO_TCP
	case "udp":
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case "sctp":
		kind, proto = unix.SOCK_STREAM, unix.IPPROTO_SCTP
	default:
		return -1, fmt.Errorf("protocol %q is not tcp, udp or sctp: %w", key.proto, errdefs.ErrInvalidArgument)
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, fmt.Errorf("socket for %s: %w", key.proto, err)
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(key.port), Addr: key.ip.As4()})
	if err == nil {
		return fd, nil
	}
	_ = unix.Close(fd)
	if errors.Is(err, unix.EADDRINUSE) {
		return -1, &portError{fmt.Sprintf("failed to bind host port for %s:%d: address already in use", key.ip, key.port), network.ErrPortInUse}
	}
	return -1, fmt.Errorf("failed to bind host port for %s:%d/%s: %w", key.ip, key.port, key.proto, err)
}

// portError has exactly Docker's text and the kind beside it.
type portError struct {
	text string
	kind error
}

func (e *portError) Error() string { return e.text }
func (e *portError) Unwrap() error { return e.kind }

// portText puts the container's side into the text where Docker has it.
func portText(err error, container netip.Addr) error {
	var p *portError
	if errors.As(err, &p) && strings.HasPrefix(p.text, "failed to bind host port") {
		return &portError{strings.Replace(p.text, ": address already in use", fmt.Sprintf(" → %s: address already in use", container), 1), p.kind}
	}
	return err
}

// release gives back all ports of an endpoint.
func (h *portHolder) release(endpointID string) {
	for _, key := range h.of[endpointID] {
		_ = unix.Close(h.held[key])
		delete(h.held, key)
	}
	delete(h.of, endpointID)
}

func (h *portHolder) holds(endpointID string) bool { return len(h.of[endpointID]) > 0 }

func (h *portHolder) closeAll() {
	for endpointID := range h.of {
		h.release(endpointID)
	}
}
