package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

func TestAnInitIsTheFirstProcess(t *testing.T) {
	both(t, func(c *client) {
		c.equal(c.ok("run", "--rm", "--init", "busybox", "cat", "/proc/1/comm"), "docker-init")
		c.equal(c.ok("run", "--rm", "--init=false", "busybox", "cat", "/proc/1/comm"), "cat")
		// Where others' processes are seen there is an init already.
		c.fails(1, "", "run", "--rm", "--init", "--pid", "host", "busybox", "test", "-e", "/sbin/docker-init")
		c.fails(7, "", "run", "--rm", "--init", "busybox", "sh", "-c", "exit 7")
		c.fails(127, "no-such-command", "run", "--rm", "--init", "busybox", "no-such-command")
		c.fails(126, "permission denied", "run", "--rm", "--init", "busybox", "/etc/passwd")
		c.equal(c.ok("run", "--rm", "--init", "--read-only", "-u", "nobody", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "busybox", "id", "-u"), "65534")
		// As the first process, sleep would not hear of SIGTERM.
		box := c.own("box")
		c.background("box", "--init", "busybox", "sh", "-c", "echo ready; exec sleep 600")
		eventually(c.T, "the program", func() error {
			if r := c.run("logs", box); r.out != "ready\n" {
				return fmt.Errorf("%s%s", r.out, r.err)
			}
			return nil
		})
		began := time.Now()
		c.ok("stop", "-t", "60", box)
		if took := time.Since(began); took > 30*time.Second {
			c.Errorf("stop took %s: the signal did not reach the program", took)
		}
		c.equal(c.ok("inspect", "-f", "{{.State.ExitCode}} {{.HostConfig.Init}}", box), "143 true")
	})
}

func TestTheProgramOfAnInitHasTheTerminal(t *testing.T) {
	both(t, func(c *client) {
		p := openTerminal(c, "run", "--rm", "-it", "--init", "busybox", "sh", "-c",
			"trap 'echo interrupted; exit 6' INT; awk '{ print \"foreground\", $5 == $8 }' /proc/self/stat; while :; do sleep 0.05; done")
		p.expect("foreground 1")
		p.send("\x03")
		p.expect("interrupted")
		if code := p.wait(); code != 6 {
			c.Errorf("exit code %d, want the program's 6", code)
		}
	})
}

func TestTheEngineMayGiveEveryContainerAnInit(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{Config: "init = true"})
	c := newClient(t, "docker", e)
	c.equal(c.ok("run", "--rm", "busybox", "cat", "/proc/1/comm"), "docker-init")
	c.equal(c.ok("run", "--rm", "--init=false", "busybox", "cat", "/proc/1/comm"), "cat")
	c.equal(c.ok("info", "-f", "{{.InitBinary}}"), "davit-init")
}
