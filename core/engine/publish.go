package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/moby/moby/api/types/events"
	mobynetwork "github.com/moby/moby/api/types/network"

	"github.com/davit-engine/davit/core/container"
	sdknetwork "github.com/davit-engine/davit/sdk/network"
)

// ContainerPublish implements the API's backend.
func (e *Engine) ContainerPublish(ctx context.Context, name string, bindings mobynetwork.PortMap) (mobynetwork.PortMap, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return nil, err
	}
	end, err := c.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	r := c.Record()
	if mode := r.HostConfig.NetworkMode; mode.IsHost() || mode.IsContainer() || mode.IsNone() {
		return nil, errInvalid.WithMessage(fmt.Sprintf("container %s publishes no ports: its network mode is %s", r.Name, mode))
	}
	changed := r
	host := *r.HostConfig
	host.PortBindings, host.PublishAllPorts = bindings, false
	changed.HostConfig = &host
	if r.Status.Alive() {
		if changed.Endpoints, err = e.republish(ctx, r, publishedPorts(changed)); err != nil {
			return nil, fmt.Errorf("cannot update container %s: %w", r.ID, err)
		}
	}
	if err := c.Update(func(r *container.Record) error {
		r.HostConfig, r.Endpoints = changed.HostConfig, changed.Endpoints
		return nil
	}); err != nil {
		return nil, err
	}
	e.containerEvent(r, events.ActionUpdate, nil)
	return portMap(c.Record()), nil
}

// republish replaces the published ports of a running container; what fails
// leaves all as they were.
func (e *Engine) republish(ctx context.Context, r container.Record, ports []sdknetwork.Port) (map[string]container.Endpoint, error) {
	endpoints := maps.Clone(r.Endpoints)
	gateways := e.gatewaysOf(r)
	var u undo
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		endpoint, routes := endpoints[name], gateways.of(name)
		if endpoint.Attached == nil || !routes.ip4 && !routes.ip6 {
			continue
		}
		published, err := e.Networks.UpdatePorts(ctx, endpoint.NetworkID, endpoint.EndpointID, routes.ports(ports))
		if err != nil {
			u.run(ctx, e.Log, "change of ports of container "+r.Name)
			return nil, err
		}
		before := endpoint.Attached.Ports
		u.add(func(ctx context.Context) error {
			_, err := e.Networks.UpdatePorts(ctx, endpoint.NetworkID, endpoint.EndpointID, before)
			return err
		})
		attached := *endpoint.Attached
		attached.Ports = published
		endpoint.Attached = &attached
		endpoints[name] = endpoint
	}
	return endpoints, nil
}
