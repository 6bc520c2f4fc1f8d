package dns

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/miekg/dns"
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
	return errors.Join(conn.Flush(), conn.CloseLasting())
}

// reverseAddress reads the address of a reverse name ("4.3.2.1.in-addr.arpa", or
// 32 hexadecimal digits below "ip6.arpa", RFC 3596).
func reverseAddress(name string) (netip.Addr, bool) {
	name = strings.ToLower(name)
	if digits, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		return reverseAddress6(digits)
	}
	labels, ok := strings.CutSuffix(name, ".in-addr.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(labels, ".")
	if len(parts) != 4 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
	return a, err == nil
}

// reverseAddress6 reads the digits of an IPv6 address, the last one first.
func reverseAddress6(digits string) (netip.Addr, bool) {
	const length = 63 // 32 digits and the dots between them
	if len(digits) != length {
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i := length - 1; i >= 0; i-- {
		switch isDot := i%2 == 1; {
		case isDot != (digits[i] == '.'):
			return netip.Addr{}, false
		case !isDot:
			text.WriteByte(digits[i])
		}
	}
	var b [16]byte
	if _, err := hex.Decode(b[:], []byte(text.String())); err != nil {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16(b), true
}

func shuffle(records []dns.RR) {
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
}
