package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

// dig asks a container's name server from within its network, and answers what
// dig says.
func (c *client) dig(container string, args ...string) string {
	c.Helper()
	out, err := c.tryDig(container, args...)
	if err != nil {
		c.Fatalf("dig %q in %s: %v\n%s", args, container, err, out)
	}
	return out
}

func (c *client) tryDig(container string, args ...string) (string, error) {
	c.Helper()
	return c.inNetwork(container, append([]string{"dig", "@127.0.0.11", "+tries=1", "+time=" + fmt.Sprint(int(private.Patience(5*time.Second).Seconds()))}, args...)...)
}

// inNetwork runs one of the host's programs in a container's network.
func (c *client) inNetwork(container string, command ...string) (string, error) {
	c.Helper()
	pid := c.ok("inspect", "-f", "{{.State.Pid}}", container)
	ctx, cancel := context.WithTimeout(c.Context(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nsenter", append([]string{"--net=/proc/" + pid + "/ns/net"}, command...)...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) || strings.Contains(string(out), "failed to execute dig") {
		c.Fatal("no nsenter or dig: run test/setup.sh test")
	}
	return strings.TrimSpace(string(out)), err
}

// addresses are what a container is told, sorted.
func (c *client) addresses(container string, args ...string) string {
	c.Helper()
	lines := strings.Fields(c.dig(container, append([]string{"+short"}, args...)...))
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// address is where a container is on a network.
func (c *client) address(container, network, field string) string {
	c.Helper()
	return c.ok("inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).%s}}", network, field), container)
}

func TestNamesAsDigSeesThem(t *testing.T) {
	both(t, func(c *client) {
		network := c.own("net.work")
		c.Cleanup(func() { c.run("network", "rm", network) })
		c.ok("network", "create", "--internal", "--ipv6", "--subnet", fmt.Sprintf("fd00:%x:53::/64", 0x200+len(c.name)), network)
		asker, one, two := c.own("asker"), c.own("one"), c.own("two")
		c.background("one", "--network", network, "--network-alias", "shared", "--network-alias", "own.of.one", "--hostname", "host-one", "busybox", "sleep", "600")
		id := c.background("two", "--network", network, "--network-alias", "Shared", "busybox", "sleep", "600")
		c.background("asker", "--network", network, "--link", one+":first", "--link", two, "busybox", "sleep", "600")
		one4, one6 := c.address(one, network, "IPAddress"), c.address(one, network, "GlobalIPv6Address")
		two4, two6 := c.address(two, network, "IPAddress"), c.address(two, network, "GlobalIPv6Address")
		both4, both6 := []string{one4, two4}, []string{one6, two6}
		slices.Sort(both4)
		slices.Sort(both6)
		for _, transport := range []string{"+notcp", "+tcp"} {
			for name, want := range map[string]string{
				one: one4, one + "." + network: one4, strings.ToUpper(one): one4, id[:12]: two4, "host-one": one4, "own.of.one": one4, "own.of.one." + network: one4,
				"first": one4, "FIRST." + network: one4,
				"shared": strings.Join(both4, " "), "SHARED." + network: strings.Join(both4, " "),
			} {
				c.equal(c.addresses(asker, transport, name, "A"), want)
			}
			c.equal(c.addresses(asker, transport, one, "AAAA"), one6)
			c.equal(c.addresses(asker, transport, "shared", "AAAA"), strings.Join(both6, " "))
			c.equal(c.addresses(asker, transport, "-x", two4), two+"."+network+".")
			c.equal(c.addresses(asker, transport, "-x", two6), two+"."+network+".")
		}
		// A link is its owner's alone.
		c.contains(c.dig(two, "first", "A"), "status: SERVFAIL") // and internal networks forward nothing
		c.contains(c.dig(asker, "nosuch", "A"), "status: SERVFAIL")
		for _, kind := range []string{"MX", "TXT", "SRV", "HTTPS"} {
			answer := c.dig(asker, one, kind)
			c.contains(answer, "status: NOERROR")
			c.contains(answer, "ANSWER: 0, AUTHORITY: 1")
			c.contains(answer, "SOA")
		}
		c.contains(c.dig(asker, "+opcode=notify", one, "A"), "status: NOTIMP")
		c.contains(c.dig(asker, "+opcode=update", one, "A"), "status: NOTIMP")
		c.contains(c.dig(asker, "+edns=1", "+noednsneg", one, "A"), "status: BADVERS")
		c.contains(c.dig(asker, one, "AXFR"), "Transfer failed")
		// Programs of the container itself, through its resolv.conf.
		c.contains(c.ok("exec", asker, "nslookup", "shared"), one4)
		c.ok("exec", asker, "ping", "-c", "1", "-W", "5", "first")
		// Among several containers none is always the first.
		eventually(c.T, "each of the two comes first", func() error {
			seen := map[string]bool{}
			for range 8 {
				seen[strings.Fields(c.dig(asker, "+short", "shared"))[0]] = true
			}
			if len(seen) != 2 {
				return fmt.Errorf("first was always one of %v", seen)
			}
			return nil
		})
		c.fails(125, "links are not supported on the default network", "run", "--rm", "--link", one, "busybox", "true")
		c.fails(125, "bad format for links", "run", "--rm", "--network", network, "--link", "a:b:c", "busybox", "true")
	})
}

// What changes is answered at once, and not kept by anybody.
func TestNamesChangeAtOnce(t *testing.T) {
	both(t, func(c *client) {
		network := c.own("net")
		c.Cleanup(func() { c.run("network", "rm", network) })
		c.ok("network", "create", "--internal", network)
		c.background("asker", "--network", network, "busybox", "sleep", "600")
		c.background("web", "--network", "none", "busybox", "sleep", "600")
		asker, web, renamed := c.own("asker"), c.own("web"), c.own("renamed")
		c.Cleanup(func() { c.run("rm", "-f", renamed) })
		known := func(name string) {
			c.Helper()
			answer := c.dig(asker, name, "A")
			c.contains(strings.Join(strings.Fields(answer), " "), " 0 IN A "+c.address(web, network, "IPAddress"))
		}
		unknown := func(name string) {
			c.Helper()
			c.contains(c.dig(asker, name, "A"), "status: SERVFAIL")
		}
		unknown(web)
		c.ok("network", "disconnect", "none", web)
		c.ok("network", "connect", "--alias", "site", "--link", asker+":peer", network, web)
		known(web)
		known("site")
		c.equal(c.addresses(web, "peer"), c.address(asker, network, "IPAddress"))
		c.ok("network", "disconnect", network, web)
		unknown(web)
		unknown("site")
		c.ok("network", "connect", network, web)
		known(web)
		c.ok("rename", web, renamed)
		unknown(web)
		web = renamed
		known(renamed)
		c.ok("stop", "-t", "0", renamed)
		unknown(renamed)
		c.ok("start", renamed)
		known(renamed)
		c.ok("restart", "-t", "0", renamed)
		known(renamed)
		c.ok("kill", renamed)
		c.ok("wait", renamed)
		unknown(renamed)
	})
}

// The engine is killed, and comes back: containers that run meanwhile are told at
// once that nobody answers, and afterwards are answered as before.
func TestNamesComeBackWithTheEngine(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{})
	c := newClient(t, "davit", e)
	network := c.own("net")
	c.ok("network", "create", network)
	c.background("asker", "--network", network, "busybox", "sleep", "600")
	c.background("web", "--network", network, "--network-alias", "site", "busybox", "sleep", "600")
	c.background("linked", "--network", network, "--link", c.own("web")+":peer", "busybox", "sleep", "600")
	address := c.address(c.own("web"), network, "IPAddress")
	pid := c.ok("inspect", "-f", "{{.State.Pid}}", c.own("asker"))
	dig := func() (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		out, err := exec.CommandContext(ctx, "nsenter", "--net=/proc/"+pid+"/ns/net", "dig", "@127.0.0.11", "+tries=1", "+time=30", "+short", "site").CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	for _, end := range []func(context.Context) error{func(context.Context) error { return e.Kill() }, e.Stop} {
		if out, err := dig(); out != address {
			t.Errorf("site is %s, %v, want %s", out, err, address)
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		if err := end(ctx); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if out, err := dig(); err == nil || !strings.Contains(out, "connection refused") {
			t.Errorf("without an engine site is %s, %v", out, err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("which was said after %v", took)
		}
		if err := e.Start(ctx); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an answer of the new engine", func() error {
			if out, err := dig(); out != address {
				return fmt.Errorf("site is %s, %w", out, err)
			}
			return nil
		})
		c.equal(c.addresses(c.own("linked"), "peer"), address)
		c.equal(c.addresses(c.own("asker"), "-x", address), c.own("web")+"."+network+".")
	}
}
