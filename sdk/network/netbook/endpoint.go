package netbook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/network"
)

// Attach implements network.Driver.
func (b *Book) Attach(ctx context.Context, a network.Attachment) (network.Endpoint, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, ok := b.network(a.NetworkID)
	if !ok {
		return network.Endpoint{}, fmt.Errorf("network %s is not there: %w", a.NetworkID, errdefs.ErrNotFound)
	}
	if e, ok := b.endpoint(a.EndpointID); ok {
		if e.Netns == a.Netns {
			return e, nil
		}
		if err := b.forgetEndpoint(ctx, a.EndpointID); err != nil {
			return network.Endpoint{}, err
		}
	}
	e, err := b.describe(n, a)
	if err != nil {
		return network.Endpoint{}, err
	}
	to := b.state.clone()
	to.Endpoints = append(to.Endpoints, e)
	if a.Gateway4 && e.Gateway4.IsValid() {
		if to.Gateways == nil {
			to.Gateways = map[string]bool{}
		}
		to.Gateways[e.EndpointID] = true
	}
	err = b.plug(ctx, e, to.Gateways[e.EndpointID])
	if err == nil {
		err = b.change(to)
	}
	if err != nil {
		return network.Endpoint{}, errors.Join(err, b.remove(context.WithoutCancel(ctx), e.EndpointID))
	}
	return e, nil
}

// plug makes an endpoint's links, of which a crash may have left something.
func (b *Book) plug(ctx context.Context, e network.Endpoint, gateway bool) error {
	if err := b.remove(ctx, e.EndpointID); err != nil {
		return err
	}
	if err := b.cables.Plug(ctx, e); err != nil || !gateway {
		return err
	}
	return b.cables.Route(ctx, e, true)
}

// describe is an endpoint that is to be, with addresses that are free.
func (b *Book) describe(n network.Network, a network.Attachment) (network.Endpoint, error) {
	addresses, err := b.pool(n)
	if err != nil {
		return network.Endpoint{}, err
	}
	address := a.IPv4
	if address.IsValid() {
		err = addresses.Take(address)
	} else {
		address, err = addresses.Next()
	}
	if err != nil {
		return network.Endpoint{}, err
	}
	e := network.Endpoint{
		NetworkID: n.ID, EndpointID: a.EndpointID, ContainerID: a.ContainerID, Netns: a.Netns, Interface: a.Interface,
		IPv4: netip.PrefixFrom(address, n.Pools[0].Subnet.Bits()), MAC: a.MAC,
	}
	if e.MAC == "" {
		four := address.As4()
		e.MAC = fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", four[0], four[1], four[2], four[3])
	}
	if !n.Internal {
		e.Gateway4 = n.Pools[0].Gateway
	}
	return e, nil
}

// Detach implements network.Driver.
func (b *Book) Detach(ctx context.Context, _, endpointID string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.forgetEndpoint(ctx, endpointID)
}

func (b *Book) forgetEndpoint(ctx context.Context, id string) error {
	if err := b.remove(ctx, id); err != nil {
		return err
	}
	if _, ok := b.endpoint(id); !ok {
		return nil
	}
	to := b.state.clone()
	to.Endpoints = slices.DeleteFunc(to.Endpoints, func(e network.Endpoint) bool { return e.EndpointID == id })
	delete(to.Gateways, id)
	return b.change(to)
}

func (b *Book) find(id string) (network.Endpoint, error) {
	e, ok := b.endpoint(id)
	if !ok {
		return e, fmt.Errorf("endpoint %s is not there: %w", id, errdefs.ErrNotFound)
	}
	return e, nil
}

// UpdatePorts implements network.Driver without the feature: none are published.
func (b *Book) UpdatePorts(_ context.Context, _, endpointID string, _ []network.Port) ([]network.Port, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.find(endpointID)
	return nil, err
}

// SetGateway implements network.Driver.
func (b *Book) SetGateway(ctx context.Context, _, endpointID string, ipv4, _ bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, err := b.find(endpointID)
	if err != nil || !e.Gateway4.IsValid() {
		return err
	}
	if err := b.cables.Route(ctx, e, ipv4); err != nil {
		return err
	}
	to := b.state.clone()
	if to.Gateways == nil {
		to.Gateways = map[string]bool{}
	}
	if to.Gateways[endpointID] = ipv4; !ipv4 {
		delete(to.Gateways, endpointID)
	}
	return b.change(to)
}

// Reconcile implements network.Driver.
func (b *Book) Reconcile(ctx context.Context, networkIDs, endpointIDs []string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, e := range slices.Clone(b.state.Endpoints) {
		if !slices.Contains(endpointIDs, e.EndpointID) || !slices.Contains(networkIDs, e.NetworkID) {
			errs = append(errs, b.forgetEndpoint(ctx, e.EndpointID))
		}
	}
	for _, n := range slices.Clone(b.state.Networks) {
		if !slices.Contains(networkIDs, n.ID) {
			errs = append(errs, b.forgetNetwork(ctx, n.ID))
		}
	}
	return errors.Join(append(errs, b.restore(ctx))...)
}

// restore removes links of this engine that are in no book, and makes those that are
// missing. An endpoint whose namespace is gone has none to be missed.
func (b *Book) restore(ctx context.Context) error {
	found, err := net.Interfaces()
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, link := range found {
		there[link.Name] = true
	}
	valid := map[string]bool{}
	var errs []error
	for _, n := range b.state.Networks {
		link := b.Link(n.ID)
		if valid[link] = true; !there[link] {
			errs = append(errs, b.makeNetwork(ctx, n))
		}
	}
	for _, e := range b.state.Endpoints {
		link := b.Link(e.EndpointID)
		valid[link] = true
		if _, gone := os.Stat(e.Netns); !there[link] && gone == nil {
			errs = append(errs, b.plug(ctx, e, b.state.Gateways[e.EndpointID]))
		}
	}
	for link := range there {
		if strings.HasPrefix(link, b.prefix) && !valid[link] {
			errs = append(errs, b.cables.Remove(ctx, link))
		}
	}
	return errors.Join(errs...)
}
