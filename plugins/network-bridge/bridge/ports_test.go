package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/network"
)

func TestPublishedPortsAreReachedFromEverywhere(t *testing.T) {
	l := newLab(t)
	l.network("one", nil)
	l.network("two", nil)
	protos := []string{"tcp", "udp"}
	web := l.container("one", "web", func(a *network.Attachment) {
		a.Ports = []network.Port{tcp(80, 8080), {Proto: "udp", ContainerPort: 80, HostPort: 8080},
			{Proto: "tcp", ContainerPort: 80, HostPort: 8081, HostIP: netip.MustParseAddr("127.0.0.1")},
			{Proto: "tcp", ContainerPort: 80, HostPort: 8081, HostIP: netip.MustParseAddr("::1")},
			{Proto: "tcp", ContainerPort: 80, HostPort: 8082, HostIP: netip.MustParseAddr(host4)}}
		if hasSCTP() {
			a.Ports = append(a.Ports, network.Port{Proto: "sctp", ContainerPort: 80, HostPort: 8080})
			protos = append(protos, "sctp")
		}
	})
	neighbour := l.container("one", "neighbour", nil)
	stranger := l.container("two", "stranger", nil)
	l.serve(web.Netns, "web", 80)
	gateway4, gateway6 := web.Gateway4.String(), web.Gateway6.String()
	for _, proto := range protos {
		// From another host, with the client's own address.
		l.expect(l.lan, proto, host4, 8080, lan4+" to web")
		l.expect(l.lan, proto, host6, 8080, lan6+" to web")
		// From the host, by its own addresses and by the loopback ones.
		l.expect("", proto, host4, 8080, host4+" to web")
		l.expect("", proto, host6, 8080, host6+" to web")
		l.expect("", proto, "127.0.0.1", 8080, gateway4+" to web")
		l.expect("", proto, "::1", 8080, gateway6+" to web")
		// A container to itself, to its neighbour, and to one on another network.
		l.expect(web.Netns, proto, host4, 8080, gateway4+" to web")
		l.expect(web.Netns, proto, host6, 8080, gateway6+" to web")
		l.expect(neighbour.Netns, proto, host4, 8080, gateway4+" to web")
		l.expect(neighbour.Netns, proto, gateway6, 8080, gateway6+" to web")
		l.expect(stranger.Netns, proto, host4, 8080, stranger.IPv4.Addr().String()+" to web")
		l.expect(stranger.Netns, proto, host6, 8080, stranger.IPv6.Addr().String()+" to web")
	}
	// Only where they are published.
	l.expect("", "tcp", "127.0.0.1", 8081, gateway4+" to web")
	l.expect("", "tcp", "::1", 8081, gateway6+" to web")
	l.expect("", "tcp", host4, 8081, "refused")
	l.expect(l.lan, "tcp", host4, 8081, "refused")
	l.expect("", "tcp", host4, 8082, host4+" to web")
	l.expect("", "tcp", "127.0.0.1", 8082, "refused")
	// Another host that sends packets for 127.0.0.1 here gets nowhere.
	l.sh("sysctl -qw net.ipv4.conf.lan.route_localnet=1")
	l.shIn(l.lan, "sysctl -qw net.ipv4.conf.eth0.route_localnet=1", "ip addr del 127.0.0.1/8 dev lo", "ip route add 127.0.0.1 via "+host4)
	if got := l.ask(l.lan, "tcp", "127.0.0.1", 8081); strings.Contains(got, "web") {
		t.Errorf("another host reached a port of 127.0.0.1: %q", got)
	}
	// A real client and server, too.
	l.serveHTTP(web.Netns, 88)
	if _, err := l.UpdatePorts(t.Context(), "one", "web", []network.Port{tcp(88, 8088)}); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{host4, "[" + host6 + "]"} {
		if out := l.shIn(l.lan, "curl -sS -m 5 http://"+host+":8088/"); !strings.HasPrefix(strings.Trim(out, "["), "192.0.2.2:") && !strings.HasPrefix(out, "["+lan6+"]:") {
			t.Errorf("curl of %s said %q", host, out)
		}
	}
}

func TestContainersAreNotReachedDirectly(t *testing.T) {
	l := newLab(t)
	l.serve(l.lan, "lan", 90)
	for i, mode := range []string{modeNAT, modeUnprotected, modeRouted} {
		l.network(mode, func(n *network.Network) { n.Options[optionMode4], n.Options[optionMode6] = mode, mode })
		e := l.container(mode, mode+"1", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, uint16(8000+i))} })
		l.serve(e.Netns, "published", 80)
		l.serve(e.Netns, "hidden", 81)
		ip4, ip6 := e.IPv4.Addr().String(), e.IPv6.Addr().String()
		published, hidden := "timeout", "timeout"
		switch mode {
		case modeUnprotected:
			published, hidden = " to published", " to hidden"
		case modeRouted:
			published = " to published"
		}
		want := func(from, suffix string) string {
			if suffix == "timeout" {
				return suffix
			}
			return from + suffix
		}
		l.expect(l.lan, "tcp", ip4, 80, want(lan4, published))
		l.expect(l.lan, "tcp", ip6, 80, want(lan6, published))
		l.expect(l.lan, "tcp", ip4, 81, want(lan4, hidden))
		l.expect(l.lan, "tcp", ip6, 81, want(lan6, hidden))
		// The host itself reaches them.
		l.expect("", "tcp", ip4, 81, e.Gateway4.String()+" to hidden")
		l.expect("", "tcp", ip6, 81, e.Gateway6.String()+" to hidden")
		// On the way out they are hidden, except when routed.
		from4, from6 := host4, host6
		if mode == modeRouted {
			from4, from6 = ip4, ip6
		}
		l.expect(e.Netns, "tcp", lan4, 90, from4+" to lan")
		l.expect(e.Netns, "tcp", lan6, 90, from6+" to lan")
	}
}

func TestEphemeralPortsAndRanges(t *testing.T) {
	l := newLab(t)
	l.network("n", nil)
	l.ports.first, l.ports.next, l.ports.last = 40000, 40000, 40003
	first := l.container("n", "a", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 0), tcp(81, 0)} })
	if len(first.Ports) != 4 || first.Ports[0].HostPort != first.Ports[1].HostPort || first.Ports[0].HostPort == first.Ports[2].HostPort {
		t.Fatalf("ephemeral ports: %+v", first.Ports)
	}
	if first.Ports[0].HostIP != netip.IPv4Unspecified() || first.Ports[1].HostIP != netip.IPv6Unspecified() {
		t.Errorf("addresses: %+v", first.Ports)
	}
	// One that is taken in one family only is skipped in both.
	taken, err := net.Listen("tcp6", "[::1]:40002")
	if err != nil {
		t.Fatal(err)
	}
	second := l.container("n", "b", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 0)} })
	if second.Ports[0].HostPort != 40003 || second.Ports[1].HostPort != 40003 {
		t.Errorf("a port of which one half is taken was given: %+v", second.Ports)
	}
	_ = taken.Close()
	a := l.attachment("n", "c")
	a.Ports = []network.Port{tcp(80, 0), tcp(81, 0)}
	if _, err := l.Attach(t.Context(), a); !errors.Is(err, network.ErrPortInUse) {
		t.Errorf("more ports than there are: %v", err)
	}
	// A range gives the first free one.
	a.Ports = []network.Port{{Proto: "tcp", ContainerPort: 80, HostPort: 40000, HostPortEnd: 40002}}
	e, err := l.Attach(t.Context(), a)
	if err != nil || e.Ports[0].HostPort != 40002 {
		t.Errorf("range: %+v, %v", e.Ports, err)
	}
}

func TestTakenPorts(t *testing.T) {
	l := newLab(t)
	l.network("n", nil)
	l.network("only4", func(n *network.Network) { n.IPv6 = false })
	l.container("n", "a", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8080)} })
	other, err := net.Listen("tcp4", "127.0.0.1:8090")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	for _, test := range []struct {
		network string
		port    network.Port
		want    string
		kind    error
	}{
		{"n", tcp(80, 8080), "Bind for 0.0.0.0:8080 failed: port is already allocated", network.ErrPortInUse},
		{"n", network.Port{Proto: "tcp", ContainerPort: 80, HostPort: 8080, HostIP: netip.MustParseAddr("::1")}, "Bind for [::1]:8080 failed: port is already allocated", network.ErrPortInUse},
		{"n", tcp(80, 8090), "failed to bind host port for 0.0.0.0:8090:10.90.0.33:80/tcp: address already in use", network.ErrPortInUse},
		{"n", network.Port{Proto: "tcp", ContainerPort: 80, HostPort: 8091, HostIP: netip.MustParseAddr("198.51.100.7")}, "failed to bind host port for 198.51.100.7:8091/tcp: cannot assign requested address", nil},
		{"n", network.Port{Proto: "icmp", ContainerPort: 80, HostPort: 8091}, `protocol "icmp" is not tcp, udp or sctp`, errdefs.ErrInvalidArgument},
		{"only4", network.Port{Proto: "tcp", ContainerPort: 80, HostPort: 8091, HostIP: netip.MustParseAddr("::1")}, "cannot publish port 80/tcp on ::1", errdefs.ErrInvalidArgument},
	} {
		a := l.attachment(test.network, "b")
		if test.network == "n" {
			a.IPv4 = netip.MustParseAddr("10.90.0.33")
		}
		a.Ports = []network.Port{tcp(70, 8070), test.port}
		_, err := l.Attach(t.Context(), a)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.port, err, test.want)
		}
		if test.kind != nil && !errors.Is(err, test.kind) {
			t.Errorf("%+v: %v is not %v", test.port, err, test.kind)
		}
		// All or nothing: the first port is free again.
		free, err := net.Listen("tcp4", "0.0.0.0:8070")
		if err != nil {
			t.Fatalf("after %+v: %v", test.port, err)
		}
		_ = free.Close()
	}
	// The held port is nobody else's, and free after Detach.
	if _, err := net.Listen("tcp", "[::]:8080"); err == nil {
		t.Error("another process took a published port")
	}
	if err := l.Detach(t.Context(), "n", "a"); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "[::]:8080")
	if err != nil {
		t.Error(err)
	} else {
		_ = free.Close()
	}
}

func TestUpdatePorts(t *testing.T) {
	l := newLab(t)
	l.network("n", nil)
	l.container("n", "other", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8083)} })
	e := l.container("n", "web", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8080), tcp(80, 8081)} })
	l.serve(e.Netns, "web", 80)
	ports, err := l.UpdatePorts(t.Context(), "n", "web", []network.Port{tcp(80, 8081), tcp(80, 8082)})
	if err != nil || len(ports) != 4 {
		t.Fatalf("%+v, %v", ports, err)
	}
	check := func() {
		t.Helper()
		l.expect(l.lan, "tcp", host4, 8080, "refused")
		l.expect(l.lan, "tcp", host4, 8081, lan4+" to web")
		l.expect(l.lan, "tcp", host6, 8082, lan6+" to web")
	}
	check()
	// One that fails leaves all as it was.
	if _, err := l.UpdatePorts(t.Context(), "n", "web", []network.Port{tcp(80, 8084), tcp(80, 8083)}); !errors.Is(err, network.ErrPortInUse) {
		t.Errorf("taken port: %v", err)
	}
	check()
	l.restart()
	check()
	if _, err := l.UpdatePorts(t.Context(), "n", "nobody", nil); !errdefs.IsNotFound(err) {
		t.Errorf("unknown endpoint: %v", err)
	}
}

// Ports that stay are open all the time.
func TestUpdatePortsClosesNothingThatStays(t *testing.T) {
	l := newLab(t)
	l.network("n", nil)
	e := l.container("n", "web", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8080)} })
	l.serve(e.Netns, "web", 80)
	done, failed := make(chan bool), make(chan string, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-done:
				return
			default:
			}
			if got := l.ask(l.lan, "tcp", host4, 8080); got == "refused" {
				failed <- got
				return
			}
		}
	}()
	for i := range 100 {
		if _, err := l.UpdatePorts(t.Context(), "n", "web", []network.Port{tcp(80, 8080), tcp(80, uint16(9000+i))}); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	if got, ok := <-failed; ok {
		t.Errorf("a port that stays was closed meanwhile: %q", got)
	}
}

// A sender that does not pause keeps its flow, and its flow the way it went.
func TestFlowsFollowTheirPort(t *testing.T) {
	l := newLab(t)
	l.network("n", nil)
	var sender net.Conn
	if err := l.in(l.lan, func() (err error) {
		sender, err = net.Dial("udp", net.JoinHostPort(host4, "5300"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sender.Close() }()
	heard := func() string {
		b := make([]byte, 100)
		for range 20 {
			_, _ = sender.Write([]byte("?"))
			_ = sender.SetReadDeadline(deadline())
			if n, err := sender.Read(b); err == nil {
				return strings.TrimSpace(string(b[:n]))
			}
		}
		return "nothing"
	}
	for i := range 3 {
		name := fmt.Sprintf("server%d", i)
		_, _ = sender.Write([]byte("?")) // nobody is there: the kernel notes the flow
		e := l.container("n", name, func(a *network.Attachment) {
			a.Ports = []network.Port{{Proto: "udp", ContainerPort: 53, HostPort: 5300}}
		})
		l.serve(e.Netns, name, 53)
		if got := heard(); got != lan4+" to "+name {
			t.Errorf("after %s took the port: %q", name, got)
		}
		if err := l.Detach(t.Context(), "n", name); err != nil {
			t.Fatal(err)
		}
	}
}

func deadline() time.Time { return time.Now().Add(wait) }
