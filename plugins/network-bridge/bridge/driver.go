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
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/sdk/ipam"
	"github.com/davit-engine/davit/sdk/network"
)

// Config is the driver's configuration.
type Config struct {
	Bridge string       // name of the default network's bridge
	Table  string       // name of the nftables table
	Pools  []ipam.Block // subnets are taken from these
	MTU    int
	// Restricted closes published ports to other hosts, except what the
	// administrator's chain accepts.
	Restricted bool
}

// blocks are the default pools of one family.
func (c Config) blocks(is6 bool) []ipam.Block {
	var list []ipam.Block
	for _, b := range c.Pools {
		if b.Base.Addr().Is6() == is6 {
			list = append(list, b)
		}
	}
	return list
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
	watcher *watcher
}

// New makes a driver that keeps its records below root, and puts the kernel into
// the state that they describe.
func New(root string, config Config, log hclog.Logger) (*Driver, error) {
	d := &Driver{config: config, files: files{root}, log: log, networks: map[string]*netState{}, ports: newPortHolder()}
	if err := d.load(); err != nil {
		return nil, err
	}
	if len(config.blocks(true)) == 0 {
		base, err := d.files.uniqueLocal()
		if err != nil {
			return nil, fmt.Errorf("IPv6 addresses for networks: %w", err)
		}
		d.config.Pools = append(d.config.Pools, ipam.Block{Base: base, Size: 64})
	}
	d.firewall = newFirewall(config.Table, config.Restricted)
	d.sweeper = newLinkSweeper(log)
	var err error
	if d.watcher, err = newWatcher(d); err == nil {
		d.mu.Lock()
		err = errors.Join(d.restore(), d.sweepLinks())
		d.mu.Unlock()
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Close ends the driver's goroutines. Networks stay as they are.
func (d *Driver) Close() {
	if d.watcher != nil {
		d.watcher.close()
	}
	d.sweeper.close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ports.closeAll()
	d.firewall.close()
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
		if e.Attaching { // it is asked for again, or by nobody
			if err := errors.Join(removeLink(hostLink(e.EndpointID)), d.files.removeEndpoint(e.EndpointID)); err != nil {
				return fmt.Errorf("undoing an attachment that was cut off: %w", err)
			}
			continue
		}
		if err := s.adopt(e.Endpoint); err != nil {
			d.log.Warn("two endpoints have one address", "endpoint", e.EndpointID, "error", err)
		}
	}
	return nil
}

// restore makes bridges, firewall and held ports as the records say; the caller
// holds mu.
func (d *Driver) restore() error {
	for _, s := range d.networks {
		if err := ensureBridge(s, d.config.MTU); err != nil {
			return fmt.Errorf("network %s: %w", s.Name, err)
		}
		for _, e := range s.endpoints {
			if d.ports.holds(e.EndpointID) {
				continue
			}
			if err := d.hold(s, e); err != nil {
				d.log.Warn("a published port was taken while the driver was away", "endpoint", e.EndpointID, "error", err)
			}
		}
	}
	if len(d.networks) == 0 {
		return d.firewall.remove()
	}
	return d.firewall.rebuild(d.networks)
}

// sweepLinks removes links on the driver's bridges that belong to no endpoint:
// left by a process that died between two steps. The caller holds mu.
func (d *Driver) sweepLinks() error {
	known := map[string]bool{}
	for _, s := range d.networks {
		for id := range s.endpoints {
			known[hostLink(id)] = true
		}
	}
	links, err := allLinks()
	if err != nil {
		return err
	}
	bridges := map[int]bool{}
	for _, link := range links {
		for _, s := range d.networks {
			if link.Attrs().Name == s.Bridge {
				bridges[link.Attrs().Index] = true
			}
		}
	}
	for _, link := range links {
		a := link.Attrs()
		if bridges[a.MasterIndex] && link.Type() == "veth" && strings.HasPrefix(a.Name, hostLink("")) && !known[a.Name] {
			d.sweeper.add(a.Name, "", 0)
		}
	}
	return nil
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
	if err := errors.Join(ensureBridge(s, d.config.MTU), d.firewall.update(d.networks)); err != nil {
		delete(d.networks, n.ID)
		undone := errors.Join(removeBridge(s.Bridge), d.firewall.update(d.networks), d.files.removeNetwork(n.ID))
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
	if len(d.networks) == 0 {
		return d.firewall.remove()
	}
	return d.firewall.update(d.networks)
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
				d.sweeper.add(hostLink(id), "", 0)
			}
		}
	}
	// While their bridges are there: what is on none is not known to be ours.
	errs = append(errs, d.sweepLinks())
	for _, s := range d.networks {
		if !valid[s.ID] && len(s.endpoints) == 0 {
			errs = append(errs, d.drop(s))
		}
	}
	return errors.Join(append(errs, d.restore())...)
}

// targetOf is where an endpoint's ports lead.
func targetOf(s *netState, e network.Endpoint) target {
	t := target{endpointID: e.EndpointID, any4: s.binding4}
	if s.ip4 != nil {
		t.ip4, t.routed4 = e.IPv4.Addr(), s.ip4.mode == modeRouted
	}
	if s.ip6 != nil {
		t.ip6, t.routed6 = e.IPv6.Addr(), s.ip6.mode == modeRouted
	}
	if t.any4 == netip.IPv4Unspecified() {
		t.any4 = netip.Addr{}
	}
	return t
}
