package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// port of name servers.
	port = 53
	// largestPacket is the size of answers that upstreams may send over UDP: what
	// passes every link in one piece (RFC 9715).
	largestPacket = 1232
)

// outgoing is a question as it goes to upstreams. Extensions are from one hop to
// the next (RFC 6891): their size is this server's, cookies and timeouts of
// connections are between others.
func outgoing(question *dns.Msg) *dns.Msg {
	m := question.Copy()
	if opt := m.IsEdns0(); opt != nil {
		opt.SetUDPSize(min(max(opt.UDPSize(), dns.MinMsgSize), largestPacket))
		opt.Option = passedOn(opt.Option)
	}
	return m
}

// incoming is an upstream's answer as it goes to the container.
func incoming(answer, question *dns.Msg) *dns.Msg {
	answer.Id, answer.Question = question.Id, question.Question
	answer.RecursionAvailable = true
	opt := answer.IsEdns0()
	switch {
	case opt != nil && question.IsEdns0() == nil:
		answer.Extra = slices.DeleteFunc(answer.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
		answer.Rcode &= 0xf // the rest of it has no place any more
	case opt != nil:
		opt.SetUDPSize(largestQuestion)
		opt.Option = passedOn(opt.Option)
	}
	return answer
}

func passedOn(options []dns.EDNS0) []dns.EDNS0 {
	return slices.DeleteFunc(options, func(o dns.EDNS0) bool {
		switch o.Option() {
		case dns.EDNS0COOKIE, dns.EDNS0TCPKEEPALIVE, dns.EDNS0PADDING:
			return true
		}
		return false
	})
}

var errNotTheAnswer = errors.New("not the answer to the question")

// check reads an answer, which must be one to the question: whoever guesses ports
// may send anything.
func check(packet []byte, question *dns.Msg) (*dns.Msg, error) {
	if len(packet) < 12 || binary.BigEndian.Uint16(packet) != question.Id {
		return nil, errNotTheAnswer
	}
	m := new(dns.Msg)
	if err := m.Unpack(packet); err != nil {
		return nil, err
	}
	if !m.Response || m.Opcode != question.Opcode {
		return nil, errNotTheAnswer
	}
	if len(m.Question) == 0 && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return m, nil // some do not repeat what they could not read
	}
	if len(m.Question) != 1 {
		return nil, errNotTheAnswer
	}
	got, want := m.Question[0], question.Question[0]
	if got.Qtype != want.Qtype || got.Qclass != want.Qclass || !strings.EqualFold(got.Name, want.Name) {
		return nil, errNotTheAnswer
	}
	return m, nil
}

// buffers are for answers over UDP, which may be longer than they should: some
// name servers do not know of limits.
var buffers = sync.Pool{New: func() any { return new([8192]byte) }}

// exchange sends a question to one upstream, with an ID and from a port of its
// own, and reads the answer.
func (c *client) exchange(ctx context.Context, u upstream, network string, question *dns.Msg) (*dns.Msg, error) {
	sent := *question
	sent.Id = dns.Id()
	packet, err := sent.Pack()
	if err != nil {
		return nil, err
	}
	conn, err := u.ns.dial(ctx, c.server.host, network, netip.AddrPortFrom(u.address, port))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if network == "tcp" {
		return exchangeStream(conn, packet, &sent)
	}
	if _, err := conn.Write(packet); err != nil {
		return nil, err
	}
	b := buffers.Get().(*[8192]byte)
	defer buffers.Put(b)
	for {
		n, err := conn.Read(b[:])
		if err != nil {
			return nil, err
		}
		// What is not the answer may be forged: the answer may still come.
		if m, err := check(b[:n], &sent); err == nil {
			return m, nil
		}
	}
}

func exchangeStream(conn io.ReadWriter, packet []byte, question *dns.Msg) (*dns.Msg, error) {
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	return check(answer, question)
}
