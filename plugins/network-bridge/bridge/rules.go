package bridge

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Chains that are called: the administrator's, and what happens to packets to
// published ports, whose name says which way the configuration has it.
const (
	chainUser       = "user"
	chainOpen       = "published-open"
	chainRestricted = "published-restricted"
)

// Registers: a 16-byte register 1 is the four 4-byte registers from 8 on.
const firstRegister = 8

// rules writes all chains anew into a transaction.
func (f *firewall) rules(c *nftables.Conn, networks map[string]*netState) error {
	c.AddTable(f.table)
	for _, set := range append(f.sets(), f.bridges) {
		if err := c.AddSet(set, nil); err != nil {
			return err
		}
	}
	c.FlushSet(f.bridges)
	list := sorted(networks)
	var bridges []nftables.SetElement
	for _, s := range list {
		bridges = append(bridges, nftables.SetElement{Key: ifname(s.Bridge)})
	}
	if len(bridges) > 0 {
		if err := c.SetAddElements(f.bridges, bridges); err != nil {
			return err
		}
	}
	c.AddChain(&nftables.Chain{Name: chainUser, Table: f.table})
	f.destinations(c)
	f.postrouting(c, list)
	f.forward(c, list)
	f.guard(c)
	return nil
}

// chain starts a chain anew and answers what adds a rule to it.
func (f *firewall) chain(c *nftables.Conn, name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) func(...[]expr.Any) {
	accept := nftables.ChainPolicyAccept
	chain := c.AddChain(&nftables.Chain{Name: name, Table: f.table, Type: kind, Hooknum: hook, Priority: priority, Policy: &accept})
	c.FlushChain(chain)
	return func(parts ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: concat(parts...)})
	}
}

// published writes the chain for packets to published ports and answers its name.
func (f *firewall) published(c *nftables.Conn) string {
	name, other := chainOpen, chainRestricted
	if f.restricted {
		name, other = other, name
	}
	// Nothing calls the other any more; one that is not there is made first.
	stale := c.AddChain(&nftables.Chain{Name: other, Table: f.table})
	c.FlushChain(stale)
	c.DelChain(stale)
	chain := c.AddChain(&nftables.Chain{Name: name, Table: f.table})
	c.FlushChain(chain)
	if f.restricted {
		c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: concat(oneOf(expr.MetaKeyIIFNAME, f.bridges, true), verdict(expr.VerdictDrop))})
	}
	c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: verdict(expr.VerdictAccept)})
	return name
}

// destinations changes the destination of packets to published ports.
func (f *firewall) destinations(c *nftables.Conn) {
	rule := f.chain(c, "prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	// Another host that sends to 127.0.0.1 reaches nothing, whatever others set
	// route_localnet to.
	for _, f := range families {
		rule(notFrom("lo"), destination(expr.CmpOpEq, loopback[f]), verdict(expr.VerdictReturn))
	}
	f.lookups(rule)
	rule = f.chain(c, "output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	if !loopback6Works() {
		rule(destination(expr.CmpOpEq, loopback[ip6]), verdict(expr.VerdictReturn))
	}
	f.lookups(rule)
}

func (f *firewall) lookups(rule func(...[]expr.Any)) {
	for _, m := range []struct {
		family
		at, any *nftables.Set
	}{{ip4, f.at4, f.any4}, {ip6, f.at6, f.any6}} {
		words := m.size / 4
		address := []expr.Any{&expr.Payload{DestRegister: firstRegister, Base: expr.PayloadBaseNetworkHeader, Offset: m.target, Len: m.size}}
		service := func(register uint32) []expr.Any {
			return []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
				&expr.Payload{DestRegister: register + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			}
		}
		dnat := func(set *nftables.Set) []expr.Any {
			return []expr.Any{
				&expr.Lookup{SourceRegister: firstRegister, DestRegister: firstRegister, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(m.proto), RegAddrMin: firstRegister, RegProtoMin: firstRegister + words, Specified: true},
			}
		}
		rule(m.only(), local(), address, service(firstRegister+words), dnat(m.at))
		rule(m.only(), local(), service(firstRegister), dnat(m.any))
	}
}

// postrouting hides containers behind the host's address on the way out.
func (f *firewall) postrouting(c *nftables.Conn, networks []*netState) {
	rule := f.chain(c, "postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	for _, s := range networks {
		for _, n := range s.families() {
			// From a loopback address to a published port: the container could not
			// answer that.
			rule(to(s.Bridge), source(loopback[familyOf(n.Gateway)]), masquerade())
			// A container to itself, or its neighbour, through a published port.
			rule(to(s.Bridge), source(n.Subnet), translated(), masquerade())
			if s.Internal || !s.masquerade || n.mode == modeRouted {
				continue
			}
			hide := masquerade()
			if n == s.ip4 && s.host4.IsValid() {
				hide = sourceNAT(s.host4)
			} else if n == s.ip6 && s.host6.IsValid() {
				hide = sourceNAT(s.host6)
			}
			// Other containers see who it is.
			rule(oneOf(expr.MetaKeyOIFNAME, f.bridges, true), source(n.Subnet), hide)
		}
	}
}

// forward keeps networks apart and containers out of other hosts' reach, except
// through published ports.
func (f *firewall) forward(c *nftables.Conn, networks []*netState) {
	rule := f.chain(c, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	accept, drop := verdict(expr.VerdictAccept), verdict(expr.VerdictDrop)
	rule(jump(chainUser))
	rule(established(), accept)
	for _, s := range networks {
		if s.Internal {
			rule(from(s.Bridge), notTo(s.Bridge), drop)
			rule(notFrom(s.Bridge), to(s.Bridge), drop)
		}
	}
	rule(oneOf(expr.MetaKeyOIFNAME, f.bridges, false), translated(), jump(f.published(c)))
	for _, s := range networks {
		if s.Internal {
			continue
		}
		// To another network.
		rule(from(s.Bridge), notTo(s.Bridge), oneOf(expr.MetaKeyOIFNAME, f.bridges, false), drop)
		for _, n := range s.families() {
			f.reach(rule, s, n)
		}
	}
}

// reach is what another host may send to a container without translation.
func (f *firewall) reach(rule func(...[]expr.Any), s *netState, n *subnet) {
	family := familyOf(n.Gateway)
	inbound := concat(notFrom(s.Bridge), to(s.Bridge), family.only())
	switch n.mode {
	case modeUnprotected:
		return
	case modeRouted:
		open := f.open4
		if family == ip6 {
			open = f.open6
		}
		words := family.size / 4
		if !f.restricted {
			rule(inbound, []expr.Any{
				&expr.Payload{DestRegister: firstRegister, Base: expr.PayloadBaseNetworkHeader, Offset: family.target, Len: family.size},
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: firstRegister + words},
				&expr.Payload{DestRegister: firstRegister + words + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				&expr.Lookup{SourceRegister: firstRegister, SetName: open.Name, SetID: open.ID},
			}, verdict(expr.VerdictAccept))
			rule(inbound, family.echo(), verdict(expr.VerdictAccept))
		}
	}
	rule(inbound, verdict(expr.VerdictDrop))
}

// guard undoes what route_localnet would allow: packets from a bridge to the
// host's loopback.
func (f *firewall) guard(c *nftables.Conn) {
	rule := f.chain(c, "guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	for _, family := range families {
		rule(oneOf(expr.MetaKeyIIFNAME, f.bridges, false), destination(expr.CmpOpEq, loopback[family]), verdict(expr.VerdictDrop))
	}
}
