package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// texts are the data of an answer's records, sorted.
func texts(m *dns.Msg) []string {
	list := []string{}
	for _, rr := range m.Answer {
		list = append(list, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(list)
	return list
}

func TestContainersAreFoundByName(t *testing.T) {
	n := serve(t, newServer(t, names{"abc": {
		"web": addrs("172.20.0.2"), "all": addrs("172.20.0.2", "172.20.0.3", "fd00::2"), "WEB": addrs("172.20.0.9"), "none": nil, "db.front": addrs("172.20.0.4"),
	}}), Client{ID: "abc"})
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			name string
			kind uint16
			want []string
		}{
			{"web.", dns.TypeA, []string{"172.20.0.2"}},
			{"db.front.", dns.TypeA, []string{"172.20.0.4"}},
			{"all.", dns.TypeA, []string{"172.20.0.2", "172.20.0.3"}},
			{"all.", dns.TypeAAAA, []string{"fd00::2"}},
			{"WEB.", dns.TypeA, []string{"172.20.0.9"}}, // as it was asked: the engine compares
			// What exists without such a record is no error: programs would give up on
			// the name instead of using its other records.
			{"web.", dns.TypeAAAA, []string{}},
			{"web.", dns.TypeMX, []string{}},
			{"none.", dns.TypeA, []string{}},
			{"all.", dns.TypeANY, []string{"172.20.0.2", "172.20.0.3", "fd00::2"}},
		} {
			m := n.exchange(t, network, new(dns.Msg).SetQuestion(c.name, c.kind))
			if m.Rcode != dns.RcodeSuccess || !m.Response || !m.RecursionAvailable || !m.Authoritative || m.Truncated {
				t.Errorf("%s %s: header %+v", network, c.name, m.MsgHdr)
			}
			if diff := cmp.Diff(c.want, texts(m)); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", network, c.name, diff)
			}
			if soa := len(m.Ns) == 1 && m.Ns[0].Header().Rrtype == dns.TypeSOA; soa != (len(c.want) == 0) {
				t.Errorf("%s %s: authority %v", network, c.name, m.Ns)
			}
			for _, rr := range append(m.Answer, m.Ns...) {
				if h := rr.Header(); h.Name != c.name || h.Ttl != ttl || h.Class != dns.ClassINET {
					t.Errorf("%s %s: record %s", network, c.name, rr)
				}
			}
		}
	}
}

func TestEachContainerSeesItsOwnNames(t *testing.T) {
	s := newServer(t, names{"abc": {"web": addrs("172.20.0.2")}, "def": {"web": addrs("172.30.0.2")}})
	first, second := serve(t, s, Client{ID: "abc"}), serve(t, s, Client{ID: "def"})
	for want, n := range map[string]*container{"172.20.0.2": first, "172.30.0.2": second} {
		if got := texts(n.ask(t, "web", dns.TypeA)); !slices.Equal(got, []string{want}) {
			t.Errorf("web is %q, want %s", got, want)
		}
	}
}

func TestAddressesHaveNames(t *testing.T) {
	u := newUpstream(t, host(1), func(question *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(question)
		m.Answer = []dns.RR{&dns.PTR{Hdr: dns.RR_Header{Name: question.Question[0].Name, Rrtype: dns.TypePTR, Class: dns.ClassINET}, Ptr: "outside."}}
		return m
	})
	n := serve(t, newServer(t, names{"abc": {"web": addrs("172.20.0.2"), "six": addrs("fd00::2")}}, u.address), Client{ID: "abc"})
	for address, want := range map[string]string{
		"2.0.20.172.in-addr.arpa": "web.front.", "2.0.20.172.IN-ADDR.arpa": "web.front.", "8.8.8.8.in-addr.arpa": "outside.",
		"20.172.in-addr.arpa": "outside.", "1.2.0.20.172.in-addr.arpa": "outside.", "x.0.20.172.in-addr.arpa": "outside.", "web.org": "outside.",
		"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa": "six.front.", "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa": "outside.",
	} {
		if got := texts(n.ask(t, address, dns.TypePTR)); !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, want %s", address, got, want)
		}
	}
	// An address that has a name has nothing else, and nobody else is asked.
	before := len(u.questions())
	for name, kind := range map[string]uint16{"2.0.20.172.in-addr.arpa": dns.TypeA, "web": dns.TypePTR} {
		if m := n.ask(t, name, kind); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 || len(m.Ns) != 1 {
			t.Errorf("answer %s", m)
		}
	}
	if asked := u.questions(); len(asked) != before {
		t.Errorf("asked %q", asked[before:])
	}
}

func TestReverseNamesAreRead(t *testing.T) {
	for name, want := range map[string]string{
		"4.3.2.1.in-addr.arpa": "1.2.3.4", "255.0.0.127.IN-Addr.Arpa": "127.0.0.255",
		"3.2.1.in-addr.arpa": "", "5.4.3.2.1.in-addr.arpa": "", "256.3.2.1.in-addr.arpa": "", "a.3.2.1.in-addr.arpa": "", "in-addr.arpa": "", "4.3.2.1": "", "": "",
		"....in-addr.arpa": "", "1.0.0.0.ip6.arpa": "",
		"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.D.F.IP6.arpa":   "fd00:1::2",
		"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.0.ip6.arpa": "",
		"g.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa":   "",
		"20.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.ff.ip6.arpa": "", "ip6.arpa": "",
	} {
		got, ok := reverseAddress(name)
		if ok != (want != "") || ok && got != netip.MustParseAddr(want) {
			t.Errorf("%q is %v, %v", name, got, ok)
		}
	}
}

func TestWhatIsTooLongIsAskedForAgainOverTCP(t *testing.T) {
	var many []netip.Addr
	for i := range 100 {
		many = append(many, netip.AddrFrom4([4]byte{172, 20, 1, byte(i)}))
	}
	n := serve(t, newServer(t, names{"abc": {"many": many}}), Client{ID: "abc"})
	question := new(dns.Msg).SetQuestion("many.", dns.TypeA)
	m := n.exchange(t, "udp", question)
	m.Compress = true // as it came
	if !m.Truncated || len(m.Answer) == 0 || len(m.Answer) >= len(many) || m.Len() > dns.MinMsgSize {
		t.Errorf("over UDP: truncated %v, %d records in %d bytes", m.Truncated, len(m.Answer), m.Len())
	}
	if m := n.exchange(t, "tcp", question); m.Truncated || len(m.Answer) != len(many) {
		t.Errorf("over TCP: truncated %v, %d records", m.Truncated, len(m.Answer))
	}
	// Who can take more gets more.
	if m := n.exchange(t, "udp", new(dns.Msg).SetQuestion("many.", dns.TypeA).SetEdns0(4096, false)); m.Truncated || len(m.Answer) != len(many) {
		t.Errorf("over UDP with EDNS: truncated %v, %d records", m.Truncated, len(m.Answer))
	}
}

func TestMalformedQuestionsHarmNobody(t *testing.T) {
	n := serve(t, newServer(t, names{"abc": {"web": addrs("172.20.0.2"), "": nil}}), Client{ID: "abc"})
	good, err := new(dns.Msg).SetQuestion("web.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	header := "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	for name, packet := range map[string]string{
		"nothing":               "",
		"one byte":              "\x00",
		"a header cut off":      header[:11],
		"a header alone":        header,
		"a name cut off":        header + "\x3fweb",
		"a name without end":    header + strings.Repeat("\x01a", 200),
		"a name of itself":      header + "\xc0\x0c\x00\x01\x00\x01",
		"a name beyond the end": header + "\xff\xff\x00\x01\x00\x01",
		"no question":           "\x12\x34\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"many questions":        "\x12\x34\x01\x00\xff\xff\x00\x00\x00\x00\x00\x00" + string(good[12:]),
		"an answer":             "\x12\x34\x80\x00" + string(good[4:]),
		"an update":             "\x12\x34\x28\x00" + string(good[4:]),
		"records cut off":       "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01" + string(good[12:]) + "\x00\x00\x29\xff",
		"the root":              header + "\x00\x00\x01\x00\x01",
		"noise":                 strings.Repeat("\xff", 4096),
	} {
		t.Run(name, func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				conn, err := n.dial(network)
				if err != nil {
					t.Fatal(err)
				}
				_, err = conn.Write([]byte(packet)) // with its length, over TCP
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: %v", network, err)
				}
				_ = conn.Close()
				if got := texts(n.exchange(t, network, new(dns.Msg).SetQuestion("web.", dns.TypeA))); !slices.Equal(got, []string{"172.20.0.2"}) {
					t.Errorf("%s: afterwards web is %q", network, got)
				}
			}
		})
	}
}

func TestAQuestionIsExactlyOne(t *testing.T) {
	n := serve(t, newServer(t, nil), Client{ID: "abc"})
	for count := range 3 {
		m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: 7}, Question: make([]dns.Question, count)}
		for i := range m.Question {
			m.Question[i] = dns.Question{Name: fmt.Sprintf("q%d.", i), Qtype: dns.TypeA, Qclass: dns.ClassINET}
		}
		want := dns.RcodeFormatError
		if count == 1 {
			want = dns.RcodeServerFailure // there is nobody to forward it to
		}
		conn, err := n.dial("udp")
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		if answer, err := conn.ReadMsg(); err != nil || answer.Rcode != want || answer.Id != 7 {
			t.Errorf("%d questions are answered %v, %v", count, answer, err)
		}
		_ = conn.Close()
	}
}

func TestServingIsIdempotentAndEnds(t *testing.T) {
	s := newServer(t, names{"abc": {"web": addrs("172.20.0.2")}})
	n := newContainer(t)
	c := Client{ID: "abc", Netns: n.path}
	for range 2 { // a second time after the end of the first
		for range 2 {
			if err := s.Serve(context.Background(), c); err != nil {
				t.Fatal(err)
			}
		}
		if got := texts(n.ask(t, "web", dns.TypeA)); !slices.Equal(got, []string{"172.20.0.2"}) {
			t.Errorf("web is %q", got)
		}
		s.Stop("abc")
		s.Stop("abc")
		if conn, err := n.dial("tcp"); err == nil {
			_ = conn.Close()
			t.Error("somebody still answers")
		}
	}
	s.Close()
	s.Close()
}

// An engine that was killed left its redirection in the namespace: the next one
// must be asked, and not a port where nobody listens.
func TestTheNextEngineTakesOver(t *testing.T) {
	n := newContainer(t)
	c := Client{ID: "abc", Netns: n.path}
	for _, address := range []string{"172.20.0.2", "172.20.0.3"} {
		s := newServer(t, names{"abc": {"web": addrs(address)}}) // the former stays: it was not asked to stop
		if err := s.Serve(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		if got := texts(n.ask(t, "web", dns.TypeA)); !slices.Equal(got, []string{address}) {
			t.Errorf("web is %q, want %s", got, address)
		}
	}
}

func TestWithoutANamespaceThereIsNoServer(t *testing.T) {
	s := newServer(t, nil)
	for _, path := range []string{"/proc/self/nosuch", "/dev/null"} {
		err := s.Serve(context.Background(), Client{ID: "abc", Netns: path})
		if err == nil || !strings.HasPrefix(err.Error(), "name server in "+path+": ") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if len(s.clients) != 0 {
		t.Errorf("clients %v", s.clients)
	}
}

// Programs keep sockets, and the kernel remembers where their packets went.
func TestKeptSocketsFollowTheNextEngine(t *testing.T) {
	n := newContainer(t)
	conn, err := n.dial("udp")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, address := range []string{"172.20.0.2", "172.20.0.3"} {
		s := newServer(t, names{"abc": {"web": addrs(address)}})
		if err := s.Serve(t.Context(), Client{ID: "abc", Netns: n.path}); err != nil {
			t.Fatal(err)
		}
		m, _, err := new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion("web.", dns.TypeA), conn)
		if err != nil || !slices.Equal(texts(m), []string{address}) {
			t.Errorf("web is %v, %v, want %s", m, err, address)
		}
	}
}

// While no engine is there, programs are told so at once.
func TestWithoutAnEngineQuestionsFailAtOnce(t *testing.T) {
	s := newServer(t, nil)
	n := serve(t, s, Client{ID: "abc"})
	s.Stop("abc")
	conn, err := n.dial("udp")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, _, err := new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion("web.", dns.TypeA), conn); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("answered %v", err)
	}
	if conn, err := n.dial("tcp"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connected: %v, %v", conn, err)
	}
}

// A program that keeps a connection open must not hold up the engine's end.
func TestStopDoesNotWaitForIdleConnections(t *testing.T) {
	s := newServer(t, names{"abc": {"web": addrs("172.20.0.2")}})
	n := serve(t, s, Client{ID: "abc"})
	conn, err := n.dial("tcp")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, _, err := new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion("web.", dns.TypeA), conn); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { s.Stop("abc"); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(time.Second):
		t.Error("Stop still waits after a second")
		<-stopped
	}
}
