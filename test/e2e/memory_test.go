package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

// hungry has one process after the other killed for want of memory, whenever
// somebody asks for it.
const hungry = "while :; do if rm /tmp/eat 2>/dev/null; then (x=a; while :; do x=$x$x; done); fi; sleep 0.1; done"

// TestWantOfMemoryIsTold: a process that is killed for want of memory is an
// event and a flag of its container, which goes on; also after a restart of the
// runtime driver and of the core.
func TestWantOfMemoryIsTold(t *testing.T) {
	e := ownEngine(t, private.Options{})
	c := newClient(t, "davit", e)
	box := c.own("hungry")
	c.background("hungry", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", hungry)
	told := func() {
		t.Helper()
		begin := strconv.FormatInt(time.Now().Unix(), 10)
		c.ok("exec", box, "touch", "/tmp/eat")
		eventually(t, "the event", func() error {
			out := c.ok("events", "--since", begin, "--until", strconv.FormatInt(time.Now().Unix()+1, 10), "-f", "container="+box, "--format", "{{.Action}}")
			if !strings.Contains(out, "oom") {
				return fmt.Errorf("no oom in %q", out)
			}
			return nil
		})
		c.equal(c.ok("inspect", "-f", "{{.State.OOMKilled}} {{.State.Running}}", box), "true true")
	}
	c.equal(c.ok("inspect", "-f", "{{.State.OOMKilled}}", box), "false")
	told()
	plugins, err := e.Running(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins {
		if p.Kind != "runtime" {
			continue
		}
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the driver's end", func() error {
			if _, err := os.Stat("/proc/" + strconv.Itoa(p.PID)); err == nil {
				return fmt.Errorf("process %d is there", p.PID)
			}
			return nil
		})
	}
	told()
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	told()
	c.ok("stop", "-t", "0", box)
	c.ok("start", box)
	c.equal(c.ok("inspect", "-f", "{{.State.OOMKilled}}", box), "false")
}
