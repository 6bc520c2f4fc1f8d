package engine

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/errdefs"
	mobynetwork "github.com/moby/moby/api/types/network"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/filter"
)

// NetworkList implements the API's backend.
func (e *Engine) NetworkList(ctx context.Context, f filter.Args) ([]mobynetwork.Summary, error) {
	return e.Networks.List(ctx, f)
}

// NetworkInspect implements the API's backend.
func (e *Engine) NetworkInspect(ctx context.Context, name string) (mobynetwork.Inspect, error) {
	return e.Networks.Inspect(ctx, name)
}

// NetworkCreate implements the API's backend.
func (e *Engine) NetworkCreate(ctx context.Context, req mobynetwork.CreateRequest) (mobynetwork.CreateResponse, error) {
	response, err := e.Networks.Create(ctx, req)
	return response, badDriver(err)
}

// NetworkRemove implements the API's backend.
func (e *Engine) NetworkRemove(ctx context.Context, name string) error {
	return e.Networks.Remove(ctx, name)
}

// NetworksPrune implements the API's backend.
func (e *Engine) NetworksPrune(ctx context.Context, f filter.Args) (mobynetwork.PruneReport, error) {
	return e.Networks.Prune(ctx, f)
}

// NetworkConnect puts a container on another network, at once if it runs.
func (e *Engine) NetworkConnect(ctx context.Context, name string, req mobynetwork.ConnectRequest) error {
	n, err := e.Networks.Find(name)
	if err != nil {
		return err
	}
	c, err := e.find(ctx, req.Container)
	if err != nil {
		return err
	}
	if !needsDriver(n.Name) {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("container cannot be connected to network %s: it is fixed when a container is created", n.Name))
	}
	settings := req.EndpointConfig
	if settings == nil {
		settings = &mobynetwork.EndpointSettings{}
	}
	if err := checkEndpoint(n, settings); err != nil {
		return err
	}
	end, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r := c.Record()
	switch {
	case r.HostConfig.NetworkMode.IsHost():
		return errdefs.ErrInvalidArgument.WithMessage("container cannot be connected to multiple networks with one of the networks in host mode")
	case r.HostConfig.NetworkMode.IsContainer():
		return errdefs.ErrInvalidArgument.WithMessage("container sharing network namespace with another container or host cannot be connected to any other network")
	}
	if _, ok := r.Endpoints[n.Name]; ok {
		return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("endpoint with name %s already exists in network %s", r.Name, n.Name))
	}
	endpoints := maps.Clone(r.Endpoints)
	if endpoints == nil {
		endpoints = map[string]container.Endpoint{}
	}
	endpoints[n.Name] = container.Endpoint{NetworkID: n.ID, Request: settings}
	if r.Status.Alive() {
		if endpoints, err = e.connect(ctx, r, n.Name, endpoints); err != nil {
			return err
		}
	}
	delete(endpoints, mobynetwork.NetworkNone)
	if err := c.Update(func(r *container.Record) error { r.Endpoints = endpoints; return nil }); err != nil {
		return err
	}
	return e.writeHosts(c.Record())
}

// connect attaches a running container's namespace to one more network, and
// answers all endpoints as they are then.
func (e *Engine) connect(ctx context.Context, r container.Record, name string, endpoints map[string]container.Endpoint) (_ map[string]container.Endpoint, err error) {
	netns, err := e.Networks.NewNetns(ctx, r.ID) // answers the one it has
	if err != nil {
		return nil, err
	}
	endpoint := endpoints[name]
	endpoint.EndpointID = container.NewID()
	var u undo
	defer func() {
		if err != nil {
			u.run(ctx, e.Log, "connection of container "+r.Name)
		}
	}()
	u.add(func(ctx context.Context) error {
		return e.Networks.Detach(ctx, endpoint.NetworkID, endpoint.EndpointID)
	})
	attached, err := e.Networks.Attach(ctx, attachment(r, endpoint, netns, freeDevice(r), routes{}))
	if err != nil {
		return nil, fmt.Errorf("connecting container %s to network %s: %w", r.Name, name, err)
	}
	endpoint.Attached = &attached
	endpoints[name] = endpoint
	with := r
	with.Endpoints = endpoints
	before, after := e.gatewaysOf(r), e.gatewaysOf(with)
	if endpoints, err = e.moveGateways(ctx, with, before, after); err != nil {
		return nil, err
	}
	if !usesDNS(r) && usesDNS(with) {
		if err := e.serveDNS(ctx, with, netns); err != nil {
			return nil, err
		}
		if err := e.changeResolv(with); err != nil {
			return nil, err
		}
	}
	return endpoints, nil
}

// freeDevice is the first ethN that the container does not have.
func freeDevice(r container.Record) string {
	taken := map[string]bool{}
	for _, endpoint := range r.Endpoints {
		if endpoint.Attached != nil {
			taken[endpoint.Attached.Interface] = true
		}
	}
	for i := 0; ; i++ {
		if name := fmt.Sprintf("eth%d", i); !taken[name] {
			return name
		}
	}
}

// NetworkDisconnect takes a container off a network.
func (e *Engine) NetworkDisconnect(ctx context.Context, name string, req mobynetwork.DisconnectRequest) error {
	n, err := e.Networks.Find(name)
	if err != nil {
		return err
	}
	c, err := e.find(ctx, req.Container)
	if err != nil {
		if req.Force && errdefs.IsNotFound(err) {
			return nil
		}
		return err
	}
	end, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r := c.Record()
	endpoint, ok := r.Endpoints[n.Name]
	if !ok {
		return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("container %s is not connected to network %s", strings.TrimPrefix(req.Container, "/"), n.Name))
	}
	if r.HostConfig.NetworkMode.IsHost() {
		return errdefs.ErrInvalidArgument.WithMessage("container cannot be disconnected from host network or connected to host network")
	}
	rest := r
	rest.Endpoints = maps.Clone(r.Endpoints)
	if endpoint.Attached != nil {
		delete(rest.Endpoints, n.Name)
		before, after := e.gatewaysOf(r), e.gatewaysOf(rest)
		if rest.Endpoints, err = e.moveGateways(ctx, r, before, after); err != nil {
			return fmt.Errorf("disconnecting container %s from network %s: %w", r.Name, n.Name, err)
		}
		if err := e.Networks.Detach(ctx, endpoint.NetworkID, endpoint.EndpointID); err != nil {
			return fmt.Errorf("disconnecting container %s from network %s: %w", r.Name, n.Name, err)
		}
	}
	delete(rest.Endpoints, n.Name)
	if err := c.Update(func(r *container.Record) error { r.Endpoints = rest.Endpoints; return nil }); err != nil {
		return err
	}
	return e.writeHosts(c.Record())
}
