package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/test/private"
)

// nameServer is one of the outside.
type nameServer struct {
	mu    sync.Mutex
	asked []string
}

func (s *nameServer) saw(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.asked, func(asked string) bool { return strings.EqualFold(asked, name+".") })
}

// serveNames answers every question for an address with one, and for long.example
// with more of them than go into a packet. It listens in a network namespace, or
// in the host's where none is named.
func serveNames(t *testing.T, netns, at, with string) *nameServer {
	t.Helper()
	s := &nameServer{}
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
		q := question.Question[0]
		s.mu.Lock()
		s.asked = append(s.asked, q.Name)
		s.mu.Unlock()
		m := new(dns.Msg).SetReply(question)
		record := func(address net.IP) {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: address})
		}
		switch {
		case strings.HasPrefix(q.Name, "nosuch"):
			m.Rcode = dns.RcodeNameError
			m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 60}, Ns: "a.", Mbox: "b."}}
		case q.Name == "long.example.":
			for i := range 100 {
				record(net.IPv4(198, 51, 100, byte(i)))
			}
		case q.Qtype == dns.TypeA:
			record(net.ParseIP(with))
		}
		if _, isUDP := w.LocalAddr().(*net.UDPAddr); isUDP {
			m.Truncate(dns.MinMsgSize)
		}
		_ = w.WriteMsg(m)
	})
	var packets net.PacketConn
	var stream net.Listener
	if err := inNamespace(netns, func() (err error) {
		if packets, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", net.JoinHostPort(at, "53")); err != nil {
			return err
		}
		if stream, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(at, "53")); err != nil {
			_ = packets.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: answer}, {Listener: stream, Handler: answer}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = server.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() { _ = server.Shutdown(); <-ended })
	}
	return s
}

// inNamespace runs fn on a thread in a network namespace.
func inNamespace(netns string, fn func() error) error {
	if netns == "" {
		return fn()
	}
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer func() { _ = home.Close() }()
	there, err := os.Open(netns)
	if err != nil {
		return err
	}
	defer func() { _ = there.Close() }()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = fn()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back) // and the thread is left to this goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// loopback is an address of the host's loopback network that no other run has.
func loopback(last byte) string {
	pid := os.Getpid()
	return net.IPv4(127, byte(64+pid>>16), byte(pid>>8), byte(pid)&0xf0|last).String()
}

// Names of the outside, over the host's name servers on its loopback network, which
// containers do not reach themselves.
func TestNamesOfTheOutside(t *testing.T) {
	t.Parallel()
	first, second, third := loopback(1), loopback(2), loopback(3)
	one := serveNames(t, "", first, "192.0.2.1")
	serveNames(t, "", second, "192.0.2.2")
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(body string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("nameserver " + first + "\nsearch corp.example\noptions timeout:3\n")
	e := ownEngine(t, private.Options{Tables: fmt.Sprintf("[network]\nresolv_conf = %q\n", file)})
	for _, name := range []string{"docker", "davit"} {
		t.Run(name, func(t *testing.T) { testOutside(newClient(t, name, e), write, one, first, second, third) })
	}
}

func testOutside(c *client, write func(string), one *nameServer, first, second, third string) {
	net, inner := c.own("net"), c.own("inner")
	c.Cleanup(func() { c.run("network", "rm", net, inner) })
	c.ok("network", "create", net)
	c.ok("network", "create", "--internal", inner)
	c.background("box", "--network", net, "busybox", "sleep", "600")
	c.background("inside", "--network", inner, "busybox", "sleep", "600")
	box, inside := c.own("box"), c.own("inside")

	write("nameserver " + first + "\nsearch corp.example\noptions timeout:3\n")
	conf := c.ok("exec", box, "cat", "/etc/resolv.conf")
	c.equal(settings(conf), "nameserver 127.0.0.11; search corp.example; options timeout:3 ndots:0")
	c.contains(conf, "# ExtServers: [host("+first+")]")
	for _, transport := range []string{"+notcp", "+tcp"} {
		c.equal(c.addresses(box, transport, "www.example"), "192.0.2.1")
	}
	missing := c.dig(box, "nosuch.example")
	c.contains(missing, "status: NXDOMAIN")
	c.contains(missing, "AUTHORITY: 1")
	c.contains(c.ok("exec", box, "nslookup", "www.example"), "192.0.2.1")
	// What is too long for a packet: cut for who insists on one, whole for others.
	c.contains(c.dig(box, "+noedns", "+ignore", "long.example"), " tc ")
	c.equal(fmt.Sprint(len(strings.Fields(c.addresses(box, "+noedns", "long.example")))), "100")
	c.equal(fmt.Sprint(len(strings.Fields(c.addresses(box, "+bufsize=4096", "+ignore", "long.example")))), "100")
	// What is a container's is asked of nobody else.
	c.equal(c.addresses(box, box, "MX"), "")
	c.equal(c.addresses(box, box, "AAAA"), "")
	if one.saw(box) {
		c.Errorf("the host's name server was asked about %s", box)
	}

	// Internal networks have no way out, until there is another network.
	c.contains(c.dig(inside, "www.inside"+c.name), "status: SERVFAIL")
	if one.saw("www.inside" + c.name) {
		c.Error("a question of an internal network went out")
	}
	c.ok("network", "connect", net, inside)
	c.equal(c.addresses(inside, "www.inside"+c.name), "192.0.2.1")
	c.ok("network", "disconnect", net, inside)
	c.contains(c.dig(inside, "www.example"), "status: SERVFAIL")
	c.ok("network", "disconnect", inner, inside)
	c.ok("network", "connect", "bridge", inside)
	c.equal(c.addresses(inside, "www.example"), "192.0.2.1")

	// The host's file changes under running containers; the next server is asked
	// where one does not answer.
	write("nameserver " + second + "\n")
	c.equal(c.addresses(box, "www.example"), "192.0.2.2")
	write("nameserver " + third + "\nnameserver " + second + "\n")
	c.equal(c.addresses(box, "www.example"), "192.0.2.2")
	write("")
	c.contains(c.dig(box, "www.example"), "status: SERVFAIL")
	write("nameserver " + first + "\nsearch corp.example\noptions timeout:3\n")

	// Servers of the container's own are on its own network, an internal one, too.
	c.background("server", "--network", inner, "busybox", "sleep", "600")
	address := c.address(c.own("server"), inner, "IPAddress")
	c.background("asks", "--network", inner, "--dns", address, "--dns-option", "ndots:1", "busybox", "sleep", "600")
	pid := c.ok("inspect", "-f", "{{.State.Pid}}", c.own("server"))
	serveNames(c.T, "/proc/"+pid+"/ns/net", address, "192.0.2.9")
	c.equal(c.addresses(c.own("asks"), "www.example"), "192.0.2.9")
	c.equal(c.addresses(c.own("asks"), "+tcp", "www.example"), "192.0.2.9")
	// Somebody chose ndots: names without a dot go to the search domains first.
	c.contains(c.dig(c.own("asks"), "printer"), "status: NOERROR")
	c.contains(c.dig(c.own("asks"), "printer"), "ANSWER: 0")

	// Networks without names have the host's servers that can be reached.
	conf = c.ok("run", "--rm", "busybox", "cat", "/etc/resolv.conf")
	c.equal(settings(conf), "nameserver 8.8.8.8; nameserver 8.8.4.4; search corp.example; options timeout:3")
	c.contains(read(c.T, c.engine.LogPath()), "public ones are used instead")
	write("nameserver 127.0.0.1\nnameserver 2001:db8::1\nnameserver 192.0.2.53\n")
	c.equal(settings(c.ok("run", "--rm", "busybox", "cat", "/etc/resolv.conf")), "nameserver 192.0.2.53")
	c.equal(settings(c.ok("run", "--rm", "--network", "host", "busybox", "cat", "/etc/resolv.conf")), "nameserver 127.0.0.1; nameserver 2001:db8::1; nameserver 192.0.2.53")
	c.equal(settings(c.ok("run", "--rm", "--network", "host", "--dns-search", "x.example", "busybox", "cat", "/etc/resolv.conf")), "nameserver 127.0.0.1; nameserver 2001:db8::1; nameserver 192.0.2.53; search x.example")
	c.equal(settings(c.ok("run", "--rm", "--dns", "10.9.9.9", "--dns-search", ".", "--dns-option", "ndots:3", "--dns-option", "edns0", "busybox", "cat", "/etc/resolv.conf")), "nameserver 10.9.9.9; options ndots:3 edns0")
	local := c.run("run", "--rm", "--dns", "127.0.0.1", "busybox", "cat", "/etc/resolv.conf")
	c.equal(settings(local.out), "nameserver 127.0.0.1")
	c.contains(local.err, "WARNING: Localhost DNS (127.0.0.1) may fail in containers.")
	c.fails(125, "is not a valid domain", "run", "--rm", "--dns-search", "a..b", "busybox", "true")
	write("nameserver " + first + "\nsearch corp.example\noptions timeout:3\n")

	// A file that somebody changed is theirs until the next start.
	c.background("changed", "busybox", "sh", "-c", "echo nameserver 192.0.2.99 > /etc/resolv.conf; sleep 600")
	eventually(c.T, "a changed file", func() error {
		if got := c.ok("exec", c.own("changed"), "cat", "/etc/resolv.conf"); got != "nameserver 192.0.2.99" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	c.ok("network", "connect", net, c.own("changed"))
	c.equal(c.ok("exec", c.own("changed"), "cat", "/etc/resolv.conf"), "nameserver 192.0.2.99")
	c.background("unchanged", "busybox", "sleep", "600")
	c.ok("network", "connect", net, c.own("unchanged"))
	c.contains(c.ok("exec", c.own("unchanged"), "cat", "/etc/resolv.conf"), "nameserver 127.0.0.11")
}

// A container on an internal network must not carry anything out in the names it
// asks for, also where the host's name server is on the host itself.
func TestCVE_2024_29018_InternalNetworksAskNobody(t *testing.T) {
	t.Parallel()
	outside := serveNames(t, "", loopback(4), "192.0.2.1")
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+loopback(4)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, "davit", ownEngine(t, private.Options{Tables: fmt.Sprintf("[network]\nresolv_conf = %q\n", file)}))
	c.ok("network", "create", "--internal", "inner")
	c.background("box", "--network", "inner", "busybox", "sleep", "600")
	c.background("own", "--network", "inner", "--dns", loopback(4), "busybox", "sleep", "600")
	for _, box := range []string{c.own("box"), c.own("own")} {
		for _, args := range [][]string{{"A"}, {"+tcp", "A"}, {"TXT"}, {"-c", "CH", "TXT"}} {
			c.contains(c.dig(box, append([]string{"secret.example"}, args...)...), "status: SERVFAIL")
		}
		c.contains(c.dig(box, "-x", "192.0.2.7"), "status: SERVFAIL")
	}
	if outside.saw("secret.example") || outside.saw("7.2.0.192.in-addr.arpa") {
		t.Error("the host's name server was asked")
	}
	// It would have been asked from any other network.
	c.ok("network", "create", "outer")
	c.ok("network", "connect", "outer", c.own("box"))
	c.equal(c.addresses(c.own("box"), "secret.example"), "192.0.2.1")
}

// What the configuration says holds for containers that say nothing.
func TestNamesAsConfigured(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{Tables: "[network]\ndns = [\"192.0.2.53\"]\ndns_search = [\"all.example\"]\ndns_options = [\"edns0\"]\n"})
	c := newClient(t, "davit", e)
	c.equal(settings(c.ok("run", "--rm", "busybox", "cat", "/etc/resolv.conf")), "nameserver 192.0.2.53; search all.example; options edns0")
	c.equal(settings(c.ok("run", "--rm", "--dns", "192.0.2.54", "--dns-search", "own.example", "--dns-option", "rotate", "busybox", "cat", "/etc/resolv.conf")), "nameserver 192.0.2.54; search own.example; options rotate")
	c.ok("network", "create", "net")
	conf := c.ok("run", "--rm", "--network", "net", "busybox", "cat", "/etc/resolv.conf")
	c.equal(settings(conf), "nameserver 127.0.0.11; search all.example; options edns0 ndots:0")
	c.contains(conf, "# ExtServers: [192.0.2.53]")
}

// settings are a resolv.conf's lines that are not comments.
func settings(conf string) string {
	var list []string
	for line := range strings.Lines(conf) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			list = append(list, line)
		}
	}
	return strings.Join(list, "; ")
}
