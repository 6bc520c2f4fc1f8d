// Package bridge is davit's default network driver: a Linux bridge for each
// network, a veth pair for each endpoint, and one nftables table in which a
// published port is one map element. All by netlink; no tools are executed.
//
// What the driver knows is in files below its root directory and in the kernel;
// memory is only an index, so the process may be killed at any time.
package bridge

import (
	"context"
	"errors"
	"fmt"

	"net/netip"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/sdk/ipam"
	"github.com/davit-engine/davit/sdk/network"
)

// Config is the driver's configuration.
type Config struct {
	Bridge string         // name of the default network's bridge
	Table  string         // name of the nftables table
	Pools  []netip.Prefix // subnets are taken from these
	MTU    int
}

// Driver implements network.Driver.
type Driver struct {
	config Config
	files  files
	log    hclog.Logger

	// mu guards the index below and the firewall; the kernel calls under it are
	// short and local.
	mu       sync.Mutex
	networks map[string]*netState
	firewall *firewall
	ports    *portHolder

	sweeper *linkSweeper
}

// netState is one network in memory.
type netState struct {
	network.Network
	Bridge    string
	pool      *ipam.Pool
	endpoints map[string]network.Endpoint
}

// New makes a driver that keeps its records below root, and puts the kernel into
// the state that they describe.
func New(root string, config Config, log hclog.Logger) (*Driver, error) {
	d := &Driver{config: config, files: files{root}, log: log, networks: map[string]*netState{}, ports: newPortHolder(), sweeper: newLinkSweeper(log)}
	if err := d.load(); err != nil {
		d.sweeper.close()
		return nil, err
	}
	d.firewall = newFirewall(config.Table)
	if err := d.restore(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Close ends the driver's goroutines. Networks stay as they are.
func (d *Driver) Close() {
	d.sweeper.close()
	d.ports.closeAll()
}

// load reads all records and rebuilds the index.
func (d *Driver) load() error {
	networks, endpoints, err := d.files.load()
	if err != nil {
		return err
	}
	for _, n := range networks {
		s, err := newNetState(n)
		if err != nil {
			return fmt.Errorf("record of network %s: %w", n.ID, err)
		}
		d.networks[n.ID] = s
	}
	for _, e := range endpoints {
		s := d.networks[e.NetworkID]
		if s == nil { // its network's deletion was cut off
			if err := d.files.removeEndpoint(e.EndpointID); err != nil {
				return err
			}
			continue
		}
		s.endpoints[e.EndpointID] = e
		if err := s.pool.Take(e.IPv4.Addr()); err != nil {
			d.log.Warn("two endpoints have one address", "endpoint", e.EndpointID, "error", err)
		}
	}
	return nil
}

func newNetState(n record) (*netState, error) {
	pool := n.Pools[0]
	addresses, err := ipam.New(pool.Subnet, pool.Range)
	if err != nil {
		return nil, err
	}
	reserved := []netip.Addr{pool.Gateway}
	for _, aux := range pool.Aux {
		reserved = append(reserved, aux)
	}
	for _, a := range reserved {
		if err := addresses.Take(a); err != nil {
			return nil, err
		}
	}
	return &netState{Network: n.Network, Bridge: n.Bridge, pool: addresses, endpoints: map[string]network.Endpoint{}}, nil
}

// restore makes bridges, firewall and held ports as the records say.
func (d *Driver) restore() error {
	for _, s := range d.networks {
		if err := ensureBridge(s, d.config.MTU); err != nil {
			return fmt.Errorf("network %s: %w", s.Name, err)
		}
		for _, e := range s.endpoints {
			if d.ports.holds(e.EndpointID) {
				continue
			}
			for _, p := range e.Ports {
				if err := d.ports.hold(e.EndpointID, p); err != nil {
					d.log.Warn("a published port was taken while the driver was away", "endpoint", e.EndpointID, "error", err)
				}
			}
		}
	}
	return d.firewall.rebuild(d.networks)
}

// CreateNetwork implements network.Driver.
func (d *Driver) CreateNetwork(_ context.Context, n network.Network) (network.Network, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.networks[n.ID]; s != nil {
		return s.Network, nil
	}
	if n.ID == "" {
		return network.Network{}, fmt.Errorf("network has no ID: %w", errdefs.ErrInvalidArgument)
	}
	if n.IPv6 {
		return network.Network{}, fmt.Errorf("IPv6 on network %s: driver bridge has IPv4 only so far: %w", n.Name, errdefs.ErrNotImplemented)
	}
	r, err := d.plan(n)
	if err != nil {
		return network.Network{}, err
	}
	s, err := newNetState(r)
	if err != nil {
		return network.Network{}, err
	}
	if err := d.files.saveNetwork(r); err != nil {
		return network.Network{}, err
	}
	d.networks[n.ID] = s
	if err := errors.Join(ensureBridge(s, d.config.MTU), d.firewall.rebuild(d.networks)); err != nil {
		delete(d.networks, n.ID)
		undone := errors.Join(removeBridge(s.Bridge), d.firewall.rebuild(d.networks), d.files.removeNetwork(n.ID))
		if undone != nil {
			d.log.Error("undoing a network", "network", n.Name, "error", undone)
		}
		return network.Network{}, fmt.Errorf("making network %s: %w", n.Name, err)
	}
	return s.Network, nil
}

// DeleteNetwork implements network.Driver.
func (d *Driver) DeleteNetwork(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.networks[id]
	if s == nil {
		return nil
	}
	if len(s.endpoints) > 0 {
		return fmt.Errorf("network %s id %s has active endpoints: %w", s.Name, id, errdefs.ErrFailedPrecondition)
	}
	return d.drop(s)
}

// drop removes a network without endpoints; the caller holds mu.
func (d *Driver) drop(s *netState) error {
	if err := removeBridge(s.Bridge); err != nil {
		return err
	}
	if err := d.files.removeNetwork(s.ID); err != nil {
		return err
	}
	delete(d.networks, s.ID)
	return d.firewall.rebuild(d.networks)
}

// Attach implements network.Driver.
func (d *Driver) Attach(_ context.Context, a network.Attachment) (network.Endpoint, error) {
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
	e, err := d.reserve(s, a)
	d.mu.Unlock()
	if err != nil {
		return network.Endpoint{}, err
	}
	// The link is made outside the lock: endpoints do not wait for each other.
	err = d.files.saveEndpoint(e)
	if err == nil {
		err = plug(s, e, a.Gateway, d.config.MTU)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		err = d.firewall.addPorts(e)
	}
	if err != nil {
		if undone := d.forget(s, e); undone != nil {
			d.log.Error("undoing an attachment", "endpoint", e.EndpointID, "error", undone)
		}
		d.sweeper.add(hostLink(e.EndpointID), 0)
		return network.Endpoint{}, fmt.Errorf("attaching to network %s: %w", s.Name, err)
	}
	return e, nil
}

// reserve takes address and ports for an endpoint; the caller holds mu.
func (d *Driver) reserve(s *netState, a network.Attachment) (network.Endpoint, error) {
	e := network.Endpoint{
		NetworkID: a.NetworkID, EndpointID: a.EndpointID, ContainerID: a.ContainerID, Netns: a.Netns, Interface: a.Interface, MAC: a.MAC,
	}
	address := a.IPv4
	if address.IsValid() {
		if err := s.pool.Take(address); err != nil {
			return e, err
		}
	} else {
		var err error
		if address, err = s.pool.Next(); err != nil {
			return e, err
		}
	}
	e.IPv4 = netip.PrefixFrom(address, s.Pools[0].Subnet.Bits())
	if !s.Internal {
		e.Gateway4 = s.Pools[0].Gateway
	}
	if e.MAC == "" {
		e.MAC = macOf(address)
	}
	if !s.Internal {
		ports, err := d.ports.publish(a.EndpointID, a.Ports)
		if err != nil {
			s.pool.Free(address)
			return e, portText(err, address)
		}
		e.Ports = ports
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
	err := d.firewall.removePorts(e)
	err = errors.Join(err, d.forget(s, e))
	// The link goes with its namespace, which the engine is about to drop; one that
	// is still there after a while is a running container's and is deleted.
	d.sweeper.add(hostLink(endpointID), namespaceGrace)
	return err
}

// namespaceGrace is how long a link may wait for its namespace's end.
const namespaceGrace = 500 * time.Millisecond

// forget gives back what reserve took; the caller holds mu.
func (d *Driver) forget(s *netState, e network.Endpoint) error {
	delete(s.endpoints, e.EndpointID)
	s.pool.Free(e.IPv4.Addr())
	d.ports.release(e.EndpointID)
	return d.files.removeEndpoint(e.EndpointID)
}

// UpdatePorts implements network.Driver.
func (d *Driver) UpdatePorts(_ context.Context, networkID, endpointID string, ports []network.Port) ([]network.Port, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.networks[networkID]
	if s == nil {
		return nil, fmt.Errorf("network %s is not known to driver bridge: %w", networkID, errdefs.ErrNotFound)
	}
	old, ok := s.endpoints[endpointID]
	if !ok {
		return nil, fmt.Errorf("endpoint %s is not on network %s: %w", endpointID, s.Name, errdefs.ErrNotFound)
	}
	if err := d.firewall.removePorts(old); err != nil {
		return nil, err
	}
	d.ports.release(endpointID)
	changed := old
	published, err := d.ports.publish(endpointID, ports)
	if err == nil {
		changed.Ports = published
	} else if _, restored := d.ports.publish(endpointID, old.Ports); restored != nil {
		err = errors.Join(err, restored)
	}
	s.endpoints[endpointID] = changed
	if failed := errors.Join(d.firewall.addPorts(changed), d.files.saveEndpoint(changed)); failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, portText(err, old.IPv4.Addr())
	}
	return published, nil
}

// List implements network.Driver.
func (d *Driver) List(context.Context) (network.State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var state network.State
	for _, s := range d.networks {
		state.Networks = append(state.Networks, s.Network)
		for _, e := range s.endpoints {
			state.Endpoints = append(state.Endpoints, e)
		}
	}
	return state, nil
}

// Reconcile implements network.Driver.
func (d *Driver) Reconcile(_ context.Context, networkIDs, endpointIDs []string) error {
	valid := map[string]bool{}
	for _, id := range append(networkIDs, endpointIDs...) {
		valid[id] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, s := range d.networks {
		for id, e := range s.endpoints {
			if !valid[id] {
				errs = append(errs, d.forget(s, e))
				d.sweeper.add(hostLink(id), 0)
			}
		}
		if !valid[s.ID] && len(s.endpoints) == 0 {
			errs = append(errs, d.drop(s))
		}
	}
	return errors.Join(append(errs, d.restore())...)
}
