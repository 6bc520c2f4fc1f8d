package dns

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

const (
	// patience is how long a question may take upstream, over all name servers.
	// Resolvers ask again, or give up, after five seconds.
	patience = 4500 * time.Millisecond
	// most name servers that are asked, as the C libraries' resolvers do.
	most = 3
	// forwardMost is how many questions of one container are being forwarded at
	// once. Each has a socket, so that its port cannot be guessed.
	forwardMost = 1024
	// busyInterval is between two log lines that say that a limit is reached.
	busyInterval = 2 * time.Second
)

// limits bounds what is going on at once.
type limits struct {
	most int64
	now  atomic.Int64
}

func (l *limits) enter() bool {
	if l.now.Add(1) > l.most {
		l.now.Add(-1)
		return false
	}
	return true
}

func (l *limits) leave() { l.now.Add(-1) }

// descriptorShare is how many sockets all containers' forwarded questions may
// have: the engine needs descriptors for the rest of its work.
func descriptorShare() int64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return forwardMost
	}
	return int64(min(limit.Cur/4, 1<<20))
}

// occasional says what happens often once in a while.
type occasional struct{ next atomic.Int64 }

func (o *occasional) warn(log *slog.Logger, text string, args ...any) {
	now, next := time.Now().UnixNano(), o.next.Load()
	if now >= next && o.next.CompareAndSwap(next, now+int64(busyInterval)) {
		log.Warn(text, args...)
	}
}

// upstream is a name server and where it is asked from.
type upstream struct {
	ns      *namespace
	address netip.Addr
}

// upstreams are those of a container: its own on its own network, or the host's.
func (c *client) upstreams() []upstream {
	var list []upstream
	for _, a := range c.Servers {
		if a != netip.AddrFrom4([4]byte{127, 0, 0, 11}) { // that is this server
			list = append(list, upstream{c.ns, a})
		}
	}
	if len(c.Servers) == 0 {
		for _, a := range c.server.Upstreams(c.ID) {
			list = append(list, upstream{c.server.host, a})
		}
	}
	return list[:min(len(list), most)]
}

// forward asks the upstreams one after the other. One that does not answer, or
// cannot, is followed by the next; what it said stands if nobody knows better.
func (c *client) forward(ctx context.Context, network string, question *dns.Msg) *dns.Msg {
	list := c.upstreams()
	if len(list) == 0 {
		return reply(question, dns.RcodeServerFailure)
	}
	for _, l := range []*limits{&c.limits, &c.server.limits} {
		if !l.enter() {
			c.busy.warn(c.server.Log, "too many questions wait for name servers: more are refused", "container", c.ID, "limit", l.most)
			return reply(question, dns.RcodeRefused)
		}
		defer l.leave()
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sent := outgoing(question)
	var failure *dns.Msg
	for i, u := range list {
		if ctx.Err() != nil {
			break
		}
		answer, err := c.ask(ctx, u, len(list)-i, network, sent)
		if err != nil {
			c.server.Log.Debug("asking a name server", "container", c.ID, "server", u.address, "error", err)
			continue
		}
		answer = incoming(answer, question)
		if answer.Rcode != dns.RcodeServerFailure && answer.Rcode != dns.RcodeRefused {
			return answer
		}
		failure = answer
	}
	if failure == nil {
		failure = reply(question, dns.RcodeServerFailure)
	}
	return failure
}

// ask asks one upstream, which has its share of the time that is left. An answer
// that was too long for a packet is fetched over TCP.
func (c *client) ask(ctx context.Context, u upstream, left int, network string, question *dns.Msg) (*dns.Msg, error) {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
	defer cancel()
	answer, err := c.exchange(ctx, u, network, question)
	if err != nil || !answer.Truncated || network == "tcp" {
		return answer, err
	}
	if whole, err := c.exchange(ctx, u, "tcp", question); err == nil {
		return whole, nil
	}
	return answer, nil // its beginning, marked as such
}
