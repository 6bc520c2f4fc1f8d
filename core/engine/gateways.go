package engine

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/davit-engine/davit/core/container"
	sdknetwork "github.com/davit-engine/davit/sdk/network"
)

// gateways are the networks that give a container its default routes.
type gateways struct{ ip4, ip6 string }

// routes are the default routes that one network gives.
type routes struct {
	ip4, ip6 bool
	split    bool // another network gives the other one
}

func (g gateways) of(name string) routes {
	return routes{g.ip4 == name, g.ip6 == name, g.ip4 != g.ip6 && g.ip4 != "" && g.ip6 != ""}
}

// gatewaysOf chooses, for each address family, among the networks that have it
// and a way out: the highest priority, then the container's network mode, then
// the first by name.
func (e *Engine) gatewaysOf(r container.Record) gateways {
	var g gateways
	better := func(name, than string) bool {
		if than == "" {
			return true
		}
		a, b := r.Endpoints[name].Request.GwPriority, r.Endpoints[than].Request.GwPriority
		return a > b || a == b && string(r.HostConfig.NetworkMode) == name
	}
	for _, name := range slices.Sorted(maps.Keys(r.Endpoints)) {
		n, err := e.Networks.Find(r.Endpoints[name].NetworkID)
		if err != nil || !needsDriver(name) || n.Request.Internal {
			continue
		}
		if n.IPv4() && better(name, g.ip4) {
			g.ip4 = name
		}
		if n.IPv6() && better(name, g.ip6) {
			g.ip6 = name
		}
	}
	return g
}

// ports are those that are published through a network with these routes.
func (f routes) ports(all []sdknetwork.Port) []sdknetwork.Port {
	if !f.ip4 && !f.ip6 {
		return nil
	}
	if !f.split {
		return all
	}
	var ports []sdknetwork.Port
	for _, p := range all {
		if !p.HostIP.IsValid() {
			if p.HostIP = netip.IPv4Unspecified(); f.ip6 {
				p.HostIP = netip.IPv6Unspecified()
			}
		}
		if p.HostIP.Is4() == f.ip4 {
			ports = append(ports, p)
		}
	}
	return ports
}

// moveGateways gives the default routes and published ports of a running
// container to other networks. r has the endpoints of both sides; it answers
// them as they are then. What fails is put back.
func (e *Engine) moveGateways(ctx context.Context, r container.Record, from, to gateways) (map[string]container.Endpoint, error) {
	endpoints := maps.Clone(r.Endpoints)
	err := e.assignGateways(ctx, r, endpoints, from, to)
	if err != nil {
		if undone := e.assignGateways(context.WithoutCancel(ctx), r, endpoints, to, from); undone != nil {
			e.Log.Error("giving default routes back", "container", r.Name, "error", undone)
		}
		return nil, err
	}
	return endpoints, nil
}

// assignGateways withdraws first, then gives: two default routes cannot be there
// at once, nor can two endpoints have one port.
func (e *Engine) assignGateways(ctx context.Context, r container.Record, endpoints map[string]container.Endpoint, from, to gateways) error {
	wanted := publishedPorts(r)
	var gaining []string
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		before, after := from.of(name), to.of(name)
		if before == after || endpoints[name].Attached == nil {
			continue
		}
		kept := routes{before.ip4 && after.ip4, before.ip6 && after.ip6, after.split}
		if err := e.setRoutes(ctx, endpoints, name, kept, kept.ports(wanted)); err != nil {
			return err
		}
		gaining = append(gaining, name)
	}
	for _, name := range gaining {
		after := to.of(name)
		if err := e.setRoutes(ctx, endpoints, name, after, after.ports(wanted)); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) setRoutes(ctx context.Context, endpoints map[string]container.Endpoint, name string, f routes, ports []sdknetwork.Port) error {
	endpoint := endpoints[name]
	if err := e.Networks.SetGateway(ctx, endpoint.NetworkID, endpoint.EndpointID, f.ip4, f.ip6); err != nil {
		return fmt.Errorf("setting default routes by network %s: %w", name, err)
	}
	published, err := e.Networks.UpdatePorts(ctx, endpoint.NetworkID, endpoint.EndpointID, ports)
	if err != nil {
		return fmt.Errorf("publishing ports by network %s: %w", name, err)
	}
	attached := *endpoint.Attached
	attached.Ports = published
	endpoint.Attached = &attached
	endpoints[name] = endpoint
	return nil
}
