package bridge

import (
	"fmt"
	"net/netip"
	"regexp"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"

	"github.com/davit-engine/davit/sdk/ipam"
	"github.com/davit-engine/davit/sdk/network"
)

// Driver options, with the names that Docker's users know.
const (
	optionBridge     = "com.docker.network.bridge.name"
	optionDefault    = "com.docker.network.bridge.default_bridge"
	optionMTU        = "com.docker.network.driver.mtu"
	optionICC        = "com.docker.network.bridge.enable_icc"
	optionMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optionBindingIP  = "com.docker.network.bridge.host_binding_ipv4"
)

// linkName is what the kernel takes as an interface's name.
var linkName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,15}$`)

// plan chooses bridge and subnet of a new network; the caller holds mu.
func (d *Driver) plan(n network.Network) (record, error) {
	r := record{Network: n, Bridge: "dv-" + n.ID[:min(12, len(n.ID))]}
	for key, value := range n.Options {
		switch key {
		case optionBridge:
			r.Bridge = value
		case optionDefault:
			if value == "true" {
				r.Bridge = d.config.Bridge
			}
		case optionICC:
			if value == "false" {
				return r, fmt.Errorf("option %s=false: %w", key, errdefs.ErrNotImplemented)
			}
		case optionMTU, optionMasquerade, optionBindingIP:
		default:
			return r, fmt.Errorf("option %q is not known to driver bridge; known: %s, %s, %s, %s: %w", key, optionBridge, optionMTU, optionMasquerade, optionBindingIP, errdefs.ErrInvalidArgument)
		}
	}
	if !linkName.MatchString(r.Bridge) {
		return r, fmt.Errorf("bridge name %q: an interface's name has 1 to 15 letters, digits, '_', '.' or '-': %w", r.Bridge, errdefs.ErrInvalidArgument)
	}
	for _, other := range d.networks {
		if other.Bridge == r.Bridge {
			return r, fmt.Errorf("bridge %s is that of network %s: %w", r.Bridge, other.Name, errdefs.ErrAlreadyExists)
		}
	}
	if len(n.Pools) > 1 {
		return r, fmt.Errorf("network %s asks for %d subnets: driver bridge gives one: %w", n.Name, len(n.Pools), errdefs.ErrInvalidArgument)
	}
	var pool network.Pool
	var err error
	if len(n.Pools) == 1 && n.Pools[0].Subnet.IsValid() {
		pool, err = d.checkPool(n.Pools[0])
	} else {
		if len(n.Pools) == 1 {
			pool = n.Pools[0]
		}
		pool.Subnet, err = d.choosePool()
	}
	if err != nil {
		return r, err
	}
	if !pool.Gateway.IsValid() {
		first := pool.Subnet.Addr()
		if pool.Range.IsValid() {
			first = pool.Range.Masked().Addr()
		}
		if pool.Gateway = first; first == pool.Subnet.Addr() {
			pool.Gateway = first.Next()
		}
	}
	r.Pools, r.IPv4 = []network.Pool{pool}, true
	return r, nil
}

func (d *Driver) checkPool(pool network.Pool) (network.Pool, error) {
	if !pool.Subnet.Addr().Is4() {
		return pool, fmt.Errorf("subnet %s: driver bridge has IPv4 only so far: %w", pool.Subnet, errdefs.ErrNotImplemented)
	}
	if pool.Subnet.Bits() > 30 {
		return pool, fmt.Errorf("subnet %s has no room for a gateway and a container: %w", pool.Subnet, errdefs.ErrInvalidArgument)
	}
	pool.Subnet = pool.Subnet.Masked()
	if pool.Gateway.IsValid() && !pool.Subnet.Contains(pool.Gateway) {
		return pool, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("no matching subnet for gateway %s", pool.Gateway))
	}
	if pool.Range.IsValid() && !pool.Subnet.Contains(pool.Range.Addr()) {
		return pool, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("no matching subnet for range %s", pool.Range))
	}
	for _, s := range d.networks {
		if s.Pools[0].Subnet.Overlaps(pool.Subnet) {
			return pool, errdefs.ErrInvalidArgument.WithMessage("Pool overlaps with other one on this address space")
		}
	}
	return pool, nil
}

// choosePool takes the first default subnet that neither a network nor a route of
// the host has. Pools wider than /16 are cut into /24s after the first /16.
func (d *Driver) choosePool() (netip.Prefix, error) {
	taken, err := hostRoutes()
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, s := range d.networks {
		taken = append(taken, s.Pools[0].Subnet)
	}
	free := func(candidate netip.Prefix) bool {
		for _, other := range taken {
			if other.Overlaps(candidate) {
				return false
			}
		}
		return true
	}
	for _, pool := range d.config.Pools {
		for candidate := range split(pool) {
			if free(candidate) {
				return candidate, nil
			}
		}
	}
	return netip.Prefix{}, errdefs.ErrResourceExhausted.WithMessage("all predefined address pools have been fully subnetted: name a --subnet, or configure more pools")
}

// subnetBits is the size of a network that nobody chose a subnet for.
const subnetBits = 24

// split yields the subnets of a default pool.
func split(pool netip.Prefix) func(yield func(netip.Prefix) bool) {
	return func(yield func(netip.Prefix) bool) {
		bits := max(subnetBits, pool.Bits())
		last := ipam.Last(pool)
		for at := pool.Masked().Addr(); ; {
			candidate := netip.PrefixFrom(at, bits)
			if !yield(candidate) {
				return
			}
			end := ipam.Last(candidate)
			if end == last || !end.IsValid() {
				return
			}
			at = end.Next()
		}
	}
}

// hostRoutes are the subnets that the host reaches without a gateway or has a
// special route for; the default route says nothing.
func hostRoutes() ([]netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	var list []netip.Prefix
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		address, ok := netip.AddrFromSlice(route.Dst.IP.To4())
		ones, _ := route.Dst.Mask.Size()
		if ok && ones > 0 {
			list = append(list, netip.PrefixFrom(address, ones))
		}
	}
	return list, nil
}

// macOf makes a hardware address of an IP address, so that it is unique on the
// network and stable.
func macOf(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
}
