package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/test/private"
)

// TestCheckpoints stops a container where it is and goes on from there, with
// both clients.
func TestCheckpoints(t *testing.T) {
	program, err := exec.LookPath("criu")
	if err != nil {
		t.Skip("criu is not installed: run make test, which installs it")
	}
	if out, err := exec.Command(program, "check").CombinedOutput(); err != nil {
		t.Skipf("criu does not work on this kernel: %v: %s", err, out)
	}
	e := ownEngine(t, private.Options{Config: "experimental = true"})
	for _, name := range []string{"docker", "davit"} {
		t.Run(name, func(t *testing.T) { checkpoints(newClient(t, name, e)) })
	}
}

func checkpoints(c *client) {
	box, data := c.own("box"), c.own("data")
	c.Cleanup(func() { c.run("volume", "rm", "-f", data) })
	port := freePort(c.T)
	c.background("box", "--restart", "always", "-m", "64m", "-v", data+":/data", "-p", fmt.Sprintf("%d:80", port), "busybox", "sh", "-c",
		"echo served >/data/index.html; n=0; while :; do n=$((n+1)); echo $n; usleep 50000; done")
	last := func() int {
		lines := strings.Fields(c.ok("logs", box))
		if len(lines) == 0 {
			return 0
		}
		n, err := strconv.Atoi(lines[len(lines)-1])
		if err != nil {
			c.Fatal(err)
		}
		return n
	}
	counts := func(beyond int) {
		c.Helper()
		eventually(c.T, "the counter", func() error {
			if n := last(); n < beyond {
				return fmt.Errorf("it is at %d, not at %d", n, beyond)
			}
			return nil
		})
	}
	counts(3)
	c.ok("checkpoint", "create", "--leave-running", box, "first")
	counts(last() + 3)
	c.fails(1, "checkpoint with name first already exists", "checkpoint", "create", box, "first")
	c.fails(1, "Invalid checkpoint ID (../x)", "checkpoint", "create", box, "../x")
	c.ok("checkpoint", "create", box, "second")
	c.equal(c.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", box), "exited 137 0")
	at := last()
	c.contains(c.ok("checkpoint", "ls", box), "first\n")
	c.contains(c.ok("checkpoint", "ls", box), "second")
	c.fails(1, "checkpoint third does not exist for container "+box, "start", "--checkpoint", "third", box)
	c.ok("start", "--checkpoint", "second", box)
	counts(at + 3)
	for i, line := range strings.Fields(c.ok("logs", box))[at-1 : at+2] {
		c.equal(line, strconv.Itoa(at+i))
	}
	c.ok("exec", box, "httpd", "-h", "/data")
	c.contains(fetch(c.T, port), "served")
	c.equal(c.ok("exec", box, "cat", "/data/index.html"), "served")
	c.contains(c.ok("stats", "--no-stream", box), "64MiB")

	// A driver that dies in the middle takes nothing along.
	killed := c.own("killed")
	c.background("killed", "busybox", "sh", "-c", "dd if=/dev/zero of=/dev/shm/large bs=1M count=40 2>/dev/null; n=0; while :; do n=$((n+1)); echo $n >/n; usleep 50000; done")
	eventually(c.T, "the second counter", func() error { _, err := c.number(killed); return err })
	dir := filepath.Join(c.engine.Root, "containers", c.ok("inspect", "-f", "{{.Id}}", killed), "checkpoints")
	driver := c.plugin("runtime-native")
	answer := make(chan result, 1)
	go func() { answer <- c.run("checkpoint", "create", killed, "cut") }()
	eventually(c.T, "the checkpoint's beginning", func() error { _, err := os.Stat(filepath.Join(dir, "cut.partial")); return err })
	if err := unix.Kill(driver, unix.SIGKILL); err != nil {
		c.Error(err)
	}
	if r := <-answer; r.code == 0 {
		// The driver's successor has made it.
		c.equal(c.ok("inspect", "-f", "{{.State.Status}}", killed), "exited")
		c.contains(c.ok("checkpoint", "ls", killed), "cut")
		c.ok("start", "--checkpoint", "cut", killed)
	} else {
		c.equal(strings.TrimSpace(strings.TrimPrefix(c.ok("checkpoint", "ls", killed), "CHECKPOINT NAME")), "")
	}
	eventually(c.T, "the container to go on", func() error {
		before, err := c.number(killed)
		if err != nil {
			return err
		}
		after, err := c.number(killed)
		if err == nil && after == before {
			err = fmt.Errorf("it stays at %d", before)
		}
		return err
	})
	eventually(c.T, "a checkpoint after that", func() error {
		if r := c.run("checkpoint", "create", killed, "whole"); r.code != 0 {
			return fmt.Errorf("%s", r.err)
		}
		return nil
	})
	c.ok("checkpoint", "rm", killed, "whole")
	c.fails(1, "checkpoint whole does not exist", "checkpoint", "rm", killed, "whole")
}

// number is what the second counter has written.
func (c *client) number(box string) (int, error) {
	r := c.run("exec", box, "cat", "/n")
	if r.code != 0 {
		return 0, fmt.Errorf("%s", r.err)
	}
	return strconv.Atoi(strings.TrimSpace(r.out))
}

// plugin is the process of a plugin of the client's engine.
func (c *client) plugin(name string) int {
	c.Helper()
	for line := range strings.Lines(newClient(c.T, "davit", c.engine).ok("plugin", "ls")) {
		if fields := strings.Fields(line); len(fields) > 0 && strings.Contains(line, name) {
			for _, field := range fields {
				if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
					return pid
				}
			}
		}
	}
	c.Fatalf("plugin %s has no process", name)
	return 0
}
