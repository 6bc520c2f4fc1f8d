package e2e

import (
	"fmt"
	"strings"
	"testing"
)

func TestNamesOnAUserDefinedNetwork(t *testing.T) {
	both(t, func(c *client) {
		network := c.own("net")
		c.Cleanup(func() { c.run("network", "rm", network) })
		c.ok("network", "create", "--label", "a=b", network)
		c.fails(1, "already exists", "network", "create", network)
		c.background("server", "--network", network, "--network-alias", "other-name", "busybox", "sh", "-c", "echo page > /tmp/index.html; httpd -f -h /tmp")
		c.background("late", "busybox", "sleep", "600")
		for _, name := range []string{c.own("server"), "other-name"} {
			eventually(c.T, "the page of "+name, func() error {
				if r := c.run("run", "--rm", "--network", network, "busybox", "wget", "-q", "-O", "-", "http://"+name+"/"); r.out != "page\n" {
					return fmt.Errorf("%s%s", r.out, r.err)
				}
				return nil
			})
		}
		// Not on the network: not to be found.
		c.fails(1, "bad address", "exec", c.own("late"), "wget", "-q", "-O", "-", "http://"+c.own("server")+"/")
		c.ok("network", "connect", "--alias", "latecomer", network, c.own("late"))
		c.contains(c.ok("inspect", "-f", "{{json .NetworkSettings.Networks}}", c.own("late")), network)
		c.ok("exec", c.own("server"), "ping", "-c", "1", "-W", "5", "latecomer")
		// A new name is known at once.
		c.ok("rename", c.own("late"), c.own("renamed"))
		c.Cleanup(func() { c.run("rm", "-f", c.own("renamed")) })
		c.ok("exec", c.own("server"), "ping", "-c", "1", "-W", "5", c.own("renamed"))
		c.fails(1, "has active endpoints", "network", "rm", network)
		c.ok("network", "disconnect", network, c.own("renamed"))
		c.fails(1, "is not connected to", "network", "disconnect", network, c.own("renamed"))
		c.contains(c.ok("network", "ls", "-f", "label=a=b", "--format", "{{.Name}} {{.Driver}}"), network+" bridge")
		c.contains(c.ok("network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", network), c.own("server"))
		c.ok("rm", "-f", c.own("server"))
		c.ok("network", "rm", network)
		c.fails(1, "not found", "network", "inspect", network)
	})
}

func TestNetworkModes(t *testing.T) {
	both(t, func(c *client) {
		c.equal(c.ok("run", "--rm", "--network", "none", "busybox", "sh", "-c", "ls /sys/class/net"), "lo")
		host := c.ok("run", "--rm", "--network", "host", "busybox", "ls", "/sys/class/net")
		c.contains(host, engine.Bridge)
		c.background("owner", "busybox", "sleep", "600")
		address := c.ok("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", c.own("owner"))
		c.contains(c.ok("run", "--rm", "--network", "container:"+c.own("owner"), "busybox", "ip", "addr", "show", "eth0"), address+"/")
		c.equal(c.ok("run", "--rm", "--add-host", "here:10.1.2.3", "busybox", "sh", "-c", "grep here /etc/hosts | cut -f1"), "10.1.2.3")
		c.contains(c.ok("run", "--rm", "--dns", "10.9.9.9", "--dns-search", "example.org", "busybox", "cat", "/etc/resolv.conf"), "nameserver 10.9.9.9")
		c.equal(c.ok("run", "--rm", "--pid", "container:"+c.own("owner"), "busybox", "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '"), "sleep 600")
		c.fails(125, "no-such-network", "run", "--rm", "--network", "no-such-network", "busybox", "true")
		c.fails(1, "pre-defined", "network", "rm", "bridge")
	})
}

func TestVolumes(t *testing.T) {
	both(t, func(c *client) {
		volume, dir := c.own("vol"), c.TempDir()
		c.Cleanup(func() { c.run("volume", "rm", volume) })
		c.equal(c.ok("volume", "create", "--label", "a=b", volume), volume)
		c.ok("run", "--rm", "-v", volume+":/v", "busybox", "sh", "-c", "echo kept > /v/file")
		c.equal(c.ok("run", "--rm", "-v", volume+":/v:ro", "busybox", "cat", "/v/file"), "kept")
		c.fails(1, "Read-only file system", "run", "--rm", "-v", volume+":/v:ro", "busybox", "touch", "/v/x")
		c.background("user", "-v", volume+":/v", "busybox", "sleep", "600")
		c.fails(1, "volume is in use", "volume", "rm", volume)
		c.ok("rm", "-f", c.own("user"))
		c.contains(c.ok("volume", "ls", "-q", "-f", "label=a=b"), volume)
		c.contains(read(c.T, c.ok("volume", "inspect", "-f", "{{.Mountpoint}}", volume)+"/file"), "kept")
		c.ok("volume", "rm", volume)
		c.fails(1, "no such volume", "volume", "inspect", volume)
		// A fresh volume starts with what the image has at its place; a bind does not.
		c.equal(c.ok("run", "--rm", "-v", volume+":/data", "busybox", "cat", "/data/from-image"), "image")
		c.equal(c.ok("run", "--rm", "--mount", "type=bind,source="+dir+",target=/data", "busybox", "sh", "-c", "ls /data | wc -l"), "0")
		c.ok("run", "--rm", "-v", dir+":/out", "busybox", "sh", "-c", "echo host > /out/made")
		c.equal(read(c.T, dir+"/made"), "host\n")
		c.fails(125, "bind source path does not exist", "run", "--rm", "--mount", "type=bind,source=/no/such,target=/x", "busybox", "true")
		// Anonymous volumes go with --rm.
		before := strings.Count(c.ok("volume", "ls", "-q"), "\n")
		c.ok("run", "--rm", "-v", "/anonymous", "busybox", "touch", "/anonymous/x")
		_ = before
		c.background("source", "-v", volume+":/data", "busybox", "sleep", "600")
		c.equal(c.ok("run", "--rm", "--volumes-from", c.own("source"), "busybox", "cat", "/data/from-image"), "image")
		c.equal(c.ok("run", "--rm", "--shm-size", "2m", "busybox", "sh", "-c", "df -k /dev/shm | tail -n 1 | awk '{print $2}'"), "2048")
	})
}

func TestUnknownThings(t *testing.T) {
	both(t, func(c *client) {
		c.fails(125, `volume driver "nope" not found; available: local`, "run", "--rm", "--volume-driver", "nope", "-v", c.own("x")+":/y", "busybox", "true")
		c.fails(1, "nope", "volume", "create", "-d", "nope", c.own("x"))
		c.fails(1, "nope", "network", "create", "-d", "nope", c.own("x"))
		c.fails(125, "nope", "run", "--rm", "--runtime", "nope", "busybox", "true")
		c.fails(1, "No such image", "tag", "no-such-image", "x")
		c.fails(1, "No such container", "logs", c.own("nobody"))
		c.fails(1, "No such image", "rmi", "no-such-image")
		c.fails(125, "invalid reference format", "run", "--rm", "UPPER:bad tag", "true")
		c.background("taken", "busybox", "sleep", "600")
		c.fails(125, "is already in use by container", "run", "--rm", "--name", c.own("taken"), "busybox", "true")
		c.fails(125, "Invalid container name", "run", "--rm", "--name", "a/b", "busybox", "true")
		c.fails(125, "unknown capability", "run", "--rm", "--cap-add", "FLY", "busybox", "true")
		c.fails(125, "no log driver named", "run", "--rm", "--log-driver", "pigeon", "busybox", "true")
		c.fails(125, "the working directory", "run", "--rm", "-w", "relative", "busybox", "true")
	})
}

func TestIPv6Networks(t *testing.T) {
	both(t, func(c *client) {
		dual, only6 := c.own("dual"), c.own("only6")
		c.Cleanup(func() { c.run("network", "rm", dual, only6) })
		id := 0x100 + len(c.name)
		c.ok("network", "create", "--ipv6", "--subnet", fmt.Sprintf("fd00:%x:1::/64", id), dual)
		c.equal(c.ok("network", "inspect", "-f", "{{.EnableIPv6}} {{len .IPAM.Config}}", dual), "true 2")
		c.background("web", "--network", dual, "-p", "80", "busybox", "sh", "-c", "echo page > /tmp/index.html; httpd -f -h /tmp")
		inspect := func(format string) string { return c.ok("inspect", "-f", format, c.own("web")) }
		c.equal(inspect("{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}} {{.IPv6Gateway}}{{end}}"), fmt.Sprintf("fd00:%x:1::2/64 fd00:%x:1::1", id, id))
		// One host port, on both families.
		ports := strings.Fields(c.ok("port", c.own("web"), "80"))
		if len(ports) != 2 || strings.TrimPrefix(ports[0], "0.0.0.0") != strings.TrimPrefix(ports[1], "[::]") {
			c.Fatalf("published at %q", ports)
		}
		port := strings.TrimPrefix(ports[0], "0.0.0.0:")
		c.contains(c.ok("ps", "--format", "{{.Ports}}", "--filter", "name="+c.own("web")), "]:"+port+"->80/tcp")
		c.ok("run", "--rm", "--network", dual, "busybox", "sh", "-c", fmt.Sprintf("wget -q -O - http://[fd00:%x:1::2]/ && ! wget -q -T 2 -O - http://[fd00:%x:1::3]/", id, id))
		c.equal(c.ok("run", "--rm", "--network", dual, "busybox", "wget", "-q", "-O", "-", "http://"+c.own("web")+"/"), "page")
		c.equal(c.ok("run", "--rm", "--network", dual, "busybox", "wget", "-q", "-O", "-", fmt.Sprintf("http://[fd00:%x:1::1]:%s/", id, port)), "page")
		c.equal(c.ok("run", "--rm", "--network", dual, "--add-host", "me:host-gateway", "busybox", "sh", "-c", "grep -c 'me$' /etc/hosts"), "2")
		c.contains(c.ok("exec", c.own("web"), "nslookup", "-type=aaaa", c.own("web")), fmt.Sprintf("fd00:%x:1::2", id))
		c.contains(c.ok("run", "--rm", "--network", dual, "--ip6", fmt.Sprintf("fd00:%x:1::77", id), "busybox", "ip", "-6", "addr", "show", "eth0"), fmt.Sprintf("fd00:%x:1::77/64", id))
		c.fails(125, "Address already in use", "run", "--rm", "--network", dual, "--ip6", fmt.Sprintf("fd00:%x:1::2", id), "busybox", "true")
		c.fails(125, "no configured subnet contains IP address fd00:ffff::1", "run", "--rm", "--network", dual, "--ip6", "fd00:ffff::1", "busybox", "true")
		c.fails(1, "Pool overlaps with other one on this address space", "network", "create", "--ipv6", "--subnet", fmt.Sprintf("fd00:%x::/32", id), c.own("overlap"))
		c.fails(125, "has no address of that family", "run", "--rm", "-p", "[::1]:80:80", "busybox", "true")
		if c.name == "docker" {
			return // Debian's client has no --ipv4
		}
		c.ok("network", "create", "--ipv6", "--ipv4=false", only6)
		c.equal(c.ok("network", "inspect", "-f", "{{.EnableIPv4}} {{.EnableIPv6}}", only6), "false true")
		c.background("six", "--network", only6, "busybox", "sh", "-c", "echo six > /tmp/index.html; httpd -f -h /tmp")
		c.equal(c.ok("run", "--rm", "--network", only6, "busybox", "wget", "-q", "-O", "-", "http://"+c.own("six")+"/"), "six")
		c.equal(c.ok("exec", c.own("six"), "sh", "-c", "ip -4 addr show eth0 | wc -l"), "0")
	})
}

// The default route and published ports go where there is a way out.
func TestGatewaysMove(t *testing.T) {
	both(t, func(c *client) {
		a, b, inner := c.own("a"), c.own("b"), c.own("inner")
		c.Cleanup(func() { c.run("network", "rm", a, b, inner) })
		c.ok("network", "create", a)
		c.ok("network", "create", b)
		c.ok("network", "create", "--internal", inner)
		port := freePort(c.T)
		c.background("web", "--network", inner, "-p", fmt.Sprintf("%d:80", port), "busybox", "sh", "-c", "echo page > /tmp/index.html; httpd -f -h /tmp")
		routes := func() string {
			return c.ok("exec", c.own("web"), "sh", "-c", "ip route | grep ^default | cut -d' ' -f5")
		}
		c.equal(routes(), "")
		c.equal(c.ok("port", c.own("web")), "")
		c.ok("network", "connect", b, c.own("web"))
		c.equal(routes(), "eth1")
		c.equal(fetch(c.T, port), "page\n")
		c.ok("network", "connect", a, c.own("web"))
		c.equal(routes(), "eth2") // a is before b
		c.equal(fetch(c.T, port), "page\n")
		c.ok("network", "disconnect", a, c.own("web"))
		c.equal(routes(), "eth1")
		c.equal(fetch(c.T, port), "page\n")
		c.contains(c.ok("port", c.own("web"), "80"), fmt.Sprintf("0.0.0.0:%d", port))
		c.ok("restart", "-t", "0", c.own("web"))
		c.equal(routes(), "eth0")
		c.equal(fetch(c.T, port), "page\n")
		if c.name == "davit" {
			c.ok("network", "connect", "--gw-priority", "5", a, c.own("web"))
			c.equal(c.ok("exec", c.own("web"), "sh", "-c", "ip route | grep ^default | cut -d' ' -f5"), "eth2")
			c.equal(c.ok("run", "--rm", "--network", "name="+a+",driver-opt=com.docker.network.endpoint.ifname=wan0", "--network", "name="+b+",gw-priority=1", "busybox", "sh", "-c", "ip route | grep ^default | cut -d' ' -f5; ls /sys/class/net | grep wan"), "eth0\nwan0")
		}
		c.ok("network", "disconnect", b, c.own("web"))
	})
}

// Published ports change under a running container, which Docker cannot.
func TestUpdatePublishedPorts(t *testing.T) {
	t.Parallel()
	c := newClient(t, "davit", engine)
	first, second, third := freePort(t), freePort(t), freePort(t)
	page := []string{"busybox", "sh", "-c", "echo page > /tmp/index.html; httpd -f -h /tmp"}
	c.background("web", append([]string{"-p", fmt.Sprintf("%d:80", first)}, page...)...)
	c.background("other", append([]string{"-p", fmt.Sprintf("%d:80", third)}, page...)...)
	c.equal(fetch(t, first), "page\n")
	c.ok("update", "--publish", fmt.Sprintf("127.0.0.1:%d:80", second), c.own("web"))
	c.equal(fetch(t, second), "page\n")
	c.equal(c.ok("port", c.own("web")), fmt.Sprintf("80/tcp -> 127.0.0.1:%d", second))
	// One that fails changes nothing.
	c.fails(1, "port is already allocated", "update", "-p", fmt.Sprintf("%d:80", third), c.own("web"))
	c.equal(fetch(t, second), "page\n")
	c.ok("restart", "-t", "0", c.own("web"))
	c.equal(fetch(t, second), "page\n")
	c.ok("update", "--publish", "", c.own("web"))
	c.equal(c.ok("port", c.own("web")), "")
	c.fails(1, "publishes no ports", "update", "-p", "80", c.background("none", "--network", "none", "busybox", "sleep", "600"))
	c.fails(1, "No such container", "update", "-p", "80", c.own("nobody"))
}
