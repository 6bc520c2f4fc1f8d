package bridge

import (
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"

	"github.com/davit-engine/davit/sdk/ipam"
	"github.com/davit-engine/davit/sdk/network"
)

// Errors with Docker's words.
var (
	errOverlap   = errdefs.ErrInvalidArgument.WithMessage("invalid pool request: Pool overlaps with other one on this address space")
	errExhausted = errdefs.ErrResourceExhausted.WithMessage("all predefined address pools have been fully subnetted: name a --subnet, or configure more pools")
)

// plan chooses bridge and subnets of a new network; the caller holds mu.
func (d *Driver) plan(n network.Network) (record, error) {
	r := record{Network: n, Bridge: "dv-" + n.ID[:min(12, len(n.ID))]}
	o, err := readOptions(n.Options)
	if err != nil {
		return r, err
	}
	switch {
	case o.bridge != "":
		r.Bridge = o.bridge
	case o.isDefault:
		r.Bridge = d.config.Bridge
	}
	if !n.IPv4 && !n.IPv6 {
		return r, errdefs.ErrInvalidArgument.WithMessage("IPv4 or IPv6 must be enabled")
	}
	if mtu := max(o.mtu, 0); n.IPv6 && mtu != 0 && mtu < 1280 {
		return r, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("option %s=%d: IPv6 needs at least 1280 (RFC 8200)", optionMTU, mtu))
	}
	for _, other := range d.networks {
		if other.Bridge == r.Bridge {
			return r, fmt.Errorf("bridge %s is that of network %s: %w", r.Bridge, other.Name, errdefs.ErrAlreadyExists)
		}
	}
	r.Pools = nil
	for _, family := range []struct {
		wanted bool
		is6    bool
		blocks []ipam.Block
	}{{n.IPv4, false, d.config.blocks(false)}, {n.IPv6, true, d.config.blocks(true)}} {
		if !family.wanted {
			continue // subnets of a family that is off are ignored, as by Docker
		}
		pool, err := d.planPool(n, family.is6, family.blocks)
		if err != nil {
			return r, err
		}
		r.Pools = append(r.Pools, pool)
	}
	return r, nil
}

// planPool checks or chooses a network's subnet of one family.
func (d *Driver) planPool(n network.Network, is6 bool, blocks []ipam.Block) (network.Pool, error) {
	var pool network.Pool
	var err error
	found := 0
	for _, p := range n.Pools {
		switch {
		case p.Subnet.IsValid():
			if p.Subnet.Addr().Is6() == is6 {
				pool = p
				found++
			}
		case p.Gateway.Is6() == is6: // a gateway or nothing at all, without a subnet
			pool = p
		}
	}
	switch {
	case found > 1:
		return pool, errdefs.ErrInvalidArgument.WithMessage("bridge driver does not support multiple subnets")
	case found == 1:
		if pool, err = checkPool(pool); err != nil {
			return pool, err
		}
		if overlaps(pool.Subnet, d.subnets()) {
			return pool, errOverlap
		}
	default:
		if pool.Subnet, err = d.chooseSubnet(is6, blocks); err != nil {
			return pool, err
		}
		if pool, err = checkPool(pool); err != nil {
			return pool, err
		}
	}
	if pool.Gateway.IsValid() {
		return pool, nil
	}
	pool.Gateway, err = firstFree(pool)
	return pool, err
}

// firstFree is the gateway where the user names none: the first address that is
// not kept for something else.
func firstFree(pool network.Pool) (netip.Addr, error) {
	free, err := ipam.New(pool.Subnet, pool.Range)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, aux := range pool.Aux {
		if err := free.Take(aux); err != nil {
			return netip.Addr{}, err
		}
	}
	return freshStart(free, pool)
}

// freshStart goes through the addresses from the first on: what is taken already
// has moved the pool's cursor.
func freshStart(free *ipam.Pool, pool network.Pool) (netip.Addr, error) {
	within := pool.Range
	if !within.IsValid() {
		within = pool.Subnet
	}
	for a := within.Masked().Addr(); within.Contains(a); a = a.Next() {
		if free.Take(a) == nil {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address left for the gateway of %s: %w", pool.Subnet, errdefs.ErrInvalidArgument)
}

func checkPool(pool network.Pool) (network.Pool, error) {
	invalid := func(format string, args ...any) (network.Pool, error) {
		return pool, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
	}
	s := pool.Subnet
	switch {
	case s != s.Masked():
		return invalid("invalid subnet %s: it should be %s", s, s.Masked())
	case s.Bits() > s.Addr().BitLen()-2:
		return invalid("invalid subnet %s: no room for a gateway and a container", s)
	case s.Addr().IsMulticast() || s.Addr().IsLoopback() || s.Addr().IsLinkLocalUnicast() && s.Addr().Is6() || s.Bits() == 0:
		return invalid("invalid subnet %s: its addresses are not for hosts", s)
	}
	if r := pool.Range; r.IsValid() {
		switch {
		case r != r.Masked():
			return invalid("invalid ip-range %s: it should be %s", r, r.Masked())
		case r.Bits() < s.Bits():
			return invalid("invalid ip-range %s: CIDR block is bigger than its parent subnet %s", r, s)
		case !s.Contains(r.Addr()):
			return invalid("invalid ip-range %s: parent subnet %s doesn't contain ip-range", r, s)
		}
	}
	if g := pool.Gateway; g.IsValid() {
		switch {
		case !s.Contains(g):
			return invalid("invalid gateway %s: parent subnet %s doesn't contain this address", g, s)
		case g == s.Addr() || g.Is4() && g == ipam.Last(s):
			return invalid("invalid gateway %s: it is the network or the broadcast address of %s", g, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(pool.Aux)) {
		aux := pool.Aux[name]
		if !s.Contains(aux) {
			return invalid("invalid auxiliary address %s: parent subnet %s doesn't contain this address", name, s)
		}
		if aux == pool.Gateway {
			return invalid("invalid auxiliary address %s: %s is the gateway", name, aux)
		}
	}
	return pool, nil
}

// subnets are those of all networks; the caller holds mu.
func (d *Driver) subnets() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range d.networks {
		for _, pool := range s.Pools {
			list = append(list, pool.Subnet)
		}
	}
	return list
}

func overlaps(subnet netip.Prefix, others []netip.Prefix) bool {
	return slices.ContainsFunc(others, subnet.Overlaps)
}

// chooseSubnet takes the first default subnet that neither a network nor a route
// of the host has.
func (d *Driver) chooseSubnet(is6 bool, blocks []ipam.Block) (netip.Prefix, error) {
	taken, err := hostRoutes(is6)
	if err != nil {
		return netip.Prefix{}, err
	}
	taken = append(taken, d.subnets()...)
	for _, block := range blocks {
		for candidate := range block.Subnets() {
			if !overlaps(candidate, taken) {
				return candidate, nil
			}
		}
	}
	return netip.Prefix{}, errExhausted
}

// hostRoutes are the subnets that the host reaches without a gateway or has a
// special route for; the default route says nothing.
func hostRoutes(is6 bool) ([]netip.Prefix, error) {
	family := netlink.FAMILY_V4
	if is6 {
		family = netlink.FAMILY_V6
	}
	routes, err := netlink.RouteList(nil, family)
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	var list []netip.Prefix
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		address, ok := netip.AddrFromSlice(route.Dst.IP)
		ones, _ := route.Dst.Mask.Size()
		if ok && ones > 0 {
			list = append(list, netip.PrefixFrom(address.Unmap(), ones))
		}
	}
	return list, nil
}

// macOf makes a hardware address of an IP address, so that it is unique on the
// network, and neighbours' caches stay right when the address comes back.
func macOf(a netip.Addr) string {
	var b [4]byte
	if a.Is4() {
		b = a.As4()
	} else {
		h := fnv.New32a()
		_, _ = h.Write(a.AsSlice())
		h.Sum(b[:0])
	}
	return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
}
