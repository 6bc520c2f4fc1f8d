package dns

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestOtherNamesAreForwarded(t *testing.T) {
	u := newUpstream(t, host(1), says("192.0.2.1", dns.RcodeSuccess))
	n := serve(t, newServer(t, names{"abc": {"web": addrs("172.20.0.2")}}, u.address), Client{ID: "abc"})
	for _, network := range []string{"udp", "tcp"} {
		m := n.exchange(t, network, new(dns.Msg).SetQuestion("example.org.", dns.TypeA))
		if m.Rcode != dns.RcodeSuccess || !slices.Equal(texts(m), []string{"192.0.2.1"}) || m.Answer[0].Header().Ttl != 60 || !m.RecursionAvailable {
			t.Errorf("%s: %s", network, m)
		}
	}
	// Names of containers, whatever is asked about them, are nobody else's matter.
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeTXT, dns.TypeSVCB} {
		n.ask(t, "web", kind)
	}
	// What is asked over TCP has a long answer: so it is asked for over TCP, too.
	if want := []string{"udp example.org. A", "tcp example.org. A"}; !slices.Equal(u.questions(), want) {
		t.Errorf("the host's name server was asked %q, want %q", u.questions(), want)
	}
}

func TestWhatDoesNotExistAnywhereIsSaidByTheUpstream(t *testing.T) {
	for _, code := range []int{dns.RcodeSuccess, dns.RcodeNameError, dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented} {
		t.Run(dns.RcodeToString[code], func(t *testing.T) {
			u := newUpstream(t, host(1), func(question *dns.Msg) *dns.Msg {
				m := new(dns.Msg).SetRcode(question, code)
				m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 77}, Ns: "a.", Mbox: "b."}}
				return m
			})
			n := serve(t, newServer(t, nil, u.address), Client{ID: "abc"})
			if m := n.ask(t, "nosuch", dns.TypeA); m.Rcode != code || len(m.Answer) != 0 || len(m.Ns) != 1 || m.Ns[0].Header().Ttl != 77 {
				t.Errorf("answer %s", m)
			}
		})
	}
}

func TestUpstreamsAreAskedInTheirOrder(t *testing.T) {
	dead := netip.MustParseAddr(host(9)) // nobody listens: refused at once
	first, second := newUpstream(t, host(1), says("192.0.2.1", dns.RcodeSuccess)), newUpstream(t, host(2), says("192.0.2.2", dns.RcodeSuccess))
	broken, refusing := newUpstream(t, host(3), says("", dns.RcodeServerFailure)), newUpstream(t, host(4), says("", dns.RcodeRefused))
	unsure := newUpstream(t, host(5), says("", dns.RcodeNameError))
	for name, c := range map[string]struct {
		hosts []netip.Addr
		want  string
	}{
		"the first":            {[]netip.Addr{first.address, second.address}, "192.0.2.1"},
		"the next":             {[]netip.Addr{dead, second.address}, "192.0.2.2"},
		"not one that cannot":  {[]netip.Addr{broken.address, refusing.address, second.address}, "192.0.2.2"},
		"one that knows of no": {[]netip.Addr{unsure.address, second.address}, "NXDOMAIN"},
		"what was said last":   {[]netip.Addr{broken.address, refusing.address, dead}, "REFUSED"},
		"three at most":        {[]netip.Addr{dead, dead, dead, first.address}, "SERVFAIL"},
		"none left":            {[]netip.Addr{dead}, "SERVFAIL"},
		"none":                 {nil, "SERVFAIL"},
	} {
		t.Run(name, func(t *testing.T) {
			n := serve(t, newServer(t, nil, c.hosts...), Client{ID: "abc"})
			for _, network := range []string{"udp", "tcp"} {
				m := n.exchange(t, network, new(dns.Msg).SetQuestion("example.org.", dns.TypeA))
				got := dns.RcodeToString[m.Rcode]
				if len(m.Answer) > 0 {
					got = texts(m)[0]
				}
				if got != c.want {
					t.Errorf("%s: %s, want %s", network, got, c.want)
				}
			}
		})
	}
}

// A container's own servers are asked from its own network: they may be on it, and
// a container without a way out reaches them all the same.
func TestOwnServersAreAskedFromTheContainersNetwork(t *testing.T) {
	host := newUpstream(t, host(1), says("192.0.2.1", dns.RcodeSuccess))
	inside := newContainer(t)
	own := newUpstreamOf(t, inside, "127.0.53.1", says("192.0.2.7", dns.RcodeSuccess))
	six := newUpstreamOf(t, inside, "::1", says("192.0.2.6", dns.RcodeSuccess))
	for name, c := range map[string]struct {
		hosts, own []netip.Addr
		want       string
	}{
		"its own":               {[]netip.Addr{host.address}, []netip.Addr{own.address}, "192.0.2.7"},
		"without a way out":     {nil, []netip.Addr{own.address}, "192.0.2.7"},
		"over IPv6":             {nil, []netip.Addr{six.address}, "192.0.2.6"},
		"the host's":            {[]netip.Addr{host.address}, nil, "192.0.2.1"},
		"its own, which is not": {[]netip.Addr{host.address}, addrs("127.0.53.9"), ""},
		"an unknown zone":       {[]netip.Addr{host.address}, addrs("fe80::1%nosuch0"), ""},
		"this server":           {[]netip.Addr{host.address}, addrs("127.0.0.11"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, nil, c.hosts...)
			if err := s.Serve(t.Context(), Client{ID: "abc", Netns: inside.path, Servers: c.own}); err != nil {
				t.Fatal(err)
			}
			for _, network := range []string{"udp", "tcp"} {
				m := inside.exchange(t, network, new(dns.Msg).SetQuestion("example.org.", dns.TypeA))
				if c.want == "" && m.Rcode != dns.RcodeServerFailure || c.want != "" && !slices.Equal(texts(m), []string{c.want}) {
					t.Errorf("%s: answer %s, want %s", network, m, c.want)
				}
			}
		})
	}
}

func TestLinkLocalUpstreamsHaveAZone(t *testing.T) {
	family, address, err := socketAddress(netip.MustParseAddrPort("[fe80::53%lo]:53"))
	if err != nil || family != 10 || fmt.Sprintf("%+v", address) == "" {
		t.Fatalf("%d %+v %v", family, address, err)
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%+v", address); !strings.Contains(got, fmt.Sprintf("ZoneId:%d ", lo.Index)) {
		t.Errorf("address %s, want zone %d", got, lo.Index)
	}
	if _, _, err := socketAddress(netip.MustParseAddrPort("[fe80::53%nosuch0]:53")); err == nil {
		t.Error("an interface that is not there is no error")
	}
}

func TestLinkLocalUpstreamsAreAsked(t *testing.T) {
	n := newContainer(t)
	done := make(chan error, 1)
	n.work <- func() {
		done <- func() error {
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a0"}, PeerName: "b0"}); err != nil {
				return err
			}
			for _, name := range []string{"b0", "a0"} {
				link, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				if err := netlink.LinkSetUp(link); err != nil {
					return err
				}
				if name == "a0" {
					address, err := netlink.ParseAddr("fe80::53/64")
					if err != nil {
						return err
					}
					address.Flags = unix.IFA_F_NODAD
					if err := netlink.AddrAdd(link, address); err != nil {
						return err
					}
				}
			}
			return nil
		}()
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	newUpstreamOf(t, n, "fe80::53%a0", says("192.0.2.6", dns.RcodeSuccess))
	s := newServer(t, nil)
	if err := s.Serve(t.Context(), Client{ID: "abc", Netns: n.path, Servers: addrs("fe80::53%a0")}); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		if m := n.exchange(t, network, new(dns.Msg).SetQuestion("example.org.", dns.TypeA)); !slices.Equal(texts(m), []string{"192.0.2.6"}) {
			t.Errorf("%s: answer %s", network, m)
		}
	}
}

// long answers with so many addresses that they do not fit into a packet.
func long(question *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(question)
	for i := range 100 {
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: question.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, byte(i))})
	}
	return m
}

func TestLongAnswersAreFetchedOverTCP(t *testing.T) {
	u := newUpstream(t, host(1), long)
	n := serve(t, newServer(t, nil, u.address), Client{ID: "abc"})
	// The container's program can take it in one packet, the upstream did not know.
	if m := n.exchange(t, "udp", new(dns.Msg).SetQuestion("example.org.", dns.TypeA)); !m.Truncated || len(m.Answer) == 0 || len(m.Answer) >= 100 {
		t.Errorf("over UDP: truncated %v, %d records", m.Truncated, len(m.Answer))
	}
	if m := n.exchange(t, "tcp", new(dns.Msg).SetQuestion("example.org.", dns.TypeA)); m.Truncated || len(m.Answer) != 100 {
		t.Errorf("over TCP: truncated %v, %d records", m.Truncated, len(m.Answer))
	}
	if want := []string{"udp example.org. A", "tcp example.org. A", "tcp example.org. A"}; !slices.Equal(u.questions(), want) {
		t.Errorf("asked %q, want %q", u.questions(), want)
	}
}

func TestAnAnswerThatIsOnlyToBeHadCutIsPassedOnAsCut(t *testing.T) {
	u := newUpstream(t, host(1), func(question *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(question)
		m.Truncated = true
		return m
	})
	n := serve(t, newServer(t, nil, u.address), Client{ID: "abc"})
	if m := n.ask(t, "example.org", dns.TypeA); !m.Truncated {
		t.Errorf("answer %s", m)
	}
}

func TestExtensionsAreOfOneHop(t *testing.T) {
	var mu sync.Mutex
	var asked *dns.OPT
	u := newUpstream(t, host(1), func(question *dns.Msg) *dns.Msg {
		mu.Lock()
		defer mu.Unlock()
		asked = question.IsEdns0()
		m := says("192.0.2.1", dns.RcodeSuccess)(question)
		m.SetEdns0(512, true).IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "24a5ac0012345678a1b2c3d4e5f60718"}, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeForgedAnswer}}
		return m // always, also if it was not asked for
	})
	with := func() *dns.OPT {
		mu.Lock()
		defer mu.Unlock()
		return asked
	}
	n := serve(t, newServer(t, nil, u.address), Client{ID: "abc"})
	question := new(dns.Msg).SetQuestion("example.org.", dns.TypeA).SetEdns0(65000, true)
	question.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "24a5ac0012345678"}, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}}
	opt := n.exchange(t, "udp", question).IsEdns0()
	if opt == nil || opt.UDPSize() != largestQuestion || !opt.Do() || len(opt.Option) != 1 || opt.Option[0].Option() != dns.EDNS0EDE {
		t.Errorf("answered with %v", opt)
	}
	if opt := with(); opt == nil || opt.UDPSize() != largestPacket || !opt.Do() || len(opt.Option) != 1 || opt.Option[0].Option() != dns.EDNS0NSID {
		t.Errorf("asked with %v", opt)
	}
	if m := n.ask(t, "example.org", dns.TypeA); m.IsEdns0() != nil || len(m.Answer) != 1 {
		t.Errorf("extensions for a program that does not know them: %s", m)
	}
	if opt := with(); opt != nil {
		t.Errorf("asked with %v", opt)
	}
}

// What comes to the port where an answer is awaited, and is not it, is not passed
// on; the answer that comes later is.
func TestForgedAnswersAreIgnored(t *testing.T) {
	packets, err := net.ListenPacket("udp", host(1)+":53")
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = packets.Close() }()
	ids := make(chan uint16, 64)
	go func() {
		b := make([]byte, 512)
		for {
			size, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			question := new(dns.Msg)
			if question.Unpack(b[:size]) != nil {
				continue
			}
			ids <- question.Id
			good := says("192.0.2.1", dns.RcodeSuccess)(question)
			for _, forge := range []func(m *dns.Msg){
				func(m *dns.Msg) { m.Id++ }, func(m *dns.Msg) { m.Response = false }, func(m *dns.Msg) { m.Question[0].Name = "other.org." },
				func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
				func(m *dns.Msg) { m.Question = nil }, func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus },
				func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
			} {
				bad := says("203.0.113.66", dns.RcodeSuccess)(question)
				forge(bad)
				packet, err := bad.Pack()
				if err != nil {
					panic(err)
				}
				_, _ = packets.WriteTo(packet, from)
			}
			_, _ = packets.WriteTo([]byte("short"), from)
			_, _ = packets.WriteTo(append([]byte{b[0], b[1]}, "\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff"...), from)
			packet, _ := good.Pack()
			_, _ = packets.WriteTo(packet, from)
		}
	}()
	n := serve(t, newServer(t, nil, netip.MustParseAddr(host(1))), Client{ID: "abc"})
	seen := map[uint16]bool{}
	for range 32 {
		question := new(dns.Msg).SetQuestion("Example.org.", dns.TypeA)
		question.Id = 7
		if m := n.exchange(t, "udp", question); m.Id != 7 || !slices.Equal(texts(m), []string{"192.0.2.1"}) || m.Question[0].Name != "Example.org." {
			t.Fatalf("answer %s", m)
		}
		seen[<-ids] = true
	}
	if len(seen) < 30 {
		t.Errorf("32 questions went out with %d IDs", len(seen))
	}
}

// silent is a name server that never answers.
func silent(*dns.Msg) *dns.Msg { return nil }

func TestAnUpstreamThatHangs(t *testing.T) {
	hangs := newUpstream(t, host(1), silent)
	good := newUpstream(t, host(2), says("192.0.2.2", dns.RcodeSuccess))
	t.Run("is followed by the next", func(t *testing.T) {
		n := serve(t, newServer(t, nil, hangs.address, good.address), Client{ID: "abc"})
		began := time.Now()
		if m := n.ask(t, "example.org", dns.TypeA); !slices.Equal(texts(m), []string{"192.0.2.2"}) {
			t.Errorf("answer %s", m)
		}
		if took := time.Since(began); took < patience/3 || took > patience {
			t.Errorf("took %v", took)
		}
	})
	t.Run("is given up before the program does, and slows nobody", func(t *testing.T) {
		s := newServer(t, names{"abc": {"web": addrs("172.20.0.2")}}, hangs.address)
		n := serve(t, s, Client{ID: "abc"})
		began := time.Now()
		var waiting sync.WaitGroup
		for range 200 {
			conn, err := n.dial("udp")
			if err != nil {
				t.Fatal(err)
			}
			waiting.Go(func() {
				defer func() { _ = conn.Close() }()
				m, _, err := (&dns.Client{Timeout: 10 * time.Second}).ExchangeWithConn(new(dns.Msg).SetQuestion("example.org.", dns.TypeA), conn)
				if err != nil || m.Rcode != dns.RcodeServerFailure {
					t.Errorf("answer %v, %v", m, err)
				}
			})
		}
		for s.limits.now.Load() < 200 {
			time.Sleep(time.Millisecond)
		}
		for range 20 {
			asked := time.Now()
			if got := texts(n.ask(t, "web", dns.TypeA)); !slices.Equal(got, []string{"172.20.0.2"}) {
				t.Errorf("web is %q", got)
			}
			if took := time.Since(asked); took > patience/2 {
				t.Errorf("a name of the network took %v", took)
			}
		}
		waiting.Wait()
		if took := time.Since(began); took > 5*time.Second+patience/2 {
			t.Errorf("took %v", took)
		}
		if left := s.limits.now.Load(); left != 0 {
			t.Errorf("%d questions are still counted", left)
		}
	})
	t.Run("does not hold up the end", func(t *testing.T) {
		s := newServer(t, nil, hangs.address)
		n := serve(t, s, Client{ID: "abc"})
		conn, err := n.dial("udp")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if err := conn.WriteMsg(new(dns.Msg).SetQuestion("example.org.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		for s.limits.now.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		began := time.Now()
		s.Stop("abc")
		if took := time.Since(began); took > stopTimeout/2 {
			t.Errorf("Stop took %v", took)
		}
	})
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestSoManyQuestionsAreForwardedAtOnce(t *testing.T) {
	hangs := newUpstream(t, host(1), silent)
	s := newServer(t, names{"abc": {"web": addrs("172.20.0.2")}, "def": {}}, hangs.address)
	var lines logged
	s.Log = slog.New(slog.NewTextHandler(&lines, nil))
	n, other := serve(t, s, Client{ID: "abc"}), serve(t, s, Client{ID: "def"})
	c := s.clients["abc"]
	c.limits.now.Store(forwardMost) // as if they were on their way
	for range 5 {
		if m := n.ask(t, "example.org", dns.TypeA); m.Rcode != dns.RcodeRefused {
			t.Errorf("answer %s", m)
		}
	}
	if got := texts(n.ask(t, "web", dns.TypeA)); !slices.Equal(got, []string{"172.20.0.2"}) {
		t.Errorf("web is %q", got)
	}
	if c.limits.now.Load() != forwardMost {
		t.Errorf("%d are counted", c.limits.now.Load())
	}
	if count := strings.Count(lines.String(), "too many questions"); count != 1 || !strings.Contains(lines.String(), "container=abc") {
		t.Errorf("logged %q", lines.String())
	}
	c.busy.next.Store(0) // the interval is over
	n.ask(t, "example.org", dns.TypeA)
	if count := strings.Count(lines.String(), "too many questions"); count != 2 {
		t.Errorf("logged %q", lines.String())
	}
	// One container's flood is not another's, until the engine itself has no more.
	conn, err := other.dial("udp")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.WriteMsg(new(dns.Msg).SetQuestion("example.org.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	for len(hangs.questions()) == 0 {
		time.Sleep(time.Millisecond)
	}
	s.limits.now.Store(s.limits.most + forwardMost) // as if others had them all
	if m := other.ask(t, "example.org", dns.TypeA); m.Rcode != dns.RcodeRefused {
		t.Errorf("answer %s", m)
	}
}

func TestNamesWithoutADotMayStayInside(t *testing.T) {
	u := newUpstream(t, host(1), says("192.0.2.1", dns.RcodeSuccess))
	s := newServer(t, names{"abc": {"web": addrs("172.20.0.2")}}, u.address)
	n := serve(t, s, Client{ID: "abc", Local: true})
	if m := n.ask(t, "printer", dns.TypeA); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
		t.Errorf("answer %s", m)
	}
	if got := texts(n.ask(t, "web", dns.TypeA)); !slices.Equal(got, []string{"172.20.0.2"}) {
		t.Errorf("web is %q", got)
	}
	n.ask(t, "printer.example.org", dns.TypeA)
	n.ask(t, "org", dns.TypeNS)
	if want := []string{"udp printer.example.org. A", "udp org. NS"}; !slices.Equal(u.questions(), want) {
		t.Errorf("asked %q, want %q", u.questions(), want)
	}
}

// FuzzUpstreamAnswers reads packets of upstreams: what is taken for the answer has
// its ID and its question, and can be sent on.
func FuzzUpstreamAnswers(f *testing.F) {
	question := new(dns.Msg).SetQuestion("example.org.", dns.TypeA).SetEdns0(1232, false)
	question.Id = 0x1234
	for _, m := range []*dns.Msg{says("192.0.2.1", dns.RcodeSuccess)(question), long(question), question} {
		packet, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
	}
	f.Add([]byte("\x12\x34\x80\x01\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		m, err := check(packet, question)
		if err != nil {
			return
		}
		if m.Id != question.Id || !m.Response {
			t.Fatalf("taken: %s", m)
		}
		m = incoming(m, question)
		if _, err := m.Pack(); err == nil && (m.Id != question.Id || len(m.Question) != 1) {
			t.Fatalf("passed on: %s", m)
		}
	})
}
