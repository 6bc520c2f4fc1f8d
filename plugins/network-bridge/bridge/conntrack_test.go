package bridge

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/davit-engine/davit/sdk/network"
)

// TestAFullConntrack lets clients take every entry that the kernel has for
// connections: they keep theirs, others wait in vain, containers come and go, and
// as soon as there is room a new client is served. The limit is the whole machine's,
// so that it is lowered only where the machine is the test's.
func TestAFullConntrack(t *testing.T) {
	if os.Getenv("DAVIT_TEST_GUEST") == "" {
		t.Skip("the limit of connections is the machine's: only in the guest (make test-vm)")
	}
	l := newLab(t)
	l.network("one", nil)
	web := l.container("one", "web", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8080)} })
	l.echo(web.Netns, 80)

	const name = "net.netfilter.nf_conntrack_max"
	machine := "nsenter --net=/proc/1/ns/net sysctl -n "
	before := l.sh(machine + name)
	t.Cleanup(func() { l.sh(machine + "-w " + name + "=" + before) })
	const limit = 40
	l.sh(machine + "-w " + name + "=" + strconv.Itoa(limit))

	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	dial := func() (c net.Conn, err error) {
		err = l.in(l.lan, func() error {
			c, err = net.DialTimeout("tcp", net.JoinHostPort(host4, "8080"), 4*wait)
			return err
		})
		return c, err
	}
	for {
		c, err := dial()
		if err != nil {
			if !os.IsTimeout(err) {
				t.Fatalf("client %d: %v", len(held), err)
			}
			break
		}
		if held = append(held, c); len(held) > limit {
			t.Fatalf("%d clients are served, and the kernel remembers %d connections", len(held), limit)
		}
	}
	if len(held) < limit/2 {
		t.Errorf("only %d clients are served", len(held))
	}
	for i, c := range held {
		line := fmt.Sprintf("client %d\n", i)
		_ = c.SetDeadline(time.Now().Add(20 * wait))
		_, err := c.Write([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := bufio.NewReader(c).ReadString('\n'); got != line {
			t.Errorf("client %d reads %q, %v", i, got, err)
		}
	}
	// What the driver does needs no connections.
	l.container("one", "other", func(a *network.Attachment) { a.Ports = []network.Port{tcp(80, 8081)} })
	if err := l.Detach(t.Context(), "one", "other"); err != nil {
		t.Error(err)
	}
	l.sh(machine + "-w " + name + "=" + before)
	c, err := dial()
	if err != nil {
		t.Fatalf("with room again: %v", err)
	}
	held = append(held, c)
}

// echo answers each line with itself, as long as the client likes.
func (l *lab) echo(ns string, port int) {
	l.Helper()
	listener := l.listen(ns, port)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					if _, err := c.Write([]byte(strings.TrimSpace(lines.Text()) + "\n")); err != nil {
						return
					}
				}
			}()
		}
	}()
}
