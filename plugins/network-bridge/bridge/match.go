package bridge

import (
	"errors"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The pieces that rules are put together from.

func concat(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

// ifname is an interface's name as the kernel compares it.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func interfaceIs(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: ifname(name)}}
}

func from(name string) []expr.Any {
	return interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, name)
}

func notFrom(name string) []expr.Any {
	return interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, name)
}

func to(name string) []expr.Any {
	return interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, name)
}

func notTo(name string) []expr.Any {
	return interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, name)
}

// oneOf matches an interface in a set, or one that is not.
func oneOf(key expr.MetaKey, set *nftables.Set, invert bool) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID, Invert: invert}}
}

// family is an address family as the rules need it: where the addresses are in
// the header (RFC 791, RFC 8200) and how long.
type family struct {
	proto          byte
	source, target uint32 // offsets
	size           uint32
}

var (
	ip4 = family{unix.NFPROTO_IPV4, 12, 16, 4}
	ip6 = family{unix.NFPROTO_IPV6, 8, 24, 16}
)

var families = []family{ip4, ip6}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ip4
	}
	return ip6
}

// only matches packets of the family; everything about addresses comes after it.
func (f family) only() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.proto}}}
}

// source matches the source address and, before it, the family.
func source(p netip.Prefix) []expr.Any {
	f := familyOf(p.Addr())
	return append(f.only(), f.address(f.source, expr.CmpOpEq, p)...)
}

// destination matches the destination address and, before it, the family.
func destination(op expr.CmpOp, p netip.Prefix) []expr.Any {
	f := familyOf(p.Addr())
	return append(f.only(), f.address(f.target, op, p)...)
}

func (f family) address(offset uint32, op expr.CmpOp, p netip.Prefix) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: f.size, Mask: net.CIDRMask(p.Bits(), int(f.size)*8), Xor: make([]byte, f.size)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

// local matches packets to an address of this host.
func local() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

const ipsDstNAT = 1 << 5 // IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h

// translated matches connections whose destination was changed.
func translated() []expr.Any { return bits(expr.CtKeySTATUS, ipsDstNAT) }

// established matches packets of connections that have begun.
func established() []expr.Any {
	return bits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

func bits(key expr.CtKey, any uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(any), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// echo matches echo requests (RFC 792, RFC 4443).
func (f family) echo() []expr.Any {
	proto, kind := byte(unix.IPPROTO_ICMP), byte(8)
	if f == ip6 {
		proto, kind = unix.IPPROTO_ICMPV6, 128
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{kind}},
	}
}

func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

// sourceNAT gives packets the source address a.
func sourceNAT(a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(familyOf(a).proto), RegAddrMin: 1},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// isGone says that what should be removed is not there.
func isGone(err error) bool { return errors.Is(err, unix.ENOENT) }
