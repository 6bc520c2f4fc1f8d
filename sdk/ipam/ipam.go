// Package ipam hands out addresses of a subnet: for network drivers that do
// their own address management. It keeps nothing on disk; a driver gives it the
// addresses in use when it starts.
package ipam

import (
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
)

// Pool hands out the addresses of one subnet, in ascending order, and comes back
// to freed ones only after the last. It is not safe for concurrent use.
type Pool struct {
	subnet netip.Prefix
	within netip.Prefix
	used   map[netip.Addr]bool
	cursor netip.Addr // handed out last
}

// New makes a pool of a subnet that hands out addresses within a range of it;
// the zero range is the whole subnet. The network's own and its broadcast
// address are never handed out.
func New(subnet, within netip.Prefix) (*Pool, error) {
	if !subnet.IsValid() {
		return nil, fmt.Errorf("subnet is missing: %w", errdefs.ErrInvalidArgument)
	}
	subnet = subnet.Masked()
	if !within.IsValid() {
		within = subnet
	}
	within = within.Masked()
	if !subnet.Contains(within.Addr()) || within.Bits() < subnet.Bits() {
		return nil, fmt.Errorf("range %s is not inside subnet %s: %w", within, subnet, errdefs.ErrInvalidArgument)
	}
	p := &Pool{subnet: subnet, within: within, used: map[netip.Addr]bool{}}
	if subnet.Addr().BitLen()-subnet.Bits() > 1 { // /31 and /32 have neither
		p.used[subnet.Addr()] = true
		if subnet.Addr().Is4() {
			p.used[Last(subnet)] = true
		}
	}
	return p, nil
}

// Last is a subnet's highest address.
func Last(subnet netip.Prefix) netip.Addr {
	bytes := subnet.Addr().AsSlice()
	for bit := subnet.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

// Take reserves one address. ErrAlreadyExists if it is in use,
// ErrInvalidArgument outside the subnet.
func (p *Pool) Take(a netip.Addr) error {
	if !p.subnet.Contains(a) {
		return fmt.Errorf("address %s is not in subnet %s: %w", a, p.subnet, errdefs.ErrInvalidArgument)
	}
	if p.used[a] {
		return errdefs.ErrAlreadyExists.WithMessage("Address already in use")
	}
	p.used[a] = true
	if p.within.Contains(a) && (!p.cursor.IsValid() || p.cursor.Less(a)) {
		p.cursor = a
	}
	return nil
}

// Next reserves the next free address. ErrResourceExhausted if there is none.
func (p *Pool) Next() (netip.Addr, error) {
	first := p.within.Addr()
	last := Last(p.within)
	start := first
	if p.cursor.IsValid() && p.cursor.Less(last) {
		start = p.cursor.Next()
	}
	for a := start; ; {
		if !p.used[a] {
			p.used[a] = true
			p.cursor = a
			return a, nil
		}
		if a == last {
			a = first
		} else {
			a = a.Next()
		}
		if a == start {
			return netip.Addr{}, fmt.Errorf("no available addresses in %s: %w", p.within, errdefs.ErrResourceExhausted)
		}
	}
}

// Free gives an address back. Freeing what is not in use is no error.
func (p *Pool) Free(a netip.Addr) { delete(p.used, a) }
