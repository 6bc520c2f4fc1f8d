package netlab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Snapshot lists what is in the host's network: links, addresses, routes, rules of
// routing and of the firewall, one a line. Of two snapshots the difference is what
// somebody made or removed in between.
func (h *Host) Snapshot() ([]string, error) {
	var all []string
	err := h.Do(func() error {
		for _, list := range []func() ([]string, error){links, routes, rules, firewall} {
			// The kernel says when a list changed while it was read.
			lines, err := list()
			for attempt := 0; errors.Is(err, netlink.ErrDumpInterrupted) && attempt < 16; attempt++ {
				lines, err = list()
			}
			if err != nil {
				return err
			}
			all = append(all, lines...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing what is in the host's network: %w", err)
	}
	slices.Sort(all)
	return all, nil
}

func links() ([]string, error) {
	list, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, link := range list {
		lines = append(lines, fmt.Sprintf("link %s (%s)", link.Attrs().Name, link.Type()))
		addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return nil, err
		}
		for _, a := range addresses {
			// The kernel's own come and go with the link.
			if !a.IP.IsLinkLocalUnicast() {
				lines = append(lines, fmt.Sprintf("address %s of %s", a.IPNet, link.Attrs().Name))
			}
		}
	}
	return lines, nil
}

func routes() ([]string, error) {
	var lines []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			if r.Protocol == unix.RTPROT_KERNEL {
				continue // comes and goes with a link's address
			}
			lines = append(lines, fmt.Sprintf("route to %v by %v in table %d", r.Dst, r.Gw, r.Table))
		}
	}
	return lines, nil
}

func rules() ([]string, error) {
	list, err := netlink.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, r := range list {
		lines = append(lines, "routing rule "+r.String())
	}
	return lines, nil
}

// firewall counts rules and elements: their handles and counters change.
func firewall() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, t := range tables {
		lines = append(lines, fmt.Sprintf("nftables table %s of family %d", t.Name, t.Family))
		sets, err := conn.GetSets(t)
		if err != nil {
			return nil, err
		}
		for _, s := range sets {
			elements, err := conn.GetSetElements(s)
			if err != nil {
				return nil, err
			}
			lines = append(lines, fmt.Sprintf("nftables set %s %s with %d elements", t.Name, s.Name, len(elements)))
		}
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	for _, c := range chains {
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("nftables chain %s %s with %d rules", c.Table.Name, c.Name, len(rules)))
	}
	return lines, nil
}

// Foreign makes what a host has from others: a bridge with an address and a table of
// the firewall. It answers the lines that a snapshot has for them, and their removal.
func (h *Host) Foreign() (lines []string, remove func() error, err error) {
	before, err := h.Snapshot()
	if err != nil {
		return nil, nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br-others"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "others"}
	change := func(links func(netlink.Link) error, tables func(*nftables.Conn)) error {
		return h.Do(func() error {
			conn, err := nftables.New()
			if err != nil {
				return err
			}
			tables(conn)
			return errors.Join(links(bridge), conn.Flush())
		})
	}
	remove = func() error {
		return change(netlink.LinkDel, func(c *nftables.Conn) { c.DelTable(table) })
	}
	err = change(netlink.LinkAdd, func(c *nftables.Conn) { c.AddTable(table) })
	var after []string
	if err == nil {
		err = h.Do(func() error {
			return netlink.AddrAdd(bridge, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.66.0.1/24"))})
		})
	}
	if err == nil {
		after, err = h.Snapshot()
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("making what others have: %w", err), remove())
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			lines = append(lines, line)
		}
	}
	return lines, remove, nil
}
