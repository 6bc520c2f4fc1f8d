// Package dns is the name server of containers: it listens at 127.0.0.11 inside
// each container's network namespace, answers the names of containers that share
// a network, and forwards the rest.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

const (
	// ttl of answers about containers, in seconds: they may change at any time.
	ttl = 5
	// askTimeout bounds one question to one upstream.
	askTimeout = 3 * time.Second
	// parallel bounds questions that are being forwarded, over all containers.
	parallel = 1024
)

// Options are what a server is made of.
type Options struct {
	// Lookup answers the addresses of a name as a container sees it, and whether
	// the name is a container's at all.
	Lookup func(containerID, name string) (addresses []netip.Addr, known bool)
	// Reverse answers the name of an address.
	Reverse func(containerID string, address netip.Addr) (name string, known bool)
	// Upstreams answers where other questions of a container go; none: nowhere.
	Upstreams func(containerID string) []netip.Addr
	Log       *slog.Logger
}

// Server answers all containers' questions.
type Server struct {
	Options
	slots chan struct{}

	mu      sync.Mutex
	clients map[string]*listener
}

// Client is a container that asks.
type Client struct {
	ID        string
	Netns     string       // path of its network namespace
	Upstreams []netip.Addr // its own choice (--dns), instead of Options.Upstreams
	Search    []string
}

// listener is a client's two sockets.
type listener struct {
	udp, tcp *dns.Server
	done     sync.WaitGroup
}

// New makes a server that listens nowhere yet.
func New(o Options) *Server {
	return &Server{Options: o, slots: make(chan struct{}, parallel), clients: map[string]*listener{}}
}

// Serve opens the sockets in a container's namespace. Idempotent by ID.
func (s *Server) Serve(_ context.Context, c Client) error {
	s.mu.Lock()
	_, known := s.clients[c.ID]
	s.mu.Unlock()
	if known {
		return nil
	}
	packets, stream, err := listen(c.Netns)
	if err != nil {
		return fmt.Errorf("name server in %s: %w", c.Netns, err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) { s.answer(w, question, c) })
	l := &listener{
		udp: &dns.Server{PacketConn: packets, Handler: handler, UDPSize: 4096},
		tcp: &dns.Server{Listener: stream, Handler: handler},
	}
	for _, server := range []*dns.Server{l.udp, l.tcp} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		l.done.Go(func() {
			if err := server.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
				s.Log.Warn("name server of a container ended", "container", c.ID, "error", err)
			}
		})
		<-started
	}
	s.mu.Lock()
	s.clients[c.ID] = l
	s.mu.Unlock()
	return nil
}

// Stop closes a container's sockets. Idempotent.
func (s *Server) Stop(containerID string) {
	s.mu.Lock()
	l := s.clients[containerID]
	delete(s.clients, containerID)
	s.mu.Unlock()
	if l != nil {
		l.close()
	}
}

func (l *listener) close() {
	// Shutting down also ends the connections that clients keep open.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = l.udp.ShutdownContext(ctx)
	_ = l.tcp.ShutdownContext(ctx)
	_ = l.udp.PacketConn.Close()
	_ = l.tcp.Listener.Close()
	l.done.Wait()
}

// Close stops all.
func (s *Server) Close() {
	s.mu.Lock()
	clients := s.clients
	s.clients = map[string]*listener{}
	s.mu.Unlock()
	for _, l := range clients {
		l.close()
	}
}

// listen opens sockets on the name server's address at ports of the kernel's
// choice, and redirects port 53 to them: the container may use that port itself.
func listen(netns string) (packets net.PacketConn, stream net.Listener, err error) {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends in that namespace
		result <- func() error {
			fd, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
			if err != nil {
				return fmt.Errorf("joining: %w", err)
			}
			// A socket belongs to the namespace of the thread that makes it. Literal
			// addresses: nothing is resolved on another thread.
			if packets, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 11)}); err != nil {
				return err
			}
			if stream, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 11)}); err != nil {
				return err
			}
			return redirect(packets.LocalAddr().(*net.UDPAddr).Port, stream.Addr().(*net.TCPAddr).Port)
		}()
	}()
	if err = <-result; err != nil {
		if packets != nil {
			_ = packets.Close()
		}
		if stream != nil {
			_ = stream.Close()
		}
		return nil, nil, err
	}
	return packets, stream, nil
}

// answer answers one question.
func (s *Server) answer(w dns.ResponseWriter, question *dns.Msg, c Client) {
	if len(question.Question) != 1 {
		s.reply(w, question, dns.RcodeFormatError, nil)
		return
	}
	q := question.Question[0]
	name := strings.TrimSuffix(q.Name, ".")
	if q.Qtype == dns.TypePTR {
		if address, ok := reverseAddress(name); ok {
			if found, known := s.Reverse(c.ID, address); known {
				s.reply(w, question, dns.RcodeSuccess, []dns.RR{&dns.PTR{Hdr: header(q), Ptr: dns.Fqdn(found)}})
				return
			}
		}
		s.forward(w, question, c)
		return
	}
	addresses, known := s.Lookup(c.ID, name)
	if !known {
		s.forward(w, question, c)
		return
	}
	var records []dns.RR
	for _, a := range addresses {
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			records = append(records, &dns.A{Hdr: header(q), A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			records = append(records, &dns.AAAA{Hdr: header(q), AAAA: a.AsSlice()})
		}
	}
	shuffle(records)
	// A name without such records exists all the same: no error, no answer.
	s.reply(w, question, dns.RcodeSuccess, records)
}

func header(q dns.Question) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
}

func (s *Server) reply(w dns.ResponseWriter, question *dns.Msg, code int, records []dns.RR) {
	m := new(dns.Msg)
	m.SetRcode(question, code)
	m.RecursionAvailable = true
	m.Answer = records
	s.send(w, question, m)
}

// send writes an answer in the size that the client can take.
func (s *Server) send(w dns.ResponseWriter, question, m *dns.Msg) {
	if _, ok := w.LocalAddr().(*net.UDPAddr); ok {
		size := dns.MinMsgSize
		if opt := question.IsEdns0(); opt != nil {
			size = int(opt.UDPSize())
		}
		m.Truncate(size)
	}
	if err := w.WriteMsg(m); err != nil {
		s.Log.Debug("answering a name question", "error", err)
	}
}

// forward asks the upstreams one after the other, from the host's network.
func (s *Server) forward(w dns.ResponseWriter, question *dns.Msg, c Client) {
	upstreams := s.Upstreams(c.ID)
	if len(c.Upstreams) > 0 && upstreams != nil {
		upstreams = c.Upstreams
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		s.reply(w, question, dns.RcodeServerFailure, nil)
		return
	}
	network := "udp"
	if _, ok := w.LocalAddr().(*net.TCPAddr); ok {
		network = "tcp"
	}
	client := &dns.Client{Net: network, Timeout: askTimeout, UDPSize: 4096}
	for _, upstream := range upstreams {
		answer, _, err := client.Exchange(question, netip.AddrPortFrom(upstream, 53).String())
		if err != nil {
			s.Log.Debug("asking an upstream name server", "server", upstream, "error", err)
			continue
		}
		s.send(w, question, answer)
		return
	}
	s.reply(w, question, dns.RcodeServerFailure, nil)
}
