package dns

import (
	"encoding/binary"
	"errors"
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// redirect changes the destination of the container's own questions to
// 127.0.0.11:53 to the server's ports. It runs on a thread inside the
// container's namespace and replaces what an engine before left there.
func redirect(udp, tcp int) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "davit-dns"}
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{Name: "output", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest})
	for proto, port := range map[byte]int{unix.IPPROTO_UDP: udp, unix.IPPROTO_TCP: tcp} {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{127, 0, 0, 11}},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, 53)},
			&expr.Immediate{Register: 1, Data: []byte{127, 0, 0, 11}},
			&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, uint16(port))},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
		}})
	}
	if err := errors.Join(conn.Flush(), conn.CloseLasting()); err != nil {
		return err
	}
	_, _ = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, &former{uint16(udp), uint16(tcp)})
	return nil
}

// former are flows to where the engine before this one listened: the kernel
// evaluates the rules anew for them when they are deleted, so that sockets which
// programs keep are answered again. A kernel that cannot be told forgets by
// itself, after two minutes of silence. New flows are none of them: their answers
// would not be translated any more.
type former struct{ udp, tcp uint16 }

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f *former) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	now := f.udp
	if flow.Forward.Protocol == unix.IPPROTO_TCP {
		now = f.tcp
	}
	return flow.Forward.DstIP.Equal(net.IPv4(127, 0, 0, 11)) && flow.Reverse.SrcPort != now
}
