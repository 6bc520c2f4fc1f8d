// Package dns is the name server of containers: it listens at 127.0.0.11 inside
// each container's network namespace, answers the names of containers that share
// a network, and forwards the rest. It knows no networks: what is called how, and
// where other questions go, is its user's to say.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// largestQuestion that is read over UDP, in bytes; answers say so (RFC 6891).
	largestQuestion = 4096
	// idle is how long the kernel may keep a server's thread asleep; the library
	// wakes up that often to see whether it is to end, which it is told otherwise.
	idle = time.Hour
	// stopTimeout bounds how long the end of one container's server takes.
	stopTimeout = time.Second
)

// Options are what a server is made of.
type Options struct {
	// Lookup answers the addresses of a name as a container sees it, and whether
	// there is such a name at all. Names come without the dot at their end and in
	// the letters the container used.
	Lookup func(containerID, name string) (addresses []netip.Addr, known bool)
	// Reverse answers the name of an address.
	Reverse func(containerID string, address netip.Addr) (name string, known bool)
	// Upstreams answers the host's name servers that a container may use; they are
	// asked from the host's network. None: the container has no way out.
	Upstreams func(containerID string) []netip.Addr
	Log       *slog.Logger
}

// Server answers all containers' questions.
type Server struct {
	Options
	host   *namespace
	limits limits

	mu      sync.Mutex
	clients map[string]*client
}

// Client is a container that asks.
type Client struct {
	ID    string
	Netns string // path of its network namespace
	// Servers are asked instead of Options.Upstreams (--dns), and from the
	// container's own network: they may be on it.
	Servers []netip.Addr
	// Local names without a dot are not forwarded: the container's resolver asks
	// again with its search domains.
	Local bool
}

// client is a container's server; its sockets are open or about to be.
type client struct {
	Client
	server *Server
	limits limits
	busy   occasional

	mu       sync.Mutex // held while sockets are opened and closed
	ns       *namespace
	ctx      context.Context // of what is forwarded
	cancel   context.CancelFunc
	udp, tcp *dns.Server
	done     sync.WaitGroup
}

// New makes a server that listens nowhere yet.
func New(o Options) (*Server, error) {
	host, err := openNamespace("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("name server: %w", err)
	}
	return &Server{Options: o, host: host, limits: limits{most: descriptorShare()}, clients: map[string]*client{}}, nil
}

// Serve opens the sockets in a container's namespace. Idempotent by ID.
func (s *Server) Serve(_ context.Context, c Client) error {
	s.mu.Lock()
	known, ok := s.clients[c.ID]
	if !ok {
		known = &client{Client: c, server: s, limits: limits{most: forwardMost}}
		s.clients[c.ID] = known
	}
	s.mu.Unlock()
	if err := known.open(); err != nil {
		s.mu.Lock()
		if s.clients[c.ID] == known {
			delete(s.clients, c.ID)
		}
		s.mu.Unlock()
		return fmt.Errorf("name server in %s: %w", c.Netns, err)
	}
	return nil
}

// Stop closes a container's sockets. Idempotent.
func (s *Server) Stop(containerID string) {
	s.mu.Lock()
	c := s.clients[containerID]
	delete(s.clients, containerID)
	s.mu.Unlock()
	if c != nil {
		c.close()
	}
}

// Close stops all.
func (s *Server) Close() {
	s.mu.Lock()
	clients := s.clients
	s.clients = map[string]*client{}
	s.mu.Unlock()
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(c.close)
	}
	all.Wait()
	s.host.close()
}

func (c *client) open() (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.udp != nil {
		return nil
	}
	ns, err := openNamespace(c.Netns)
	if err != nil {
		return err
	}
	packets, stream, err := listen(ns)
	if err != nil {
		ns.close()
		return err
	}
	c.ns = ns
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.udp = &dns.Server{PacketConn: packets, UDPSize: largestQuestion, ReadTimeout: idle}
	c.tcp = &dns.Server{Listener: &streams{stream, c.ctx, make(chan struct{}, connections)}}
	for network, server := range map[string]*dns.Server{"udp": c.udp, "tcp": c.tcp} {
		server.MsgAcceptFunc = accept
		server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
			if err := w.WriteMsg(c.answer(c.ctx, network, question)); err != nil {
				c.server.Log.Debug("answering a container's question", "container", c.ID, "error", err)
				_ = w.Close() // a connection, behind part of an answer
			}
		})
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		c.done.Go(func() {
			if err := server.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
				c.server.Log.Warn("name server of a container ended", "container", c.ID, "error", err)
			}
		})
		<-started
	}
	return nil
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.udp == nil {
		return
	}
	c.cancel() // what is being forwarded has nobody left to be for; connections end
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for _, server := range []*dns.Server{c.udp, c.tcp} {
		if err := server.ShutdownContext(ctx); err != nil {
			c.server.Log.Debug("stopping the name server of a container", "container", c.ID, "error", err)
		}
	}
	c.done.Wait()
	c.ns.close()
}
