package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	mobynetwork "github.com/moby/moby/api/types/network"

	"github.com/davit-engine/davit/core/filter"
	sdknetwork "github.com/davit-engine/davit/sdk/network"
)

// Drivers that are the engine's own: they need no process.
const (
	hostDriver = "host"
	nullDriver = "null"
)

// predefine makes the three networks that always exist.
func (s *Service) predefine() error {
	for name, driver := range map[string]string{Bridge: s.DefaultDriver, Host: hostDriver, None: nullDriver} {
		if _, err := s.Find(name); err == nil {
			continue
		}
		n := Network{ID: newID(), Name: name, Driver: driver, Created: time.Now().UTC(), Request: mobynetwork.CreateRequest{Name: name, Driver: driver}}
		if name == Bridge {
			n.Request.Options = map[string]string{"com.docker.network.bridge.default_bridge": "true"}
		}
		if err := s.records.Put(n.ID, n); err != nil {
			return err
		}
		s.networks[n.ID] = n
	}
	return nil
}

func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// request is what a driver is asked to make.
func request(n Network) sdknetwork.Network {
	r := n.Request
	made := sdknetwork.Network{ID: n.ID, Name: n.Name, Options: r.Options, Labels: r.Labels, IPv4: n.IPv4(), IPv6: n.IPv6(), Internal: r.Internal, Pools: n.Pools}
	if n.Name == Bridge && n.Driver != "bridge" {
		made.Options = nil // options are the default driver's own
	}
	if len(made.Pools) == 0 && r.IPAM != nil {
		for _, c := range r.IPAM.Config {
			made.Pools = append(made.Pools, sdknetwork.Pool{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, Aux: c.AuxAddress})
		}
	}
	return made
}

// Create implements the engine's Networks.
func (s *Service) Create(ctx context.Context, req mobynetwork.CreateRequest) (mobynetwork.CreateResponse, error) {
	var response mobynetwork.CreateResponse
	if strings.TrimSpace(req.Name) == "" || strings.ContainsAny(req.Name, "/:") {
		return response, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid network name: %q", req.Name))
	}
	switch {
	case req.Ingress, req.ConfigOnly, req.ConfigFrom != nil:
		return response, fmt.Errorf("ingress and configuration networks: %w", errdefs.ErrNotImplemented)
	case req.Scope != "" && req.Scope != "local":
		return response, fmt.Errorf("networks of scope %s: %w", req.Scope, errdefs.ErrNotImplemented)
	case req.Driver == hostDriver || req.Driver == nullDriver:
		return response, errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("only one instance of %q network is allowed", req.Driver))
	}
	if req.IPAM != nil && req.IPAM.Driver != "" && req.IPAM.Driver != "default" {
		return response, errdefs.ErrInvalidArgument.WithMessage("unknown IPAM driver " + req.IPAM.Driver + ": network drivers manage addresses themselves")
	}
	if req.Driver == "" {
		req.Driver = s.DefaultDriver
	}
	if _, err := s.Driver(req.Driver); err != nil {
		return response, err
	}
	n := Network{ID: newID(), Name: req.Name, Driver: req.Driver, Created: time.Now().UTC(), Request: req}
	s.mu.Lock()
	for _, other := range s.networks {
		if other.Name == req.Name {
			s.mu.Unlock()
			return response, errdefs.ErrConflict.WithMessage(fmt.Sprintf("network with name %s already exists", req.Name))
		}
	}
	s.networks[n.ID] = n // the name is taken from here on
	s.mu.Unlock()
	if _, made, err := s.ensure(ctx, n); err != nil {
		s.mu.Lock()
		delete(s.networks, n.ID)
		s.mu.Unlock()
		_ = s.records.Delete(n.ID)
		return response, err
	} else {
		n = made
	}
	s.emit(n, events.ActionCreate, nil)
	return mobynetwork.CreateResponse{ID: n.ID}, nil
}

// Remove implements the engine's Networks.
func (s *Service) Remove(ctx context.Context, name string) error {
	n, err := s.Find(name)
	if err != nil {
		return err
	}
	if !n.UserDefined() {
		return errdefs.ErrPermissionDenied.WithMessage(n.Name + " is a pre-defined network and cannot be removed")
	}
	s.mu.RLock()
	users := len(s.attached[n.ID])
	s.mu.RUnlock()
	if users > 0 {
		return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("error while removing network: network %s has active endpoints (id %s)", n.Name, n.ID))
	}
	driver, err := s.Driver(n.Driver)
	if err != nil {
		return err
	}
	if err := driver.DeleteNetwork(ctx, n.ID); err != nil {
		return fmt.Errorf("error while removing network: %w", err)
	}
	if err := s.records.Delete(n.ID); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.networks, n.ID)
	delete(s.attached, n.ID)
	delete(s.made, n.ID)
	s.mu.Unlock()
	s.emit(n, events.ActionDestroy, nil)
	return nil
}

// List implements the engine's Networks.
func (s *Service) List(_ context.Context, f filter.Args) ([]mobynetwork.Summary, error) {
	if err := f.Validate("dangling", "driver", "id", "label", "name", "scope", "type"); err != nil {
		return nil, err
	}
	for _, kind := range f["type"] {
		if kind != "custom" && kind != "builtin" {
			return nil, errdefs.ErrInvalidArgument.WithMessage("invalid filter: 'type'='" + kind + "'")
		}
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := []mobynetwork.Summary{}
	for _, n := range s.networks {
		kind := "builtin"
		if n.UserDefined() {
			kind = "custom"
		}
		unused := n.UserDefined() && len(s.attached[n.ID]) == 0
		if f.Has("dangling") && dangling != unused || !f.Exact("driver", n.Driver) || !f.Prefix("id", n.ID) || !f.Match("name", n.Name) ||
			!f.Exact("scope", "local") || !f.Exact("type", kind) || !f.Labels("label", n.Request.Labels) {
			continue
		}
		list = append(list, mobynetwork.Summary{Network: describe(n)})
	}
	slices.SortFunc(list, func(a, b mobynetwork.Summary) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func describe(n Network) mobynetwork.Network {
	d := mobynetwork.Network{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: "local", Driver: n.Driver, EnableIPv4: n.IPv4(), EnableIPv6: n.IPv6(), Internal: n.Request.Internal,
		Attachable: n.Request.Attachable, Options: orEmpty(n.Request.Options), Labels: orEmpty(n.Request.Labels), IPAM: mobynetwork.IPAM{Driver: "default", Config: []mobynetwork.IPAMConfig{}},
	}
	for _, pool := range n.Pools {
		d.IPAM.Config = append(d.IPAM.Config, mobynetwork.IPAMConfig{Subnet: pool.Subnet, IPRange: pool.Range, Gateway: pool.Gateway, AuxAddress: pool.Aux})
	}
	return d
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}

// Inspect implements the engine's Networks.
func (s *Service) Inspect(_ context.Context, name string) (mobynetwork.Inspect, error) {
	n, err := s.Find(name)
	if err != nil {
		return mobynetwork.Inspect{}, err
	}
	inspect := mobynetwork.Inspect{Network: describe(n), Containers: map[string]mobynetwork.EndpointResource{}}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, a := range s.attached[n.ID] {
		resource := mobynetwork.EndpointResource{Name: a.ContainerName, EndpointID: id, IPv4Address: a.endpoint.IPv4, IPv6Address: a.endpoint.IPv6}
		_ = resource.MacAddress.UnmarshalText([]byte(a.endpoint.MAC))
		inspect.Containers[a.ContainerID] = resource
	}
	return inspect, nil
}

// Prune implements the engine's Networks.
func (s *Service) Prune(ctx context.Context, f filter.Args) (mobynetwork.PruneReport, error) {
	report := mobynetwork.PruneReport{}
	if err := f.Validate("label", "label!", "until"); err != nil {
		return report, err
	}
	list, err := s.List(ctx, filter.Args{"dangling": {"true"}, "label": f["label"]})
	if err != nil {
		return report, err
	}
	for _, n := range list {
		if f.Has("label!") && f.Labels("label!", n.Labels) {
			continue
		}
		if err := s.Remove(ctx, n.ID); err != nil {
			if errdefs.IsPermissionDenied(err) || errdefs.IsNotFound(err) {
				continue // taken into use, or gone, meanwhile
			}
			return report, err
		}
		report.NetworksDeleted = append(report.NetworksDeleted, n.Name)
	}
	return report, nil
}

func (s *Service) emit(n Network, action events.Action, extra map[string]string) {
	attributes := map[string]string{"name": n.Name, "type": n.Driver}
	maps.Copy(attributes, extra)
	s.Emit(events.Message{Type: events.NetworkEventType, Action: action, Actor: events.Actor{ID: n.ID, Attributes: attributes}})
}
