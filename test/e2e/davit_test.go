package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPluginsOfTheEngine(t *testing.T) {
	t.Parallel()
	c := newClient(t, "davit", engine)
	list := c.ok("plugin", "ls", "--format", "{{.Name}} {{.Driver}} {{.State}}")
	for _, want := range []string{"network-bridge bridge ready", "runtime-native native ready", "storage-overlay overlay ready", "volume-local local ready"} {
		c.contains(list, want)
	}
	var found []map[string]any
	if err := json.Unmarshal([]byte(c.ok("plugin", "inspect", "storage-overlay")), &found); err != nil {
		t.Fatal(err)
	}
	if sum, _ := found[0]["SHA256"].(string); len(sum) != 64 {
		t.Errorf("no digest in %v", found)
	}
	c.fails(1, "no such plugin", "plugin", "inspect", "storage-nothing")
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	c := newClient(t, "davit", engine)
	c.ok("run", "--rm", "busybox", "true") // the first container makes the default network
	out := c.ok("doctor")
	c.contains(out, "open to other hosts, past the host's input rules (table "+engine.Table+")")
	for _, want := range []string{"kernel", "namespaces", "cgroup", "overlayfs", "nftables", "engine", "This host can run containers"} {
		c.contains(out, want)
	}
	if strings.Contains(out, "FAIL") {
		t.Error(out)
	}
	// Without an engine it says what to do.
	c.fails(1, "systemctl start davitd", "-H", "unix:///no/such.sock", "doctor")
	c.fails(1, "Is davitd running?", "-H", "unix:///no/such.sock", "ps")
}

func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	c := newClient(t, "davit", engine)
	c.fails(1, "unknown command", "dance")
	c.fails(125, "unknown flag: --dance", "run", "--dance", "busybox")
	c.fails(1, `"davit run" requires at least 1 argument`, "run")
	c.fails(1, `"davit tag" requires exactly 2 arguments`, "tag", "one")
	c.fails(125, "invalid argument \"lots\" for \"--memory\"", "run", "--memory", "lots", "busybox")
	c.fails(125, "invalid containerPort", "run", "-p", "80:x", "busybox")
	c.fails(125, "unexpected key 'nonsense'", "run", "--mount", "nonsense=1,target=/x", "busybox")
	c.fails(1, "bad format of filter", "ps", "-f", "nonsense")
	c.fails(64, "template parsing error", "ps", "--format", "{{.Names")
	c.contains(c.ok("--help"), "doctor")
	c.contains(c.ok("run", "--help"), "--publish")
}
