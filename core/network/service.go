package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"go.etcd.io/bbolt"

	"github.com/davit-engine/davit/core/dns"
	"github.com/davit-engine/davit/core/netns"
	"github.com/davit-engine/davit/core/resolvconf"
	"github.com/davit-engine/davit/core/state"
	sdknetwork "github.com/davit-engine/davit/sdk/network"
)

// Options are what a service is made of.
type Options struct {
	DB *bbolt.DB
	// Driver finds a network driver; the empty name is the default.
	Driver        func(name string) (sdknetwork.Driver, error)
	DefaultDriver string
	NetnsDir      string
	PoolSize      int
	Resolver      *resolvconf.HostFile
	DNS           resolvconf.Overrides // of containers that say nothing themselves
	Emit          func(events.Message)
	Log           *slog.Logger
}

// Service is the engine's networks.
type Service struct {
	Options
	records *state.Collection[Network]
	pool    *netns.Pool
	names   *dns.Server
	called  *directory // follows attached

	mu       sync.RWMutex
	networks map[string]Network             // by ID
	attached map[string]map[string]attached // network ID → endpoint ID

	// held are the endpoints that containers have, or are just getting: what a
	// driver must keep when it reconciles.
	held map[string]Attachment

	// ensuring serialises making networks in their drivers.
	ensuring sync.Mutex
	made     map[string]bool // networks that their driver has since this start
}

// attached is a container on a network.
type attached struct {
	Attachment
	endpoint sdknetwork.Endpoint
}

// New opens the networks and starts the namespace pool. Drivers are not called
// yet.
func New(o Options) (*Service, error) {
	records, err := state.NewCollection[Network](o.DB, "networks")
	if err != nil {
		return nil, err
	}
	all, err := records.All()
	if err != nil {
		return nil, err
	}
	s := &Service{Options: o, records: records, called: newDirectory(), networks: all, attached: map[string]map[string]attached{}, made: map[string]bool{}, held: map[string]Attachment{}}
	if err := s.predefine(); err != nil {
		return nil, err
	}
	if s.pool, err = netns.NewPool(o.NetnsDir, o.PoolSize, o.Log); err != nil {
		return nil, fmt.Errorf("network namespaces: %w", err)
	}
	if s.names, err = dns.New(dns.Options{Lookup: s.called.lookup, Reverse: s.called.reverse, Upstreams: s.upstreams, Log: o.Log}); err != nil {
		s.pool.Close()
		return nil, err
	}
	return s, nil
}

// Close ends name servers and pool. Containers keep their namespaces.
func (s *Service) Close() {
	s.names.Close()
	s.pool.Close()
}

// NewNetns implements the engine's Networks.
func (s *Service) NewNetns(ctx context.Context, id string) (string, error) {
	return s.pool.Get(ctx, id)
}

// AdoptNetns implements the engine's Networks.
func (s *Service) AdoptNetns(id string, pid int) (string, error) { return s.pool.Adopt(id, pid) }

// FreeNetns implements the engine's Networks.
func (s *Service) FreeNetns(id string) { s.pool.Put(id) }

// Find implements the engine's Networks.
func (s *Service) Find(nameOrID string) (Network, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n, ok := s.networks[nameOrID]; ok {
		return n, nil
	}
	var found []Network
	for _, n := range s.networks {
		if n.Name == nameOrID {
			return n, nil
		}
		if nameOrID != "" && strings.HasPrefix(n.ID, nameOrID) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return Network{}, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("network %s not found", nameOrID))
	case 1:
		return found[0], nil
	}
	return Network{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("network %s is ambiguous (%d matches found based on ID prefix)", nameOrID, len(found)))
}

// ensure makes a network in its driver, once: a driver that was not there when
// the network was recorded gets it with the first use.
func (s *Service) ensure(ctx context.Context, n Network) (sdknetwork.Driver, Network, error) {
	driver, err := s.Driver(n.Driver)
	if err != nil {
		return nil, n, err
	}
	s.mu.RLock()
	ready := s.made[n.ID]
	s.mu.RUnlock()
	if ready {
		return driver, n, nil
	}
	s.ensuring.Lock()
	defer s.ensuring.Unlock()
	made, err := driver.CreateNetwork(ctx, request(n))
	if err != nil {
		return nil, n, err
	}
	n.Pools = made.Pools
	if err := s.records.Put(n.ID, n); err != nil {
		return nil, n, err
	}
	s.mu.Lock()
	s.networks[n.ID], s.made[n.ID] = n, true
	s.mu.Unlock()
	return driver, n, nil
}

// Attach implements the engine's Networks.
func (s *Service) Attach(ctx context.Context, a Attachment) (sdknetwork.Endpoint, error) {
	n, err := s.Find(a.NetworkID)
	if err != nil {
		return sdknetwork.Endpoint{}, err
	}
	driver, n, err := s.ensure(ctx, n)
	if err != nil {
		return sdknetwork.Endpoint{}, err
	}
	s.mu.Lock()
	s.held[a.EndpointID] = a
	s.mu.Unlock()
	endpoint, err := driver.Attach(ctx, a.Attachment)
	if err != nil {
		s.mu.Lock()
		delete(s.held, a.EndpointID)
		s.mu.Unlock()
		return sdknetwork.Endpoint{}, err
	}
	s.remember(a, endpoint)
	s.emit(n, events.ActionConnect, map[string]string{"container": a.ContainerID})
	return endpoint, nil
}

// UpdatePorts implements the engine's Networks.
func (s *Service) UpdatePorts(ctx context.Context, networkID, endpointID string, ports []sdknetwork.Port) ([]sdknetwork.Port, error) {
	n, err := s.Find(networkID)
	if err != nil {
		return nil, err
	}
	driver, err := s.Driver(n.Driver)
	if err != nil {
		return nil, err
	}
	published, err := driver.UpdatePorts(ctx, networkID, endpointID, ports)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.attached[networkID][endpointID]; ok {
		a.endpoint.Ports = published
		s.attached[networkID][endpointID] = a
	}
	return published, nil
}

// SetGateway implements the engine's Networks.
func (s *Service) SetGateway(ctx context.Context, networkID, endpointID string, ipv4, ipv6 bool) error {
	n, err := s.Find(networkID)
	if err != nil {
		return err
	}
	driver, err := s.Driver(n.Driver)
	if err != nil {
		return err
	}
	return driver.SetGateway(ctx, networkID, endpointID, ipv4, ipv6)
}

func (s *Service) remember(a Attachment, endpoint sdknetwork.Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached[a.NetworkID] == nil {
		s.attached[a.NetworkID] = map[string]attached{}
	}
	s.attached[a.NetworkID][a.EndpointID] = attached{a, endpoint}
	s.called.put(s.networks[a.NetworkID], s.attached[a.NetworkID][a.EndpointID])
}

// Detach implements the engine's Networks.
func (s *Service) Detach(ctx context.Context, networkID, endpointID string) error {
	n, err := s.Find(networkID)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	gone, known := s.attached[networkID][endpointID]
	delete(s.attached[networkID], endpointID)
	delete(s.held, endpointID)
	s.called.drop(networkID, endpointID)
	s.mu.Unlock()
	driver, err := s.Driver(n.Driver)
	if err != nil {
		return err
	}
	if err := driver.Detach(ctx, networkID, endpointID); err != nil {
		return err
	}
	if known {
		s.emit(n, events.ActionDisconnect, map[string]string{"container": gone.ContainerID})
	}
	return nil
}

// Rename implements the engine's Networks.
func (s *Service) Rename(containerID, newName string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for networkID, endpoints := range s.attached {
		for id, a := range endpoints {
			if a.ContainerID == containerID {
				a.ContainerName = newName
				endpoints[id] = a
				s.called.put(s.networks[networkID], a)
			}
		}
	}
}

// Reconcile implements the engine's Networks.
func (s *Service) Reconcile(ctx context.Context, driver string, netnsOf []string, inUse []Attachment) error {
	if driver == "" {
		s.pool.Sweep(netnsOf)
	} else {
		// Its process is new: what it has is told to it again.
		s.mu.Lock()
		for id, n := range s.networks {
			if n.Driver == driver {
				delete(s.made, id)
			}
		}
		s.mu.Unlock()
	}
	drivers := map[string]bool{}
	s.mu.RLock()
	var all []Network
	for _, n := range s.networks {
		if n.Driver != hostDriver && n.Driver != nullDriver && (driver == "" || n.Driver == driver) {
			all = append(all, n)
			drivers[n.Driver] = true
		}
	}
	for _, a := range s.held {
		if !slices.ContainsFunc(inUse, func(known Attachment) bool { return known.EndpointID == a.EndpointID }) {
			inUse = append(inUse, a)
		}
	}
	s.mu.RUnlock()
	var errs []error
	for name := range drivers {
		errs = append(errs, s.reconcileDriver(ctx, name, all, inUse))
	}
	return errors.Join(errs...)
}

func (s *Service) reconcileDriver(ctx context.Context, name string, networks []Network, inUse []Attachment) error {
	driver, err := s.Driver(name)
	if err != nil {
		return err
	}
	var networkIDs, endpointIDs []string
	mine := map[string]bool{}
	var errs []error
	for _, n := range networks {
		if n.Driver == name {
			mine[n.ID] = true
			networkIDs = append(networkIDs, n.ID)
			if len(n.Pools) > 0 { // it was made before
				_, _, err := s.ensure(ctx, n)
				errs = append(errs, err)
			}
		}
	}
	for _, a := range inUse {
		if mine[a.NetworkID] {
			endpointIDs = append(endpointIDs, a.EndpointID)
		}
	}
	if err := driver.Reconcile(ctx, networkIDs, endpointIDs); err != nil {
		return errors.Join(append(errs, fmt.Errorf("network driver %s: %w", name, err))...)
	}
	state, err := driver.List(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	held := map[string]sdknetwork.Endpoint{}
	for _, e := range state.Endpoints {
		held[e.EndpointID] = e
	}
	for _, a := range inUse {
		if e, ok := held[a.EndpointID]; ok && mine[a.NetworkID] {
			s.remember(a, e)
			s.mu.Lock()
			s.held[a.EndpointID] = a
			s.mu.Unlock()
		}
	}
	return errors.Join(errs...)
}
