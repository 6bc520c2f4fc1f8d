// Package netbook keeps the books of simple network drivers: networks with IPv4 and
// one pool each, which have one link on the host, and their endpoints, which have one
// link on the host and one in a namespace. A driver embeds a [Book] and makes the links
// as [Cables].
//
// The books are one file, <root>/state.json, which is written whole after each change.
package netbook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/atomicwriter"

	"github.com/davit-engine/davit/sdk/ipam"
	"github.com/davit-engine/davit/sdk/network"
)

// Cables are what networks are in the kernel. One method is called at a time, and none
// that makes a link while that is there.
type Cables interface {
	// MakeNetwork makes the link of a network, Book.Link(n.ID). The gateway's address is
	// this host's, unless the network is internal.
	MakeNetwork(ctx context.Context, n network.Network) error
	// Plug makes the link of an endpoint, Book.Link(e.EndpointID), and its interface in
	// the namespace, with address. What is left after an error is removed.
	Plug(ctx context.Context, e network.Endpoint) error
	// Route makes or removes the default route by e.Gateway4 in the namespace, which
	// may be done already.
	Route(ctx context.Context, e network.Endpoint, wanted bool) error
	// Remove removes a link of this host, which may not be there, and what hangs on it
	// in a namespace.
	Remove(ctx context.Context, link string) error
}

// Book implements network.Driver.
type Book struct {
	file   string
	prefix string // of links' names
	base   netip.Prefix
	cables Cables

	mu    sync.Mutex // held while cables are laid: these need not be waited for
	state books
}

// books are what is on disk.
type books struct {
	network.State
	Gateways map[string]bool // endpoints that provide the default route, by ID
}

// clone is a copy to be changed.
func (s books) clone() books {
	return books{State: network.State{Networks: slices.Clone(s.Networks), Endpoints: slices.Clone(s.Endpoints)}, Gateways: maps.Clone(s.Gateways)}
}

// bits is the size of the subnets of networks without one.
const bits = 24

// Open reads the books in a directory. Links have names that are this engine's alone.
// Networks without a subnet get a /24 of base.
func Open(root, engineID string, base netip.Prefix, cables Cables) (*Book, error) {
	if !base.Addr().Is4() || base.Bits() > bits {
		return nil, fmt.Errorf("%s has no room for an IPv4 subnet of %d bits: %w", base, bits, errdefs.ErrInvalidArgument)
	}
	b := &Book{file: filepath.Join(root, "state.json"), prefix: "d" + short(engineID, 3), base: base.Masked(), cables: cables}
	body, err := os.ReadFile(b.file)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(body, &b.state)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", b.file, err)
	}
	return b, nil
}

// short is the beginning of a digest.
func short(id string, bytes int) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:bytes])
}

// Link is the name of the link on the host of a network or endpoint: the kernel takes
// 15 characters.
func (b *Book) Link(id string) string { return b.prefix + short(id, 4) }

// change writes down what the books will be, and only then lets them be so.
func (b *Book) change(to books) error {
	body, err := json.Marshal(to)
	if err == nil {
		err = atomicwriter.WriteFile(b.file, body, 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing down networks: %w", err)
	}
	b.state = to
	return nil
}

// List implements network.Driver.
func (b *Book) List(context.Context) (network.State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.clone().State, nil
}

func (b *Book) network(id string) (network.Network, bool) {
	at := slices.IndexFunc(b.state.Networks, func(n network.Network) bool { return n.ID == id })
	if at < 0 {
		return network.Network{}, false
	}
	return b.state.Networks[at], true
}

func (b *Book) endpoint(id string) (network.Endpoint, bool) {
	at := slices.IndexFunc(b.state.Endpoints, func(e network.Endpoint) bool { return e.EndpointID == id })
	if at < 0 {
		return network.Endpoint{}, false
	}
	return b.state.Endpoints[at], true
}

// CreateNetwork implements network.Driver.
func (b *Book) CreateNetwork(ctx context.Context, n network.Network) (network.Network, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if made, ok := b.network(n.ID); ok {
		return made, nil
	}
	for option := range n.Options {
		return network.Network{}, fmt.Errorf("network option %q is not known: %w", option, errdefs.ErrInvalidArgument)
	}
	if n.IPv6 {
		return network.Network{}, fmt.Errorf("this driver has no IPv6: %w", errdefs.ErrNotImplemented)
	}
	if !n.IPv4 || len(n.Pools) > 1 {
		return network.Network{}, fmt.Errorf("a network of this driver has IPv4 and one pool: %w", errdefs.ErrInvalidArgument)
	}
	if err := b.choose(&n); err != nil {
		return network.Network{}, err
	}
	to := b.state.clone()
	to.Networks = append(to.Networks, n)
	err := b.makeNetwork(ctx, n)
	if err == nil {
		err = b.change(to)
	}
	if err != nil {
		return network.Network{}, errors.Join(err, b.remove(context.WithoutCancel(ctx), n.ID))
	}
	return n, nil
}

// makeNetwork makes a network's link, of which a crash may have left something.
func (b *Book) makeNetwork(ctx context.Context, n network.Network) error {
	if err := b.remove(ctx, n.ID); err != nil {
		return err
	}
	return b.cables.MakeNetwork(ctx, n)
}

func (b *Book) remove(ctx context.Context, id string) error { return b.cables.Remove(ctx, b.Link(id)) }

// choose fills in the pool: what the user said, or what is free.
func (b *Book) choose(n *network.Network) error {
	var used []netip.Prefix
	for _, other := range b.state.Networks {
		used = append(used, other.Pools[0].Subnet)
	}
	overlaps := func(subnet netip.Prefix) bool { return slices.ContainsFunc(used, subnet.Overlaps) }
	if len(n.Pools) == 0 {
		subnet, err := b.free(func(s netip.Prefix) bool { return overlaps(s) || ours(s) })
		if err != nil {
			return err
		}
		n.Pools = []network.Pool{{Subnet: subnet}}
	} else if overlaps(n.Pools[0].Subnet) {
		return fmt.Errorf("Pool overlaps with other one on this address space: %w", errdefs.ErrInvalidArgument)
	}
	n.Pools = slices.Clone(n.Pools)
	p := &n.Pools[0]
	if !p.Subnet.Addr().Is4() || p.Range.IsValid() && (!p.Subnet.Contains(p.Range.Addr()) || p.Range.Bits() < p.Subnet.Bits()) {
		return fmt.Errorf("pool %s with range %s is none of IPv4 addresses: %w", p.Subnet, p.Range, errdefs.ErrInvalidArgument)
	}
	addresses, err := b.pool(*n)
	if err != nil {
		return err
	}
	if !p.Gateway.IsValid() {
		p.Gateway, err = addresses.Next()
	}
	return err
}

// free is the first subnet of the base that nobody uses.
func (b *Book) free(used func(netip.Prefix) bool) (netip.Prefix, error) {
	for a := b.base.Addr(); b.base.Contains(a); {
		subnet := netip.PrefixFrom(a, bits)
		if !used(subnet) {
			return subnet, nil
		}
		a = ipam.Last(subnet).Next()
	}
	return netip.Prefix{}, fmt.Errorf("no subnet of %s is free: %w", b.base, errdefs.ErrResourceExhausted)
}

// ours says whether this host has an address of a subnet, or is on one that has.
func ours(subnet netip.Prefix) bool {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addresses, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Masked().Overlaps(subnet)
	})
}

// pool is a network's addresses, with those that are taken.
func (b *Book) pool(n network.Network) (*ipam.Pool, error) {
	p := n.Pools[0]
	addresses, err := ipam.New(p.Subnet, p.Range)
	if err != nil {
		return nil, err
	}
	var taken []netip.Addr
	for _, a := range p.Aux {
		taken = append(taken, a)
	}
	if p.Gateway.IsValid() {
		taken = append(taken, p.Gateway)
	}
	for _, e := range b.state.Endpoints {
		if e.NetworkID == n.ID {
			taken = append(taken, e.IPv4.Addr())
		}
	}
	for _, a := range taken {
		if err := addresses.Take(a); err != nil {
			return nil, err
		}
	}
	return addresses, nil
}

// DeleteNetwork implements network.Driver.
func (b *Book) DeleteNetwork(ctx context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.ContainsFunc(b.state.Endpoints, func(e network.Endpoint) bool { return e.NetworkID == id }) {
		return fmt.Errorf("network %s has active endpoints: %w", id, errdefs.ErrFailedPrecondition)
	}
	return b.forgetNetwork(ctx, id)
}

func (b *Book) forgetNetwork(ctx context.Context, id string) error {
	if err := b.remove(ctx, id); err != nil {
		return err
	}
	if _, ok := b.network(id); !ok {
		return nil
	}
	to := b.state.clone()
	to.Networks = slices.DeleteFunc(to.Networks, func(n network.Network) bool { return n.ID == id })
	return b.change(to)
}
