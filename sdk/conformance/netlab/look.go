package netlab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Interface is an interface in a namespace, but for its loopback.
type Interface struct {
	Name      string
	MAC       string
	Up        bool
	Addresses []netip.Prefix // without link-local ones
	// Gateways of the default routes through it.
	Gateway4, Gateway6 netip.Addr
}

// Interfaces are those of a namespace but for its loopback.
func (n *Namespace) Interfaces() (list []Interface, err error) {
	err = n.Do(func() error {
		found, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, link := range found {
			if link.Attrs().Flags&net.FlagLoopback != 0 {
				continue
			}
			i, err := look(link)
			if err != nil {
				return err
			}
			list = append(list, i)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking at the interfaces of a namespace: %w", err)
	}
	return list, nil
}

func look(link netlink.Link) (Interface, error) {
	i := Interface{Name: link.Attrs().Name, MAC: link.Attrs().HardwareAddr.String(), Up: link.Attrs().Flags&net.FlagUp != 0}
	addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return i, err
	}
	for _, a := range addresses {
		ones, _ := a.Mask.Size()
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.Unmap().IsLinkLocalUnicast() {
			i.Addresses = append(i.Addresses, netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	for family, gateway := range map[int]*netip.Addr{netlink.FAMILY_V4: &i.Gateway4, netlink.FAMILY_V6: &i.Gateway6} {
		routes, err := netlink.RouteList(link, family)
		if err != nil {
			return i, err
		}
		for _, r := range routes {
			ones := 0
			if r.Dst != nil {
				ones, _ = r.Dst.Mask.Size()
			}
			if by, ok := netip.AddrFromSlice(r.Gw); ok && ones == 0 {
				*gateway = by.Unmap()
			}
		}
	}
	return i, nil
}
