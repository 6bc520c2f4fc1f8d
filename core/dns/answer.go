package dns

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// ttl of answers about containers, in seconds. They change at any time and are
// answered on this machine: there is nothing to be won by keeping them.
const ttl = 0

// accept looks at the head of a packet, before anything is allocated for the rest
// of it.
func accept(h dns.Header) dns.MsgAcceptAction {
	const response, opcode = 1 << 15, 0xf << 11
	switch {
	case h.Bits&response != 0:
		return dns.MsgIgnore // answering answers would never end
	case h.Bits&opcode != 0:
		return dns.MsgRejectNotImplemented // only QUERY, which is zero
	case h.Qdcount != 1, h.Ancount > 0, h.Nscount > 1, h.Arcount > 2:
		return dns.MsgReject
	}
	return dns.MsgAccept
}

// answer is the whole answer to a question that came over a network ("udp" or
// "tcp"), in the size that the asker can take.
func (c *client) answer(ctx context.Context, network string, question *dns.Msg) *dns.Msg {
	m := c.decide(ctx, network, question)
	m.Compress = true
	size := dns.MaxMsgSize
	opt := question.IsEdns0()
	if network == "udp" {
		size = dns.MinMsgSize
		if opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
	}
	m.Truncate(size)
	return m
}

func (c *client) decide(ctx context.Context, network string, question *dns.Msg) *dns.Msg {
	switch {
	case question.Opcode != dns.OpcodeQuery:
		return reply(question, dns.RcodeNotImplemented)
	case len(question.Question) != 1 || extensions(question) > 1:
		return reply(question, dns.RcodeFormatError)
	}
	if opt := question.IsEdns0(); opt != nil && opt.Version() != 0 {
		return reply(question, dns.RcodeBadVers)
	}
	q := question.Question[0]
	if q.Qclass == dns.ClassINET || q.Qclass == dns.ClassANY {
		if m := c.local(question, q); m != nil {
			return m
		}
	}
	switch q.Qtype {
	case dns.TypeAXFR, dns.TypeIXFR:
		return reply(question, dns.RcodeRefused) // of many messages, and no resolver's business
	case dns.TypeA, dns.TypeAAAA:
		if c.Local && dns.CountLabel(q.Name) == 1 {
			return reply(question, dns.RcodeSuccess)
		}
	}
	return c.forward(ctx, network, question)
}

// extensions counts EDNS records, of which there may be one (RFC 6891).
func extensions(m *dns.Msg) int {
	n := 0
	for _, rr := range m.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			n++
		}
	}
	return n
}

// local answers about names and addresses of containers; nil if there is none.
func (c *client) local(question *dns.Msg, q dns.Question) *dns.Msg {
	name := strings.TrimSuffix(q.Name, ".")
	if address, ok := reverseAddress(name); ok {
		found, known := c.server.Reverse(c.ID, address)
		if !known {
			return nil
		}
		if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
			return records(question, &dns.PTR{Hdr: header(q, dns.TypePTR), Ptr: dns.Fqdn(found)})
		}
		return records(question)
	}
	addresses, known := c.server.Lookup(c.ID, name)
	if !known {
		return nil
	}
	return records(question, addressRecords(q, addresses)...)
}

func addressRecords(q dns.Question, addresses []netip.Addr) []dns.RR {
	var list []dns.RR
	for _, a := range addresses {
		switch {
		case a.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
			list = append(list, &dns.A{Hdr: header(q, dns.TypeA), A: a.AsSlice()})
		case a.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
			list = append(list, &dns.AAAA{Hdr: header(q, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

func header(q dns.Question, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// records answers with what is known about a name that exists. Without records
// of the kind that is neither an error nor somebody else's to know: programs would
// give up on the name instead of using its other records.
func records(question *dns.Msg, list ...dns.RR) *dns.Msg {
	m := reply(question, dns.RcodeSuccess)
	m.Authoritative = true
	m.Answer = list
	if len(list) == 0 {
		// Says for how long there is nothing (RFC 2308): each name is its own zone.
		q := question.Question[0]
		m.Ns = []dns.RR{&dns.SOA{Hdr: header(q, dns.TypeSOA), Ns: q.Name, Mbox: ".", Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: ttl}}
	}
	return m
}

// reply is an answer without records.
func reply(question *dns.Msg, code int) *dns.Msg {
	m := new(dns.Msg).SetRcode(question, code)
	m.RecursionAvailable = true
	if opt := question.IsEdns0(); opt != nil {
		m.SetEdns0(largestQuestion, opt.Do())
	}
	return m
}
