package dns

import (
	"context"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestWhatIsNoQuestionIsRefused(t *testing.T) {
	u := newUpstream(t, host(1), says("192.0.2.1", dns.RcodeSuccess))
	n := serve(t, newServer(t, names{"abc": {"web": addrs("172.20.0.2")}}, u.address), Client{ID: "abc"})
	for name, c := range map[string]struct {
		change func(m *dns.Msg)
		want   int
	}{
		"an update":           {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"a notification":      {func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, dns.RcodeNotImplemented},
		"status":              {func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }, dns.RcodeNotImplemented},
		"opcode 15":           {func(m *dns.Msg) { m.Opcode = 15 }, dns.RcodeNotImplemented},
		"none":                {func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError},
		"two":                 {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError},
		"with an answer":      {func(m *dns.Msg) { m.Answer = says("192.0.2.1", 0)(m).Answer }, dns.RcodeFormatError},
		"two sets of options": {func(m *dns.Msg) { m.SetEdns0(1232, false).SetEdns0(1232, false) }, dns.RcodeFormatError},
		"EDNS of the future":  {func(m *dns.Msg) { m.SetEdns0(1232, false).IsEdns0().SetVersion(1) }, dns.RcodeBadVers},
		"a whole zone": {func(m *dns.Msg) {
			m.Question[0] = dns.Question{Name: "org.", Qtype: dns.TypeAXFR, Qclass: dns.ClassINET}
		}, dns.RcodeRefused},
		"what changed of a zone": {func(m *dns.Msg) {
			m.Question[0] = dns.Question{Name: "org.", Qtype: dns.TypeIXFR, Qclass: dns.ClassINET}
		}, dns.RcodeRefused},
	} {
		t.Run(name, func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				m := new(dns.Msg).SetQuestion("web.", dns.TypeA)
				c.change(m)
				conn, err := n.dial(network)
				if err != nil {
					t.Fatal(err)
				}
				if err := conn.WriteMsg(m); err != nil {
					t.Fatal(err)
				}
				answer, err := conn.ReadMsg()
				if err != nil || answer.Rcode != c.want || answer.Id != m.Id || len(answer.Answer) != 0 {
					t.Errorf("%s: answer %v, %v, want %s", network, answer, err, dns.RcodeToString[c.want])
				}
				_ = conn.Close()
			}
		})
	}
	if asked := u.questions(); len(asked) != 0 {
		t.Errorf("the host's name server was asked %q", asked)
	}
}

func TestOtherClassesAreNotAboutContainers(t *testing.T) {
	u := newUpstream(t, host(1), says("", dns.RcodeRefused))
	n := serve(t, newServer(t, names{"abc": {"version.bind": addrs("172.20.0.2")}}, u.address), Client{ID: "abc"})
	question := new(dns.Msg).SetQuestion("version.bind.", dns.TypeTXT)
	question.Question[0].Qclass = dns.ClassCHAOS
	if m := n.exchange(t, "udp", question); m.Rcode != dns.RcodeRefused || len(u.questions()) != 1 {
		t.Errorf("answer %s, asked %q", m, u.questions())
	}
}

func TestAnswersHaveTheSizeThatIsAskedFor(t *testing.T) {
	var many []netip.Addr
	for i := range 300 {
		many = append(many, netip.AddrFrom4([4]byte{172, 20, byte(i >> 8), byte(i)}))
	}
	n := serve(t, newServer(t, names{"abc": {"many": many, "web": addrs("172.20.0.2")}}), Client{ID: "abc"})
	for size, whole := range map[uint16]bool{0: false, 100: false, 512: false, 1232: false, 4096: false, 5200: true, 65535: true} {
		question := new(dns.Msg).SetQuestion("many.", dns.TypeA).SetEdns0(size, false)
		m := n.exchange(t, "udp", question)
		m.Compress = true // as it came
		opt := m.IsEdns0()
		if m.Truncated == whole || (len(m.Answer) == len(many)) != whole || len(m.Answer) == 0 || m.Len() > max(512, int(size)) {
			t.Errorf("%d: truncated %v, %d records in %d bytes", size, m.Truncated, len(m.Answer), m.Len())
		}
		if opt == nil || opt.UDPSize() != largestQuestion {
			t.Errorf("%d: options %v", size, opt)
		}
	}
	if m := n.ask(t, "web", dns.TypeA); m.IsEdns0() != nil {
		t.Errorf("options for a program that does not know them: %s", m)
	}
}

func TestAddressesAreShuffled(t *testing.T) {
	n := serve(t, newServer(t, names{"abc": {"all": addrs("172.20.0.2", "172.20.0.3", "172.20.0.4")}}), Client{ID: "abc"})
	first := map[string]int{}
	for range 60 {
		m := n.ask(t, "all", dns.TypeA)
		if len(m.Answer) != 3 {
			t.Fatalf("answer %s", m)
		}
		first[m.Answer[0].(*dns.A).A.String()]++
	}
	if len(first) != 3 { // by chance once in ten thousand million runs
		t.Errorf("the first was %v", first)
	}
}

func TestTheEndLeavesNothing(t *testing.T) {
	u := newUpstream(t, host(1), says("192.0.2.1", dns.RcodeSuccess))
	n := newContainer(t)
	before := runtime.NumGoroutine()
	s := newServer(t, names{"abc": {"web": addrs("172.20.0.2")}}, u.address)
	for range 3 {
		if err := s.Serve(t.Context(), Client{ID: "abc", Netns: n.path}); err != nil {
			t.Fatal(err)
		}
		for _, network := range []string{"udp", "tcp"} {
			for _, name := range []string{"web.", "example.org."} {
				n.exchange(t, network, new(dns.Msg).SetQuestion(name, dns.TypeA))
			}
		}
		s.Stop("abc")
	}
	s.Close()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	// Upstreams and tests have their own, which come and go.
	if after := runtime.NumGoroutine(); after > before+2 {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after\n%s", before, after, stacks[:runtime.Stack(stacks, true)])
	}
}

// A program that opens connections without end, or does not read, must not hold
// up the engine.
func TestConnectionsAreBounded(t *testing.T) {
	var many []netip.Addr
	for i := range 4000 {
		many = append(many, netip.AddrFrom4([4]byte{172, 20, byte(i >> 8), byte(i)}))
	}
	s := newServer(t, names{"abc": {"many": many, "web": addrs("172.20.0.2")}})
	n := serve(t, s, Client{ID: "abc"})
	for i := range connections + 50 {
		conn, err := n.dial("tcp")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		for i < 1 && conn.WriteMsg(new(dns.Msg).SetQuestion("many.", dns.TypeA)) == nil {
			// until nothing goes through any more, and the server ends it
		}
	}
	open := s.clients["abc"].tcp.Listener.(*streams).open
	for len(open) < connections {
		time.Sleep(time.Millisecond)
	}
	if got := texts(n.ask(t, "web", dns.TypeA)); !slices.Equal(got, []string{"172.20.0.2"}) {
		t.Errorf("web is %q", got)
	}
	began := time.Now()
	s.Stop("abc")
	if took := time.Since(began); took > stopTimeout {
		t.Errorf("Stop took %v", took)
	}
}

// FuzzAnswer reads packets as a container may send them: whatever is read is
// answered with its ID, and in its size.
func FuzzAnswer(f *testing.F) {
	for _, m := range []*dns.Msg{
		new(dns.Msg).SetQuestion("web.", dns.TypeA), new(dns.Msg).SetQuestion("many.", dns.TypeANY).SetEdns0(1232, true),
		new(dns.Msg).SetQuestion("2.0.20.172.in-addr.arpa.", dns.TypePTR), new(dns.Msg).SetUpdate("web."), new(dns.Msg).SetAxfr("web."),
	} {
		packet, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
	}
	f.Add([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	var many []netip.Addr
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{172, 20, 0, byte(i)}))
	}
	known := names{"abc": {"web": addrs("172.20.0.2"), "many": many}}
	c := &client{Client: Client{ID: "abc"}, server: &Server{Options: Options{
		Lookup: known.lookup, Reverse: known.reverse, Upstreams: func(string) []netip.Addr { return nil },
	}}}
	f.Fuzz(func(t *testing.T, packet []byte) {
		question := new(dns.Msg)
		if question.Unpack(packet) != nil || question.Response {
			return
		}
		for _, network := range []string{"udp", "tcp"} {
			m := c.answer(context.Background(), network, question)
			if m.Id != question.Id || !m.Response || m.Opcode != question.Opcode {
				t.Fatalf("%s\nis answered\n%s", question, m)
			}
			packed, err := m.Pack()
			if err != nil {
				t.Fatalf("%s\nis answered\n%s: %v", question, m, err)
			}
			size := dns.MinMsgSize
			if opt := question.IsEdns0(); opt != nil {
				size = max(size, int(opt.UDPSize()))
			}
			if network == "udp" && len(packed) > size {
				t.Fatalf("%d bytes for who takes %d", len(packed), size)
			}
		}
	})
}

func FuzzReverseAddress(f *testing.F) {
	f.Add("4.3.2.1.in-addr.arpa")
	f.Add(strings.Repeat("0.", 32) + "ip6.arpa")
	f.Fuzz(func(t *testing.T, name string) {
		a, ok := reverseAddress(name)
		if !ok {
			return
		}
		back, err := dns.ReverseAddr(a.String())
		if err != nil || !strings.EqualFold(strings.TrimSuffix(back, "."), name) {
			t.Fatalf("%q is read as %s, which is %q", name, a, back)
		}
	})
}
