package main

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

func message(kind uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(append(b, make([]byte, 10)...), body...)
}

// chainListing is what the kernel says about a base chain that drops and one that is
// called.
func chainListing() []byte {
	const newChain = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWCHAIN
	base := slices.Concat([]byte{unix.NFPROTO_IPV4, 0, 0, 0}, attribute(unix.NFTA_CHAIN_TABLE, []byte("filter\x00")), attribute(unix.NFTA_CHAIN_NAME, []byte("FORWARD\x00")),
		attribute(unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, attribute(unix.NFTA_HOOK_HOOKNUM, binary.BigEndian.AppendUint32(nil, unix.NF_INET_FORWARD))),
		attribute(unix.NFTA_CHAIN_POLICY, binary.BigEndian.AppendUint32(nil, 0)))
	called := slices.Concat([]byte{unix.NFPROTO_INET, 0, 0, 0}, attribute(unix.NFTA_CHAIN_TABLE, []byte("davit\x00")), attribute(unix.NFTA_CHAIN_NAME, []byte("published-open\x00")))
	return slices.Concat(message(newChain, base), message(newChain, called), message(unix.NLMSG_DONE, make([]byte, 4)))
}

func TestChainsAreRead(t *testing.T) {
	list, done, err := readChains(chainListing())
	want := []chain{{table: "filter", name: "FORWARD", hook: unix.NF_INET_FORWARD, isBase: true, drops: true}, {table: "davit", name: "published-open"}}
	if err != nil || !done || !slices.Equal(list, want) {
		t.Errorf("%+v, %v, %v; want %+v", list, done, err, want)
	}
}

func FuzzReadChains(f *testing.F) {
	f.Add(chainListing())
	f.Fuzz(func(_ *testing.T, data []byte) { _, _, _ = readChains(data) })
}
