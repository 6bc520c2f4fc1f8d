package bridge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/davit-engine/davit/sdk/network"
)

// eventually waits for a condition, with a bound.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("%s: not within %s", what, time.Since(begin))
		}
	}
}

func TestRulesComeBack(t *testing.T) {
	l := newLab(t)
	l.network("n", nil)
	e := l.container("n", "web", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8080)} })
	l.serve(e.Netns, "web", 80)
	works := func() {
		t.Helper()
		eventually(t, "the port answers again", func() bool {
			return l.ask(l.lan, "tcp", host4, 8080) == lan4+" to web" && l.ask("", "tcp", "::1", 8080) == e.Gateway6.String()+" to web"
		})
	}
	works()
	for _, damage := range []string{
		"nft flush ruleset",
		"nft delete table inet davit",
		"nft flush table inet davit",
		"nft flush chain inet davit prerouting",
		"nft flush map inet davit ports4",
		"nft flush ruleset; nft add table inet davit; nft add chain inet davit user",
	} {
		before := l.sh("nft list table inet davit")
		l.sh(damage)
		eventually(t, "after "+damage, func() bool { out, _ := l.try("", "nft list table inet davit"); return out == before })
		works()
	}
	// A port that comes while everything is gone brings all of it back by itself.
	l.watcher.close()
	l.sh("nft flush ruleset")
	second := l.container("n", "second", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8081)} })
	l.serve(second.Netns, "second", 80)
	l.expect(l.lan, "tcp", host4, 8080, lan4+" to web")
	l.expect(l.lan, "tcp", host6, 8081, lan6+" to second")
	// So does one that goes.
	l.sh("nft flush map inet davit ports4")
	if err := l.Detach(t.Context(), "n", "second"); err != nil {
		t.Fatal(err)
	}
	if out := l.sh("nft list map inet davit ports6"); strings.Contains(out, "8081") {
		t.Errorf("half a port was left:\n%s", out)
	}
	var err error
	if l.watcher, err = newWatcher(l.Driver); err != nil {
		t.Fatal(err)
	}
}

func TestRulesOfOthersAreLeftAlone(t *testing.T) {
	l := newLab(t)
	l.sh("nft add table ip filter", "nft add chain ip filter DOCKER", "nft add table inet firewalld", "nft 'add chain inet firewalld in { type filter hook input priority 10; }'")
	defer l.sh("nft delete table ip filter", "nft delete table inet firewalld")
	theirs := func() string { return l.sh("nft list table ip filter; nft list table inet firewalld") }
	before := theirs()
	l.network("n", nil)
	l.container("n", "web", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8080)} })
	l.restart()
	if after := theirs(); after != before {
		t.Errorf("changed from\n%s\nto\n%s", before, after)
	}
}

func TestTheAdministratorsChain(t *testing.T) {
	l := newLab(t)
	l.network("n", nil)
	e := l.container("n", "web", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8080), tcp(81, 8081)} })
	l.serve(e.Netns, "web", 80)
	l.serve(e.Netns, "web", 81)
	// As docs/networking.md has it.
	l.sh("nft 'add rule inet davit user meta l4proto tcp ct original proto-dst 8080 ip saddr != 203.0.113.0/24 ct state new drop'")
	check := func(open8080, open8081 string) {
		t.Helper()
		l.expect(l.lan, "tcp", host4, 8080, open8080)
		l.expect(l.lan, "tcp", host6, 8081, open8081)
		l.expect("", "tcp", "127.0.0.1", 8080, e.Gateway4.String()+" to web") // not forwarded: not asked
	}
	check("timeout", lan6+" to web")
	l.restart() // kept by the next process, and by every change of networks
	l.network("other", nil)
	check("timeout", lan6+" to web")
	// Restricted, everything is closed to other hosts except what the chain accepts.
	l.Close()
	l.config.Restricted = true
	l.start()
	l.sh("nft flush chain inet davit user")
	check("timeout", "timeout")
	l.sh("nft add rule inet davit user ip daddr " + e.IPv4.Addr().String() + " tcp dport 80 accept")
	check(lan4+" to web", "timeout")
	neighbour := l.container("other", "neighbour", nil)
	l.expect(neighbour.Netns, "tcp", host4, 8081, neighbour.IPv4.Addr().String()+" to web")
	l.sh("nft flush chain inet davit user")
}

func TestTheNextProcessGoesOn(t *testing.T) {
	l := newLab(t)
	l.network("n", nil)
	e := l.container("n", "web", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8080), tcp(80, 0)} })
	l.serve(e.Netns, "web", 80)
	before := l.sh("nft list table inet davit")
	l.restart()
	if after := l.sh("nft list table inet davit"); after != before {
		t.Errorf("rules changed from\n%s\nto\n%s", before, after)
	}
	l.expect(l.lan, "tcp", host6, int(e.Ports[3].HostPort), lan6+" to web")
	state, err := l.List(t.Context())
	if err != nil || len(state.Endpoints) != 1 || fmt.Sprint(state.Endpoints[0]) != fmt.Sprint(e) {
		t.Errorf("%+v, %v; want %+v", state.Endpoints, err, e)
	}
	// Asking again gives the same.
	again, err := l.Attach(t.Context(), network.Attachment{NetworkID: "n", EndpointID: "web"})
	if err != nil || fmt.Sprint(again) != fmt.Sprint(e) {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestVanishedBridge(t *testing.T) {
	l := newLab(t)
	l.network("n", func(n *network.Network) { n.Options[optionICC] = "true" })
	e := l.container("n", "web", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8080)} })
	l.serve(e.Netns, "web", 80)
	l.sh("ip link del dv-n")
	if got := l.ask(l.lan, "tcp", host4, 8080); strings.Contains(got, "web") {
		t.Fatalf("the bridge is there: %q", got)
	}
	second := l.container("n", "second", nil)
	l.expect(second.Netns, "tcp", e.IPv6.Addr().String(), 80, second.IPv6.Addr().String()+" to web")
	l.expect(l.lan, "tcp", host4, 8080, lan4+" to web")
	l.expect("", "tcp", "::1", 8080, e.Gateway6.String()+" to web")
	// A network without bridge is also deleted, and made anew by a restart.
	l.sh("ip link del dv-n")
	l.restart()
	l.expect(l.lan, "tcp", host6, 8080, lan6+" to web")
}

// Where bridged packets pass through the firewall, ::1 is refused at once rather
// than left without an answer, and all else works.
func TestBridgedPacketsThroughTheFirewall(t *testing.T) {
	for _, kind := range []string{"iptables", "ip6tables"} {
		path := "net/bridge/bridge-nf-call-" + kind
		if err := writeSysctl(path, "1"); err != nil {
			t.Skip("the kernel has no br_netfilter:", err)
		}
		defer func() { _ = writeSysctl(path, "0") }()
	}
	l := newLab(t)
	l.network("n", nil)
	e := l.container("n", "web", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8080)} })
	l.serve(e.Netns, "web", 80)
	l.expect("", "tcp", "::1", 8080, "refused")
	l.expect("", "tcp", "127.0.0.1", 8080, e.Gateway4.String()+" to web")
	l.expect("", "tcp", host6, 8080, host6+" to web")
	l.expect(l.lan, "tcp", host6, 8080, lan6+" to web")
	l.expect(e.Netns, "tcp", host4, 8080, e.Gateway4.String()+" to web")
	l.expect(e.Netns, "tcp", host6, 8080, e.Gateway6.String()+" to web")
	neighbour := l.container("n", "neighbour", nil)
	l.expect(neighbour.Netns, "tcp", host4, 8080, e.Gateway4.String()+" to web")
	l.expect(neighbour.Netns, "tcp", host6, 8080, e.Gateway6.String()+" to web")
}

func TestAThousandPorts(t *testing.T) {
	l := newLab(t)
	l.network("n", nil)
	var ports []network.Port
	for i := range 1000 {
		ports = append(ports, tcp(uint16(1000+i), uint16(20000+i)))
	}
	a := l.attachment("n", "web")
	a.Ports = ports
	begin := time.Now()
	e, err := l.Attach(t.Context(), a)
	t.Logf("1,000 ports on IPv4 and IPv6 published in %s", time.Since(begin))
	if err != nil || len(e.Ports) != 2000 {
		t.Fatalf("%d ports, %v", len(e.Ports), err)
	}
	l.serve(e.Netns, "last", 1999)
	l.expect(l.lan, "tcp", host6, 20999, lan6+" to last")
	if rules := l.sh("nft list table inet davit | grep -c 'dnat ip'"); rules != "8" {
		t.Errorf("%s rules change destinations, want 8 whatever the number of ports", rules)
	}
	begin = time.Now()
	if err := l.Detach(t.Context(), "n", "web"); err != nil {
		t.Fatal(err)
	}
	t.Logf("withdrawn in %s", time.Since(begin))
}
