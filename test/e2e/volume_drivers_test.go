package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/davit-engine/davit/test/private"
)

// TestVolumesInMemory outlive their containers, the driver and the core.
func TestVolumesInMemory(t *testing.T) {
	e := ownEngine(t, private.Options{})
	c := newClient(t, "docker", e)
	c.ok("volume", "create", "-d", "tmpfs", "-o", "size=4m", "-o", "mode=0750", "memory")
	t.Cleanup(func() { c.run("volume", "rm", "-f", "memory", "filled") })
	c.equal(c.ok("volume", "inspect", "-f", "{{.Driver}} {{.Options.size}}", "memory"), "tmpfs 4m")
	c.fails(1, `volume option "sise" is none of size, mode, uid, gid`, "volume", "create", "-d", "tmpfs", "-o", "sise=4m", "other")
	c.equal(c.ok("run", "--rm", "-v", "memory:/m", "busybox", "sh", "-c", "echo kept > /m/file; stat -c %a /m; df -m /m | tail -1 | awk '{print $1, $2}'"), "750\ntmpfs 4")
	c.fails(1, "No space left on device", "run", "--rm", "-v", "memory:/m", "busybox", "dd", "if=/dev/zero", "of=/m/large", "bs=1M", "count=5")
	c.ok("run", "--rm", "-v", "memory:/m", "busybox", "rm", "/m/large")
	c.background("user", "-v", "memory:/m", "busybox", "sleep", "600")
	kill(t, plugin(t, e, "volume-tmpfs").PID)
	c.fails(1, "volume is in use", "volume", "rm", "memory")
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c.ok("rm", "-f", c.own("user"))
	c.equal(c.ok("run", "--rm", "-v", "memory:/m", "busybox", "cat", "/m/file"), "kept")
	// What the image has there is in a new one.
	c.equal(c.ok("run", "--rm", "--mount", "type=volume,source=filled,target=/data,volume-driver=tmpfs", "busybox", "ls", "/data"), "from-image")
	place := c.ok("volume", "inspect", "-f", "{{.Mountpoint}}", "filled")
	if mountedAt(t, place) == "" {
		t.Errorf("nothing is mounted at %s", place)
	}
	c.ok("volume", "rm", "memory", "filled")
	if left := mountedAt(t, place); strings.Contains(left, "tmpfs") {
		t.Errorf("%s is still mounted: %s", place, left)
	}
}
