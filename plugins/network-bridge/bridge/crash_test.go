package bridge

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/sdk/network"
)

// churnIn names the driver's directory, and the namespaces, with which a child
// process of the test calls the driver until it is killed.
const churnIn = "DAVIT_TEST_CHURN"

func churn() {
	args := strings.Split(os.Getenv(churnIn), ":")
	config := Config{Bridge: "davit0", Table: "davit", MTU: 1500, Pools: labPools()}
	d, err := New(args[0], config, hclog.NewNullLogger())
	must := func(err error) {
		if err != nil {
			fmt.Println("calls that are cut off later:", err)
			os.Exit(1)
		}
	}
	must(err)
	ctx := context.Background()
	for round := 0; ; round++ {
		id := fmt.Sprint("net", round%2)
		_, err := d.CreateNetwork(ctx, network.Network{ID: id, Name: id, IPv4: true, IPv6: true})
		must(err)
		for i, ns := range args[1:] {
			_, err := d.Attach(ctx, network.Attachment{
				NetworkID: id, EndpointID: fmt.Sprint("end", i), Netns: ns, Interface: fmt.Sprint("eth", round), Gateway4: true,
				Ports: []network.Port{tcp(80, uint16(8080+i)), {Proto: "udp", ContainerPort: 80, HostPort: uint16(8080 + i)}},
			})
			must(err)
			_, err = d.UpdatePorts(ctx, id, fmt.Sprint("end", i), []network.Port{tcp(80, uint16(8090+i))})
			must(err)
			must(d.SetGateway(ctx, id, fmt.Sprint("end", i), false, true))
		}
		for i := range args[1:] {
			must(d.Detach(ctx, id, fmt.Sprint("end", i)))
		}
		must(d.DeleteNetwork(ctx, id))
	}
}

// A driver that is killed in the middle of any call leaves what the next one
// can go on with, or take away.
func TestKilledInTheMiddle(t *testing.T) {
	l := newLab(t)
	spaces := []string{l.namespace(), l.namespace()}
	for round := range 12 {
		l.Close()
		child := exec.CommandContext(t.Context(), "/proc/self/exe")
		child.Env = append(os.Environ(), churnIn+"="+strings.Join(append([]string{l.root}, spaces...), ":"))
		var said strings.Builder
		child.Stdout = &said
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// Any moment is as good as another: the point is that it is in the middle.
		time.Sleep(time.Duration(20+round*11) * time.Millisecond)
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if _ = child.Wait(); said.Len() > 0 {
			t.Fatal(said.String())
		}
		l.start()
		state, err := l.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// What was acknowledged or begun is known, with everything it needs.
		for _, n := range state.Networks {
			l.sh("ip link show dv-" + n.ID)
		}
		rules := ""
		if len(state.Networks) > 0 {
			rules = l.sh("nft list table inet davit")
		}
		for _, e := range state.Endpoints {
			for _, p := range e.Ports {
				if !strings.Contains(rules, fmt.Sprintf("%s . %d : ", p.Proto, p.HostPort)) {
					t.Errorf("port %+v is not published:\n%s", p, rules)
				}
			}
		}
		if err := l.Reconcile(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		for port := 8080; port < 8092; port++ {
			free, err := net.Listen("tcp", fmt.Sprint(":", port))
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			_ = free.Close()
		}
		eventually(t, "links are gone", func() bool {
			out := l.sh("ip -o link show type veth; ip -o link show type bridge")
			return !strings.Contains(out, "vethend") && !strings.Contains(out, "dv-net")
		})
	}
}

// An endpoint that a crash left half attached is not taken for a whole one.
func TestAnAttachmentThatWasCutOff(t *testing.T) {
	l := newLab(t)
	l.network("n", nil)
	e := l.container("n", "web", nil)
	l.Close()
	if err := l.files.saveEndpoint(e, true); err != nil {
		t.Fatal(err)
	}
	l.start()
	if state, err := l.List(t.Context()); err != nil || len(state.Endpoints) != 0 {
		t.Errorf("%+v, %v", state.Endpoints, err)
	}
	again := l.container("n", "web", func(a *network.Attachment) { a.Netns = e.Netns })
	if got := l.shIn(e.Netns, "ip -br -4 addr show"); !strings.Contains(got, again.IPv4.String()) {
		t.Errorf("interfaces %q, want one with %s", got, again.IPv4)
	}
}
