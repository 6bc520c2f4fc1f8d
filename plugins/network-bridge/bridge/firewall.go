package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/network"
)

// firewall is the driver's nftables table, of family inet. Networks change its
// rules as a whole, in one transaction; a published port is one element of a map.
// Nothing outside the table is read or touched, and its chains accept what is not
// theirs.
//
//	user                       the administrator's: jumped to first, never changed
//	prerouting, output (nat)   packets to a local address: look proto and port up
//	                           in the maps, change the destination
//	postrouting (nat)          hide containers behind the host; answer themselves
//	                           and loopback addresses through the bridge
//	forward (filter)           keep networks apart; internal ones stay inside
//	published-…                what forward does with packets to published ports
//	guard (filter, raw)        the host's loopback is never reached from a bridge
type firewall struct {
	table      *nftables.Table
	restricted bool // published ports are closed to other hosts unless chain user accepts

	bridges      *nftables.Set
	any4, any6   *nftables.Set // proto . port → address . port
	at4, at6     *nftables.Set // host address . proto . port → address . port
	open4, open6 *nftables.Set // address . proto . port, of routed networks

	// conn is kept, so that the watcher can tell the driver's own changes.
	conn *nftables.Conn
	port uint32 // netlink port of conn
}

func newFirewall(name string, restricted bool) *firewall {
	f := &firewall{table: &nftables.Table{Family: nftables.TableFamilyINet, Name: name}, restricted: restricted}
	concat := nftables.MustConcatSetType
	proto, port, a4, a6 := nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeIPAddr, nftables.TypeIP6Addr
	portMap := func(name string, key, data nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: f.table, Name: name, IsMap: true, Concatenation: true, KeyType: key, DataType: data}
	}
	f.bridges = &nftables.Set{Table: f.table, Name: "bridges", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}
	f.any4 = portMap("ports4", concat(proto, port), concat(a4, port))
	f.any6 = portMap("ports6", concat(proto, port), concat(a6, port))
	f.at4 = portMap("ports4_at", concat(a4, proto, port), concat(a4, port))
	f.at6 = portMap("ports6_at", concat(a6, proto, port), concat(a6, port))
	f.open4 = &nftables.Set{Table: f.table, Name: "open4", Concatenation: true, KeyType: concat(a4, proto, port)}
	f.open6 = &nftables.Set{Table: f.table, Name: "open6", Concatenation: true, KeyType: concat(a6, proto, port)}
	return f
}

// sets are all that hold ports.
func (f *firewall) sets() []*nftables.Set {
	return []*nftables.Set{f.any4, f.any6, f.at4, f.at6, f.open4, f.open6}
}

// sendBuffer has room for a transaction with some ten thousand ports: the kernel
// takes one only as a whole.
const sendBuffer = 16 << 20

// commit sends one transaction.
func (f *firewall) commit(what string, fill func(*nftables.Conn) error) error {
	if f.conn == nil {
		conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
			var err error
			if f.port, err = netlinkPort(c); err != nil {
				return err
			}
			return c.SetWriteBuffer(sendBuffer)
		}))
		if err != nil {
			return fmt.Errorf("nftables: %w", err)
		}
		f.conn = conn
	}
	err := fill(f.conn)
	if err == nil {
		err = f.conn.Flush()
	}
	if err != nil {
		f.close() // what the kernel still has to say about it is not for the next one
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (f *firewall) close() {
	if f.conn != nil {
		_ = f.conn.CloseLasting()
		f.conn = nil
	}
}

// rebuild makes the table what the networks need, ports included, whatever is
// there: at once, and without touching chain user.
func (f *firewall) rebuild(networks map[string]*netState) error {
	return f.commit("rebuilding nftables table "+f.table.Name, func(c *nftables.Conn) error {
		if err := f.rules(c, networks); err != nil {
			return err
		}
		for _, set := range f.sets() {
			c.FlushSet(set)
		}
		for _, s := range networks {
			for _, e := range s.endpoints {
				if err := f.change(c.SetAddElements, s, e, e.Ports); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// update changes the rules to those of the given networks; ports stay.
func (f *firewall) update(networks map[string]*netState) error {
	err := f.commit("changing nftables table "+f.table.Name, func(c *nftables.Conn) error { return f.rules(c, networks) })
	if isGone(err) {
		return f.rebuild(networks)
	}
	return err
}

// remove deletes the table, with chain user if the administrator has nothing in
// it: the last network is gone.
func (f *firewall) remove() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	rules, err := conn.GetRules(f.table, &nftables.Chain{Name: chainUser, Table: f.table})
	if isGone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading chain %s: %w", chainUser, err)
	}
	if len(rules) > 0 {
		return nil
	}
	return f.commit("removing nftables table "+f.table.Name, func(c *nftables.Conn) error {
		c.AddTable(f.table) // so that there is one to delete
		c.DelTable(f.table)
		return nil
	})
}

// elementsPerMessage keeps a netlink attribute below its 64 KiB.
const elementsPerMessage = 256

// change adds or deletes the elements of some ports of an endpoint.
func (f *firewall) change(apply func(*nftables.Set, []nftables.SetElement) error, s *netState, e network.Endpoint, ports []network.Port) error {
	elements := map[*nftables.Set][]nftables.SetElement{}
	for _, p := range ports {
		set, element, err := f.element(s, e, p)
		if err != nil {
			return err
		}
		elements[set] = append(elements[set], element)
	}
	for set, all := range elements {
		for some := range slices.Chunk(all, elementsPerMessage) {
			if err := apply(set, some); err != nil {
				return err
			}
		}
	}
	return nil
}

// element is what publishes one port.
func (f *firewall) element(s *netState, e network.Endpoint, p network.Port) (*nftables.Set, nftables.SetElement, error) {
	proto, ok := protocols[p.Proto]
	if !ok {
		return nil, nftables.SetElement{}, fmt.Errorf("protocol %q", p.Proto)
	}
	target, network, anySet, atSet, openSet := e.IPv4.Addr(), s.ip4, f.any4, f.at4, f.open4
	if p.HostIP.Is6() {
		target, network, anySet, atSet, openSet = e.IPv6.Addr(), s.ip6, f.any6, f.at6, f.open6
	}
	if !target.IsValid() || network == nil {
		return nil, nftables.SetElement{}, fmt.Errorf("port %d is published on %s, but the endpoint has no such address", p.HostPort, p.HostIP)
	}
	if network.mode == modeRouted {
		return openSet, nftables.SetElement{Key: slices.Concat(target.AsSlice(), []byte{proto, 0, 0, 0}, port(p.ContainerPort))}, nil
	}
	key := append([]byte{proto, 0, 0, 0}, port(p.HostPort)...)
	set := anySet
	if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
		set, key = atSet, append(p.HostIP.AsSlice(), key...)
	}
	return set, nftables.SetElement{Key: key, Val: append(target.AsSlice(), port(p.ContainerPort)...)}, nil
}

// addPorts publishes an endpoint's ports.
func (f *firewall) addPorts(networks map[string]*netState, s *netState, e network.Endpoint) error {
	if len(e.Ports) == 0 {
		return nil
	}
	err := f.commit("publishing ports", func(c *nftables.Conn) error { return f.change(c.SetAddElements, s, e, e.Ports) })
	if isGone(err) { // somebody flushed the ruleset
		return f.rebuild(networks)
	}
	return err
}

// removePorts takes them back; those that are not there are no error.
func (f *firewall) removePorts(s *netState, e network.Endpoint) error {
	if len(e.Ports) == 0 {
		return nil
	}
	remove := func(ports []network.Port) error {
		return f.commit("withdrawing ports", func(c *nftables.Conn) error { return f.change(c.SetDeleteElements, s, e, ports) })
	}
	err := remove(e.Ports)
	if isGone(err) { // at least one is not there: a transaction is all or nothing
		err = nil
		for _, p := range e.Ports {
			if one := remove([]network.Port{p}); one != nil && !isGone(one) {
				err = one
			}
		}
	}
	return err
}

// replacePorts withdraws the ports of before and publishes those of e, which the
// networks have already, at once: what is in both is never closed.
func (f *firewall) replacePorts(networks map[string]*netState, s *netState, e network.Endpoint, before []network.Port) error {
	if len(before) == 0 && len(e.Ports) == 0 {
		return nil
	}
	err := f.commit("changing ports", func(c *nftables.Conn) error {
		if err := f.change(c.SetDeleteElements, s, e, before); err != nil {
			return err
		}
		return f.change(c.SetAddElements, s, e, e.Ports)
	})
	if isGone(err) {
		return f.rebuild(networks)
	}
	return err
}

// netlinkPort is the kernel's name for the socket: what the socket asked for is
// announced to others under it.
func netlinkPort(c *netlink.Conn) (port uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(fd uintptr) {
		var name unix.Sockaddr
		if name, err = unix.Getsockname(int(fd)); err == nil {
			port = name.(*unix.SockaddrNetlink).Pid
		}
	})
	return port, errors.Join(failed, err)
}

var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// port is a port as part of a concatenation: network order, filled to four bytes.
func port(n uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, n), 0, 0) }

// sorted are the networks in an order that does not change between rebuilds.
func sorted(networks map[string]*netState) []*netState {
	return slices.SortedFunc(maps.Values(networks), func(a, b *netState) int {
		if a.Bridge < b.Bridge {
			return -1
		}
		return 1
	})
}

// loopback is where each family reaches the host itself.
var loopback = map[family]netip.Prefix{ip4: netip.MustParsePrefix("127.0.0.0/8"), ip6: netip.MustParsePrefix("::1/128")}
