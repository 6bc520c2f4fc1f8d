package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The process's first thread stands for the whole process in /proc/self and must
// keep its namespaces: with the main goroutine locked to it, none of the
// goroutines that change those can be scheduled there.
func init() { runtime.LockOSThread() }

// container is a network namespace with a loopback device, and a thread in it.
type container struct {
	path string
	work chan func()
}

func newContainer(t testing.TB) *container {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	n := &container{work: make(chan func())}
	ready := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the namespace
		ready <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			n.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
			return netlink.LinkSetUp(lo)
		}()
		for do := range n.work {
			do()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(n.work) })
	return n
}

// dial connects to where a container's programs ask, on the container's thread:
// a socket belongs to the namespace of the thread that makes it.
func (n *container) dial(network string) (*dns.Conn, error) {
	var conn net.Conn
	var err error
	done := make(chan struct{})
	n.work <- func() {
		defer close(done)
		conn, err = (&net.Dialer{Timeout: 5 * time.Second}).Dial(network, "127.0.0.11:53")
	}
	<-done
	if err != nil {
		return nil, err
	}
	return &dns.Conn{Conn: conn}, conn.SetDeadline(time.Now().Add(10 * time.Second))
}

// exchange asks one question and reads one answer.
func (n *container) exchange(t testing.TB, network string, question *dns.Msg) *dns.Msg {
	t.Helper()
	conn, err := n.dial(network)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	answer, _, err := (&dns.Client{Net: network, Timeout: 10 * time.Second, UDPSize: 65535}).ExchangeWithConn(question, conn)
	if err != nil {
		t.Fatalf("%s %s: %v", network, question.Question[0].String(), err)
	}
	return answer
}

// ask asks for the records of a name over UDP.
func (n *container) ask(t testing.TB, name string, kind uint16) *dns.Msg {
	t.Helper()
	return n.exchange(t, "udp", new(dns.Msg).SetQuestion(dns.Fqdn(name), kind))
}

// names is what containers are called, by container that asks and name.
type names map[string]map[string][]netip.Addr

func (n names) lookup(containerID, name string) ([]netip.Addr, bool) {
	addresses, known := n[containerID][name]
	return addresses, known
}

func (n names) reverse(containerID string, address netip.Addr) (string, bool) {
	for name, addresses := range n[containerID] {
		for _, a := range addresses {
			if a == address {
				return name + ".front", true
			}
		}
	}
	return "", false
}

// newServer makes a server of names whose other questions go to upstreams.
func newServer(t testing.TB, known names, upstreams ...netip.Addr) *Server {
	t.Helper()
	s, err := New(Options{
		Lookup: known.lookup, Reverse: known.reverse, Log: slog.New(slog.DiscardHandler),
		Upstreams: func(string) []netip.Addr { return upstreams },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// serve makes a namespace that asks a server as a container.
func serve(t testing.TB, s *Server, c Client) *container {
	t.Helper()
	n := newContainer(t)
	c.Netns = n.path
	if err := s.Serve(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	return n
}

// teacher is a name server that others are asked for.
type teacher struct {
	address netip.Addr

	mu    sync.Mutex
	asked []string // "network name type"
}

// host is an address of the host's loopback network that no other run has.
func host(last byte) string {
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(64 + pid>>16), byte(pid >> 8), byte(pid)&0xf0 | last}).String()
}

// newUpstream serves on an address of the host's loopback network of its own:
// questions are always forwarded to port 53.
func newUpstream(t testing.TB, address string, answer func(question *dns.Msg) *dns.Msg) *teacher {
	t.Helper()
	return newTeacher(t, address, func(do func()) { do() }, answer)
}

// newUpstreamOf serves within a container's network.
func newUpstreamOf(t testing.TB, n *container, address string, answer func(question *dns.Msg) *dns.Msg) *teacher {
	t.Helper()
	return newTeacher(t, address, func(do func()) {
		done := make(chan struct{})
		n.work <- func() { defer close(done); do() }
		<-done
	}, answer)
}

func newTeacher(t testing.TB, address string, where func(func()), answer func(question *dns.Msg) *dns.Msg) *teacher {
	t.Helper()
	u := &teacher{address: netip.MustParseAddr(address)}
	at := netip.AddrPortFrom(u.address, 53).String()
	var packets net.PacketConn
	var stream net.Listener
	var err error
	where(func() {
		if packets, err = net.ListenPacket("udp", at); err == nil {
			stream, err = net.Listen("tcp", at)
		}
	})
	if packets != nil {
		t.Cleanup(func() { _ = packets.Close() })
	}
	if err != nil {
		t.Skipf("a name server on %s cannot be had: %v", at, err)
	}
	t.Cleanup(func() { _ = stream.Close() })
	for network, server := range map[string]*dns.Server{"udp": {PacketConn: packets}, "tcp": {Listener: stream}} {
		server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
			q := question.Question[0]
			u.mu.Lock()
			u.asked = append(u.asked, network+" "+q.Name+" "+dns.TypeToString[q.Qtype])
			u.mu.Unlock()
			if m := answer(question); m != nil {
				if network == "udp" && m.Len() > dns.MinMsgSize && question.IsEdns0() == nil {
					m.Truncate(dns.MinMsgSize)
				}
				_ = w.WriteMsg(m)
			}
		})
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { _ = server.ActivateAndServe() }()
		<-started
	}
	return u
}

func (u *teacher) questions() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.asked)
}

// says answers every question with an address, or with an error.
func says(address string, code int) func(*dns.Msg) *dns.Msg {
	return func(question *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetRcode(question, code)
		if address != "" {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: question.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(address)}}
		}
		return m
	}
}

func addrs(list ...string) []netip.Addr {
	addresses := []netip.Addr{}
	for _, s := range list {
		addresses = append(addresses, netip.MustParseAddr(s))
	}
	return addresses
}
