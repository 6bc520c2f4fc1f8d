package bridge

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/network"
)

// firewall is the driver's nftables table. Networks change it as a whole, in one
// transaction; a published port is one element of a map. Nothing outside the
// table is read or touched, and its chains accept what is not theirs.
//
//	prerouting, output (nat)   packets to a local address: look proto and port up
//	                           in the maps, change the destination
//	postrouting (nat)          hide containers behind the host; answer themselves
//	                           and 127.0.0.1 through the bridge
//	forward (filter)           keep networks apart; internal ones stay inside
//	guard (filter, raw)        127.0.0.0/8 is never reached from a bridge
type firewall struct {
	name  string
	table *nftables.Table
	any   *nftables.Set // proto . port → address . port
	at    *nftables.Set // host address . proto . port → address . port
}

func newFirewall(name string) *firewall {
	return &firewall{name: name, table: &nftables.Table{Family: nftables.TableFamilyIPv4, Name: name}}
}

// commit sends one transaction.
func (f *firewall) commit(what string, fill func(*nftables.Conn) error) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	if err := fill(conn); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// rebuild replaces the table by one for the given networks, at once.
func (f *firewall) rebuild(networks map[string]*netState) error {
	return f.commit("rebuilding nftables table "+f.name, func(c *nftables.Conn) error {
		c.AddTable(f.table) // so that there is one to delete
		c.DelTable(f.table)
		if len(networks) == 0 {
			return nil
		}
		c.AddTable(f.table)
		if err := f.addMaps(c); err != nil {
			return err
		}
		f.addDestinationChains(c)
		bridges, err := f.addBridges(c, networks)
		if err != nil {
			return err
		}
		f.addPostrouting(c, networks)
		f.addForward(c, networks, bridges)
		f.addGuard(c, bridges)
		for _, s := range networks {
			for _, e := range s.endpoints {
				if err := f.elements(e, c.SetAddElements); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (f *firewall) addMaps(c *nftables.Conn) error {
	target := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	f.any = &nftables.Set{Table: f.table, Name: "ports", IsMap: true, Concatenation: true, DataType: target,
		KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)}
	f.at = &nftables.Set{Table: f.table, Name: "ports_at", IsMap: true, Concatenation: true, DataType: target,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)}
	if err := c.AddSet(f.any, nil); err != nil {
		return err
	}
	return c.AddSet(f.at, nil)
}

// Registers: a 16-byte register 1 is the four 4-byte registers from 8 on.
const (
	reg0 = 8
	reg1 = 9
	reg2 = 10
)

// addDestinationChains changes the destination of packets to published ports.
func (f *firewall) addDestinationChains(c *nftables.Conn) {
	for _, chain := range []*nftables.Chain{
		{Name: "prerouting", Table: f.table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest},
		{Name: "output", Table: f.table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest},
	} {
		c.AddChain(chain)
		local := []expr.Any{
			&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		}
		dnat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg0, RegProtoMin: reg1, Specified: true}
		c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: append(append([]expr.Any{}, local...),
			&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
			&expr.Payload{DestRegister: reg2, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: f.at.Name, SetID: f.at.ID},
			dnat)})
		c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: append(append([]expr.Any{}, local...),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0},
			&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: f.any.Name, SetID: f.any.ID},
			dnat)})
	}
}

func (f *firewall) addBridges(c *nftables.Conn, networks map[string]*netState) (*nftables.Set, error) {
	set := &nftables.Set{Table: f.table, Name: "bridges", KeyType: nftables.TypeIFName}
	var elements []nftables.SetElement
	for _, s := range networks {
		elements = append(elements, nftables.SetElement{Key: ifname(s.Bridge)})
	}
	return set, c.AddSet(set, elements)
}

// addPostrouting hides containers behind the host's address on the way out.
func (f *firewall) addPostrouting(c *nftables.Conn, networks map[string]*netState) {
	chain := c.AddChain(&nftables.Chain{Name: "postrouting", Table: f.table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	for _, s := range networks {
		subnet := s.Pools[0].Subnet
		// From 127.0.0.1 to a published port: the container could not answer that.
		c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: concat(outgoing(expr.CmpOpEq, s.Bridge), source(netip.MustParsePrefix("127.0.0.0/8")), masquerade())})
		// A container to itself, or its neighbour, through a published port.
		c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: concat(outgoing(expr.CmpOpEq, s.Bridge), source(subnet), translated(), masquerade())})
		if !s.Internal && s.Options[optionMasquerade] != "false" {
			c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: concat(outgoing(expr.CmpOpNeq, s.Bridge), source(subnet), masquerade())})
		}
	}
}

// addForward keeps networks apart. What came through a published port may pass.
func (f *firewall) addForward(c *nftables.Conn, networks map[string]*netState, bridges *nftables.Set) {
	accept := nftables.ChainPolicyAccept
	chain := c.AddChain(&nftables.Chain{Name: "forward", Table: f.table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &accept})
	c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: concat(established(), verdict(expr.VerdictAccept))})
	c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: concat(translated(), verdict(expr.VerdictAccept))})
	for _, s := range networks {
		in, notOut := incoming(s.Bridge), outgoing(expr.CmpOpNeq, s.Bridge)
		if s.Internal {
			c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: concat(in, notOut, verdict(expr.VerdictDrop))})
			c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: concat(notIncoming(s.Bridge), outgoing(expr.CmpOpEq, s.Bridge), verdict(expr.VerdictDrop))})
			continue
		}
		other := []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: bridges.Name, SetID: bridges.ID}}
		c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: concat(in, notOut, other, verdict(expr.VerdictDrop))})
	}
}

// addGuard undoes what route_localnet would allow: packets from a bridge to the
// host's 127.0.0.0/8.
func (f *firewall) addGuard(c *nftables.Conn, bridges *nftables.Set) {
	accept := nftables.ChainPolicyAccept
	chain := c.AddChain(&nftables.Chain{Name: "guard", Table: f.table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw, Policy: &accept})
	c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: concat(
		[]expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: bridges.Name, SetID: bridges.ID}},
		address(16, netip.MustParsePrefix("127.0.0.0/8")), verdict(expr.VerdictDrop))})
}

// addPorts publishes an endpoint's ports.
func (f *firewall) addPorts(e network.Endpoint) error {
	if len(e.Ports) == 0 {
		return nil
	}
	return f.commit("publishing ports", func(c *nftables.Conn) error { return f.elements(e, c.SetAddElements) })
}

// removePorts takes them back; those that are not there are no error.
func (f *firewall) removePorts(e network.Endpoint) error {
	if len(e.Ports) == 0 {
		return nil
	}
	err := f.commit("withdrawing ports", func(c *nftables.Conn) error { return f.elements(e, c.SetDeleteElements) })
	if isGone(err) {
		return nil
	}
	return err
}

func (f *firewall) elements(e network.Endpoint, apply func(*nftables.Set, []nftables.SetElement) error) error {
	for _, p := range e.Ports {
		proto, ok := protocols[p.Proto]
		if !ok {
			return fmt.Errorf("protocol %q", p.Proto)
		}
		key := append([]byte{proto, 0, 0, 0}, port(p.HostPort)...)
		set := f.any
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			set = f.at
			host := p.HostIP.As4()
			key = append(host[:], key...)
		}
		to := e.IPv4.Addr().As4()
		element := nftables.SetElement{Key: key, Val: append(to[:], port(p.ContainerPort)...)}
		if err := apply(set, []nftables.SetElement{element}); err != nil {
			return err
		}
	}
	return nil
}

var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// port is a port as part of a concatenation: network order, filled to four bytes.
func port(n uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, n), 0, 0) }
