package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// chain is a chain of nftables as the kernel lists it.
type chain struct {
	table, name string
	hook        uint32 // only of base chains
	isBase      bool
	drops       bool // by its policy
}

// checkFirewall says who reaches published ports, and which chains of others
// stand in the way: what one chain drops, no other can let through.
func checkFirewall(context.Context, *app) []finding {
	var list []finding
	firewalld := false
	chains, err := listChains()
	if err != nil {
		return nil // checkNftables says why
	}
	for _, c := range chains {
		if c.table == "firewalld" && !firewalld {
			firewalld = true
			list = append(list, finding{"forwarding", "firewalld rejects packets of interfaces that are in none of its zones", doubtful,
				"firewall-cmd --permanent --zone=trusted --add-interface=davit0 (and other networks' bridges), then firewall-cmd --reload"})
		}
		switch {
		case c.name == "published-open":
			list = append(list, finding{"published ports", "open to other hosts, past the host's input rules (table " + c.table + ")", good, ""})
		case c.name == "published-restricted":
			list = append(list, finding{"published ports", "closed to other hosts except what chain user accepts (table " + c.table + ")", good, ""})
		case c.isBase && c.hook == unix.NF_INET_FORWARD && c.drops:
			list = append(list, finding{"forwarding", "chain " + c.name + " of table " + c.table + " drops what it does not accept: containers' packets, too", doubtful,
				"accept packets from and to davit's bridges there (with Docker installed: in chain DOCKER-USER)"})
		}
	}
	const bridged = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
	if body, err := os.ReadFile(bridged); err == nil && strings.TrimSpace(string(body)) == "1" {
		list = append(list, finding{"::1", "published ports of IPv6 networks are not reached at ::1", doubtful, "sysctl net.bridge.bridge-nf-call-ip6tables=0, unless somebody filters bridged packets"})
	}
	return list
}

// listChains asks the kernel for all chains (struct nlmsghdr and nfgenmsg of
// netlink(7) and nfnetlink.h).
func listChains() ([]chain, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	message := make([]byte, 20)
	binary.NativeEndian.PutUint32(message[0:], uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETCHAIN)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var list []chain
	answer := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, answer, 0)
		if err != nil {
			return nil, err
		}
		some, done, err := readChains(answer[:n])
		list = append(list, some...)
		if done || err != nil {
			return list, err
		}
	}
}

// readChains reads one datagram of the kernel's answer; done says that it was
// the last.
func readChains(data []byte) (list []chain, done bool, err error) {
	for len(data) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(data))
		if size < unix.NLMSG_HDRLEN || size > len(data) {
			return list, true, fmt.Errorf("netlink message of %d bytes", size)
		}
		kind, body := binary.NativeEndian.Uint16(data[4:]), data[unix.NLMSG_HDRLEN:size]
		data = data[min((size+3)&^3, len(data)):]
		switch kind {
		case unix.NLMSG_DONE:
			return list, true, nil
		case unix.NLMSG_ERROR:
			if len(body) >= 4 {
				if code := -int32(binary.NativeEndian.Uint32(body)); code != 0 {
					return list, true, unix.Errno(code)
				}
			}
			return list, true, nil
		}
		if len(body) >= 4 {
			list = append(list, readChain(body[4:]))
		}
	}
	return list, false, nil
}

// readChain reads the attributes of a chain (nf_tables.h).
func readChain(data []byte) chain {
	var c chain
	text := func(value []byte) string { return strings.TrimRight(string(value), "\x00") }
	attributes(data, func(kind uint16, value []byte) {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			c.table = text(value)
		case unix.NFTA_CHAIN_NAME:
			c.name = text(value)
		case unix.NFTA_CHAIN_HOOK:
			c.isBase = true
			attributes(value, func(kind uint16, value []byte) {
				if kind == unix.NFTA_HOOK_HOOKNUM && len(value) == 4 {
					c.hook = binary.BigEndian.Uint32(value)
				}
			})
		case unix.NFTA_CHAIN_POLICY:
			const drop = 0 // NF_DROP
			c.drops = len(value) == 4 && binary.BigEndian.Uint32(value) == drop
		}
	})
	return c
}

// attributes calls fn for each attribute of a netlink message.
func attributes(data []byte, fn func(kind uint16, value []byte)) {
	for len(data) >= 4 {
		size := int(binary.NativeEndian.Uint16(data))
		if size < 4 || size > len(data) {
			return
		}
		fn(binary.NativeEndian.Uint16(data[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), data[4:size])
		data = data[min((size+3)&^3, len(data)):]
	}
}
