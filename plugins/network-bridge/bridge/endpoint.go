package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/network"
)

// Attach implements network.Driver.
func (d *Driver) Attach(_ context.Context, a network.Attachment) (network.Endpoint, error) {
	own, err := readEndpointOptions(a.Options)
	if err != nil {
		return network.Endpoint{}, err
	}
	d.mu.Lock()
	s := d.networks[a.NetworkID]
	if s == nil {
		d.mu.Unlock()
		return network.Endpoint{}, fmt.Errorf("network %s is not known to driver bridge: %w", a.NetworkID, errdefs.ErrNotFound)
	}
	if e, ok := s.endpoints[a.EndpointID]; ok {
		d.mu.Unlock()
		return e, nil
	}
	a.Interface = s.interfaceName(a, own)
	e, err := d.reserve(s, a)
	d.mu.Unlock()
	if err != nil {
		return network.Endpoint{}, err
	}
	// The link is made outside the lock: endpoints do not wait for each other.
	err = d.files.saveEndpoint(e, true)
	if err == nil {
		err = d.connect(s, e, a, own)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		err = d.firewall.addPorts(d.networks, s, e)
	}
	if err == nil {
		err = d.files.saveEndpoint(e, false)
	}
	if err != nil {
		if undone := errors.Join(d.firewall.removePorts(s, e), d.forget(s, e)); undone != nil {
			d.log.Error("undoing an attachment", "endpoint", e.EndpointID, "error", undone)
		}
		d.sweeper.add(hostLink(e.EndpointID), e.Netns, 0)
		return network.Endpoint{}, fmt.Errorf("attaching to network %s: %w", s.Name, err)
	}
	d.forgetFlows(e.Ports)
	return e, nil
}

// connect plugs an endpoint in, with the bridge made anew if somebody removed it.
func (d *Driver) connect(s *netState, e network.Endpoint, a network.Attachment, own endpointOptions) error {
	err := plug(s, e, a, own, d.config.MTU)
	if errors.Is(err, unix.EEXIST) {
		// Most likely the name was that of a connection that has just ended.
		d.sweeper.hurry(e.Netns)
		err = plug(s, e, a, own, d.config.MTU)
	}
	var missing netlink.LinkNotFoundError
	if !errors.As(err, &missing) {
		return err
	}
	d.log.Warn("a network's bridge was gone and is made anew", "network", s.Name, "bridge", s.Bridge)
	d.mu.Lock()
	err = ensureBridge(s, d.config.MTU)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return plug(s, e, a, own, d.config.MTU)
}

// reserve takes addresses and ports for an endpoint; the caller holds mu.
func (d *Driver) reserve(s *netState, a network.Attachment) (e network.Endpoint, err error) {
	e = network.Endpoint{
		NetworkID: a.NetworkID, EndpointID: a.EndpointID, ContainerID: a.ContainerID, Netns: a.Netns, Interface: a.Interface, MAC: a.MAC,
	}
	if a.MAC != "" {
		if mac, err := net.ParseMAC(a.MAC); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return e, fmt.Errorf("invalid MAC address %q: want six bytes that name one station: %w", a.MAC, errdefs.ErrInvalidArgument)
		}
	}
	if e.IPv4, err = s.take(s.ip4, a.IPv4, 4); err != nil {
		return e, err
	}
	ip6, err := s.take(s.ip6, a.IPv6, 6)
	if err != nil {
		s.free(e)
		return e, err
	}
	e.IPv6 = ip6
	if e.MAC == "" {
		address := e.IPv4.Addr()
		if !address.IsValid() {
			address = e.IPv6.Addr()
		}
		e.MAC = macOf(address)
	}
	if !s.Internal {
		if s.ip4 != nil {
			e.Gateway4 = s.ip4.Gateway
		}
		if s.ip6 != nil {
			e.Gateway6 = s.ip6.Gateway
		}
		if e.Ports, err = d.ports.publish(targetOf(s, e), a.Ports); err != nil {
			s.free(e)
			return e, err
		}
	}
	s.endpoints[a.EndpointID] = e
	return e, nil
}

// Detach implements network.Driver.
func (d *Driver) Detach(_ context.Context, networkID, endpointID string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.networks[networkID]
	if s == nil {
		return nil
	}
	e, ok := s.endpoints[endpointID]
	if !ok {
		return nil
	}
	err := d.firewall.removePorts(s, e)
	err = errors.Join(err, d.forget(s, e))
	d.forgetFlows(e.Ports)
	// The link goes with its namespace, which the engine is about to drop; one that
	// is still there after a while is a running container's and is deleted.
	d.sweeper.add(hostLink(endpointID), e.Netns, namespaceGrace)
	return err
}

// namespaceGrace is how long a link may wait for its namespace's end.
const namespaceGrace = 500 * time.Millisecond

// forget gives back what reserve took; the caller holds mu.
func (d *Driver) forget(s *netState, e network.Endpoint) error {
	delete(s.endpoints, e.EndpointID)
	s.free(e)
	d.ports.release(e.EndpointID)
	return d.files.removeEndpoint(e.EndpointID)
}

// endpoint finds an endpoint; the caller holds mu.
func (d *Driver) endpoint(networkID, endpointID string) (*netState, network.Endpoint, error) {
	s := d.networks[networkID]
	if s == nil {
		return nil, network.Endpoint{}, fmt.Errorf("network %s is not known to driver bridge: %w", networkID, errdefs.ErrNotFound)
	}
	e, ok := s.endpoints[endpointID]
	if !ok {
		return nil, network.Endpoint{}, fmt.Errorf("endpoint %s is not on network %s: %w", endpointID, s.Name, errdefs.ErrNotFound)
	}
	return s, e, nil
}

// UpdatePorts implements network.Driver.
func (d *Driver) UpdatePorts(_ context.Context, networkID, endpointID string, ports []network.Port) ([]network.Port, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, old, err := d.endpoint(networkID, endpointID)
	if err != nil {
		return nil, err
	}
	if s.Internal {
		ports = nil
	}
	// Held ports first: the new ones may be the old ones, so those go before.
	d.ports.release(endpointID)
	changed := old
	if changed.Ports, err = d.ports.publish(targetOf(s, old), ports); err == nil {
		s.endpoints[endpointID] = changed
		err = errors.Join(d.firewall.replacePorts(d.networks, s, changed, old.Ports), d.files.saveEndpoint(changed, false))
	}
	if err != nil {
		s.endpoints[endpointID] = old
		d.ports.release(endpointID)
		if undone := errors.Join(d.hold(s, old), d.firewall.rebuild(d.networks), d.files.saveEndpoint(old, false)); undone != nil {
			d.log.Error("giving ports back", "endpoint", endpointID, "error", undone)
		}
		return nil, err
	}
	d.forgetFlows(slices.Concat(old.Ports, changed.Ports))
	return changed.Ports, nil
}

// hold takes the host ports of an endpoint that was there before; the caller
// holds mu.
func (d *Driver) hold(s *netState, e network.Endpoint) error {
	var errs []error
	for _, p := range e.Ports {
		if p.HostPort != 0 { // 0: routed
			errs = append(errs, d.ports.hold(targetOf(s, e), p))
		}
	}
	return errors.Join(errs...)
}

// SetGateway implements network.Driver.
func (d *Driver) SetGateway(_ context.Context, networkID, endpointID string, ipv4, ipv6 bool) error {
	d.mu.Lock()
	_, e, err := d.endpoint(networkID, endpointID)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPath(e.Netns)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", e.Netns, err)
	}
	defer func() { _ = ns.Close() }()
	return within(ns, func() error {
		handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("opening netlink: %w", err)
		}
		defer handle.Close()
		device, err := handle.LinkByName(e.Interface)
		if err != nil {
			return fmt.Errorf("link %s: %w", e.Interface, err)
		}
		return setRoutes(handle, device, e, ipv4, ipv6)
	})
}

// forgetFlows makes the kernel look at the flows of UDP ports anew: it would go
// on sending those it knows to where it sent them before, for as long as their
// senders do not pause. Connections of TCP and SCTP end by themselves.
func (d *Driver) forgetFlows(ports []network.Port) {
	filters := map[netlink.InetFamily][]netlink.CustomConntrackFilter{}
	for _, p := range ports {
		if p.Proto != "udp" || p.HostPort == 0 {
			continue
		}
		family := netlink.InetFamily(unix.AF_INET)
		if p.HostIP.Is6() {
			family = unix.AF_INET6
		}
		filter := &netlink.ConntrackFilter{}
		if errors.Join(filter.AddProtocol(unix.IPPROTO_UDP), filter.AddPort(netlink.ConntrackOrigDstPort, p.HostPort)) == nil {
			filters[family] = append(filters[family], filter)
		}
	}
	for family, any := range filters {
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, any...); err != nil {
			d.log.Warn("flows to published ports may go on to where they went before", "error", err)
		}
	}
}
