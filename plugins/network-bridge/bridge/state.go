package bridge

import (
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/ipam"
	"github.com/davit-engine/davit/sdk/network"
)

// netState is one network in memory.
type netState struct {
	network.Network
	options

	Bridge    string
	ip4, ip6  *subnet // nil: the network has no such addresses
	endpoints map[string]network.Endpoint
}

// subnet is a network's addresses of one family.
type subnet struct {
	network.Pool
	addresses *ipam.Pool
	mode      string
}

func newNetState(r record) (*netState, error) {
	o, err := readOptions(r.Options)
	if err != nil {
		return nil, err
	}
	s := &netState{Network: r.Network, options: o, Bridge: r.Bridge, endpoints: map[string]network.Endpoint{}}
	for _, pool := range r.Pools {
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
				return nil, fmt.Errorf("%s: %w", a, err)
			}
		}
		if pool.Subnet.Addr().Is4() {
			s.ip4 = &subnet{pool, addresses, o.mode4}
		} else {
			s.ip6 = &subnet{pool, addresses, o.mode6}
		}
	}
	return s, nil
}

// families are the network's subnets, IPv4 first.
func (s *netState) families() []*subnet {
	var list []*subnet
	for _, f := range []*subnet{s.ip4, s.ip6} {
		if f != nil {
			list = append(list, f)
		}
	}
	return list
}

// take reserves a wanted address, or the next free one, of one family; a network
// without that family gives none.
func (s *netState) take(f *subnet, want netip.Addr, version int) (netip.Prefix, error) {
	if f == nil {
		if want.IsValid() {
			return netip.Prefix{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("no configured subnet contains IP address %s", want))
		}
		return netip.Prefix{}, nil
	}
	if want.IsValid() {
		if !f.Subnet.Contains(want) {
			return netip.Prefix{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("no configured subnet contains IP address %s", want))
		}
		return netip.PrefixFrom(want, f.Subnet.Bits()), f.addresses.Take(want)
	}
	a, err := f.addresses.Next()
	if err != nil {
		return netip.Prefix{}, errdefs.ErrResourceExhausted.WithMessage(fmt.Sprintf("no available IPv%d addresses on this network's address pools: %s (%s)", version, s.Name, s.ID))
	}
	return netip.PrefixFrom(a, f.Subnet.Bits()), nil
}

// free gives the addresses of an endpoint back.
func (s *netState) free(e network.Endpoint) {
	if s.ip4 != nil && e.IPv4.IsValid() {
		s.ip4.addresses.Free(e.IPv4.Addr())
	}
	if s.ip6 != nil && e.IPv6.IsValid() {
		s.ip6.addresses.Free(e.IPv6.Addr())
	}
}

// adopt marks the addresses of an endpoint that was there before as taken.
func (s *netState) adopt(e network.Endpoint) error {
	s.endpoints[e.EndpointID] = e
	if s.ip4 != nil && e.IPv4.IsValid() {
		if err := s.ip4.addresses.Take(e.IPv4.Addr()); err != nil {
			return err
		}
	}
	if s.ip6 != nil && e.IPv6.IsValid() {
		return s.ip6.addresses.Take(e.IPv6.Addr())
	}
	return nil
}
