package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

// ownEngine is an engine that a test may hurt.
func ownEngine(t *testing.T, o private.Options) *private.Engine {
	t.Helper()
	e, err := private.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the engine's log ends with\n%s", e.LogTail())
		}
		if err := e.CleanUp(); err != nil {
			t.Error("after the test:", err)
		}
	})
	if err := importBusybox(ctx, e); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestHundredContainers starts, stops and removes them, 8 at a time.
func TestHundredContainers(t *testing.T) {
	e := ownEngine(t, private.Options{})
	c := newClient(t, "davit", e)
	for _, step := range []struct {
		name string
		args func(name string) []string
	}{
		{"run", func(name string) []string {
			return []string{"run", "-d", "--name", name, "-v", "/scratch", "-m", "32m", "busybox", "sleep", "600"}
		}},
		{"exec", func(name string) []string { return []string{"exec", name, "true"} }},
		{"stop", func(name string) []string { return []string{"stop", "-t", "0", name} }},
		{"start", func(name string) []string { return []string{"start", name} }},
		{"remove", func(name string) []string { return []string{"rm", "-fv", name} }},
	} {
		begin := time.Now()
		var group sync.WaitGroup
		names := make(chan string)
		for range 8 {
			group.Go(func() {
				for name := range names {
					if r := c.run(step.args(name)...); r.code != 0 {
						t.Errorf("%s of %s: %s", step.name, name, r.err)
					}
				}
			})
		}
		for i := range 100 {
			names <- "box" + strconv.Itoa(i)
		}
		close(names)
		group.Wait()
		t.Logf("%s: %.0f/s", step.name, 100/time.Since(begin).Seconds())
		if t.Failed() {
			return
		}
		if step.name == "start" {
			ids := strings.Fields(c.ok("ps", "-q", "--no-trunc"))
			c.equal(strconv.Itoa(len(ids)), "100")
			smallMonitors(t, ids)
		}
	}
	c.equal(c.ok("ps", "-aq"), "")
	c.equal(c.ok("volume", "ls", "-q"), "")
	// CleanUp looks for leaks.
}

// TestNothingStopsContainers kills every part of the engine, in turn and during
// work.
func TestNothingStopsContainers(t *testing.T) {
	e := ownEngine(t, private.Options{})
	c := newClient(t, "davit", e)
	port := freePort(t)
	c.ok("network", "create", "net")
	t.Cleanup(func() { c.run("network", "rm", "net") })
	c.background("web", "--network", "net", "-p", fmt.Sprintf("%d:8080", port), "-v", "data:/data", "--restart", "always", "busybox",
		"sh", "-c", "echo page > /tmp/index.html; while :; do echo tick; sleep 0.1; done & httpd -f -p 8080 -h /tmp")
	t.Cleanup(func() { c.run("volume", "rm", "data") })
	web := c.own("web")
	c.equal(fetch(t, port), "page\n")
	pid := c.ok("inspect", "-f", "{{.State.Pid}}", web)
	plugins, err := e.Running(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins {
		kill(t, p.PID)
		c.equal(fetch(t, port), "page\n")
		// The next call waits until the driver is back.
		c.equal(c.ok("run", "--rm", "--network", "net", "-v", "data:/data", "busybox", "wget", "-q", "-O", "-", "http://"+web+":8080/"), "page")
		c.equal(c.ok("exec", web, "echo", "alive"), "alive")
	}
	for range 3 {
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		c.equal(fetch(t, port), "page\n")
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err := e.Start(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		c.equal(c.ok("inspect", "-f", "{{.State.Pid}} {{.State.Status}}", web), pid+" running")
		c.equal(fetch(t, port), "page\n")
		c.equal(c.ok("exec", web, "echo", "alive"), "alive")
		c.contains(c.ok("logs", "--tail", "1", web), "tick")
	}
	// The ticks of the time without a core are in the log: none is missing.
	r := c.run("logs", "-t", web)
	var last time.Time
	for line := range strings.Lines(r.out) {
		stamp, _, _ := strings.Cut(line, " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			t.Fatal(err)
		}
		if !last.IsZero() && at.Sub(last) > private.Patience(3*time.Second) {
			t.Errorf("no tick between %s and %s", last, at)
		}
		last = at
	}
}

// TestTheEndOfAContainerIsNotMissed ends containers while there is no core.
func TestTheEndOfAContainerIsNotMissed(t *testing.T) {
	e := ownEngine(t, private.Options{})
	c := newClient(t, "davit", e)
	c.background("ends", "busybox", "sh", "-c", "while [ ! -e /end ]; do sleep 0.02; done; exit 42")
	c.background("again", "--restart", "always", "busybox", "sleep", "600")
	c.background("monitored", "busybox", "sleep", "600")
	root := "/proc/" + c.ok("inspect", "-f", "{{.State.Pid}}", c.own("ends")) + "/root/end"
	again, err := strconv.Atoi(c.ok("inspect", "-f", "{{.State.Pid}}", c.own("again")))
	if err != nil {
		t.Fatal(err)
	}
	monitor := monitorOf(t, c.ok("inspect", "-f", "{{.Id}}", c.own("monitored")))
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	write(t, root, "")
	kill(t, again)
	kill(t, monitor)
	eventually(t, "the end of the first container", func() error {
		if _, err := os.Stat(root); err == nil {
			return errors.New("still there")
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c.equal(c.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", c.own("ends")), "exited 42")
	eventually(t, "the restart", func() error {
		if got := c.ok("inspect", "-f", "{{.State.Status}}", c.own("again")); got != "running" {
			return errors.New(got)
		}
		return nil
	})
	// A container whose monitor was killed is killed, too: nobody holds its streams.
	eventually(t, "the end of the container without a monitor", func() error {
		if got := c.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}", c.own("monitored")); !strings.HasPrefix(got, "exited 137 the container's monitor") {
			return errors.New(got)
		}
		return nil
	})
}

// TestAKilledMonitorTakesItsContainerAlong kills a monitor under a running
// engine: the container's processes are found and killed, the user is told why,
// and the restart policy applies.
func TestAKilledMonitorTakesItsContainerAlong(t *testing.T) {
	c := newClient(t, "davit", engine)
	c.background("watched", "busybox", "sh", "-c", "trap '' TERM HUP PIPE; while :; do sleep 0.1; done")
	c.background("returns", "--restart", "always", "busybox", "sleep", "600")
	var pids []string
	for _, name := range []string{"watched", "returns"} {
		monitor := monitorOf(t, c.ok("inspect", "-f", "{{.Id}}", c.own(name)))
		pid := c.ok("inspect", "-f", "{{.State.Pid}}", c.own(name))
		outside(t, monitor, pid)
		pids = append(pids, pid)
		kill(t, monitor)
	}
	c.fails(1, "the container's monitor", "wait", c.own("watched"))
	c.contains(c.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}", c.own("watched")), "exited 137 the container's monitor")
	// Dead it is; the host's init may not have collected it yet.
	if body, err := os.ReadFile("/proc/" + pids[0] + "/stat"); err == nil && !strings.Contains(string(body), ") Z ") {
		t.Errorf("the container's process lives on: %s", body)
	}
	eventually(t, "the restart", func() error {
		if got := c.ok("inspect", "-f", "{{.State.Status}} {{.State.Pid}} {{.State.Error}}", c.own("returns")); !strings.HasPrefix(got, "running ") || strings.Contains(got, pids[1]) || strings.Contains(got, "monitor") {
			return errors.New(got)
		}
		return nil
	})
}

// outside proves that a monitor is not in its container's cgroups, nor its OOM
// score the container's.
func outside(t *testing.T, monitor int, pid string) {
	t.Helper()
	groups, own := read(t, fmt.Sprintf("/proc/%d/cgroup", monitor)), read(t, "/proc/"+pid+"/cgroup")
	for line := range strings.Lines(own) {
		if _, path, _ := strings.Cut(strings.TrimSpace(line), ":/"); path != "" && strings.Contains(groups, line) {
			t.Errorf("the monitor is in the container's cgroup %s", line)
		}
	}
	if score := strings.TrimSpace(read(t, "/proc/"+pid+"/oom_score_adj")); score != "0" {
		t.Errorf("the container's OOM score is %s", score)
	}
}

// smallMonitors proves that the monitors of idle containers have at most 1.5 MiB
// each for themselves alone, and says how much it is.
func smallMonitors(t *testing.T, ids []string) {
	t.Helper()
	const most = 1536
	sum, largest := 0, 0
	eventually(t, "idle monitors that are small", func() error {
		sum, largest = 0, 0
		for _, id := range ids {
			kib := 0
			for line := range strings.Lines(read(t, fmt.Sprintf("/proc/%d/smaps_rollup", monitorOf(t, id)))) {
				if strings.HasPrefix(line, "Private_") && !strings.HasPrefix(line, "Private_Hugetlb") {
					n, err := strconv.Atoi(strings.Fields(line)[1])
					if err != nil {
						t.Fatal(err)
					}
					kib += n
				}
			}
			sum, largest = sum+kib, max(largest, kib)
		}
		if largest > most {
			return fmt.Errorf("one has %d KiB, %d on average", largest, sum/len(ids))
		}
		return nil
	})
	t.Logf("monitors of %d containers: %d KiB private each, at most %d", len(ids), sum/len(ids), largest)
}

// monitorOf finds the process that has the container's ID as its argument.
func monitorOf(t *testing.T, id string) int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		if body, err := os.ReadFile(line); err == nil && string(body) == "davit-monitor\x00"+id+"\x00" {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(line)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no monitor of " + id)
	return 0
}

// TestCrashesInTheMiddle kills the core at many points of its work; each start
// finds a sane state and, in the end, nothing is left.
func TestCrashesInTheMiddle(t *testing.T) {
	e := ownEngine(t, private.Options{})
	c := newClient(t, "davit", e)
	for i := range 12 {
		stop := make(chan struct{})
		var group sync.WaitGroup
		for worker := range 3 {
			group.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					name := fmt.Sprintf("crash-%d-%d-%d", i, worker, n)
					// Errors are expected: the engine dies under these commands.
					c.run("run", "-d", "--name", name, "-v", "/scratch", "busybox", "sleep", "600")
					c.run("rm", "-fv", name)
				}
			})
		}
		time.Sleep(time.Duration(20+i*23) * time.Millisecond)
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		close(stop)
		group.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err := e.Start(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		// What was acknowledged is there and works; what was not can be removed.
		for _, id := range strings.Fields(c.ok("ps", "-aq")) {
			c.ok("rm", "-fv", id)
		}
		c.equal(c.ok("run", "--rm", "busybox", "echo", "works"), "works")
	}
	eventually(t, "no volume is left", func() error {
		if left := c.ok("volume", "ls", "-q"); left != "" {
			return errors.New(left)
		}
		return nil
	})
}

// TestFullDisk runs an engine on a small filesystem until nothing fits.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	disk, place := filepath.Join(dir, "disk"), filepath.Join(dir, "m")
	if err := os.Mkdir(place, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(48<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", disk}, {"mount", "-o", "loop", disk, place}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", place).CombinedOutput(); err != nil {
			t.Errorf("unmounting: %v\n%s", err, out)
		}
	})
	e := ownEngine(t, private.Options{Dir: place})
	c := newClient(t, "davit", e)
	// A file that is removed makes room for the word of it in the log: root's reserve
	// is filled, too, where the kernel lets containers have it.
	c.background("fills", "busybox", "sh", "-c", "head -c 65536 /dev/zero > /spare; dd if=/dev/zero of=/big bs=1M 2> /dev/shm/why; rm /spare; cat /dev/shm/why; sleep 600")
	eventually(t, "the full disk", func() error {
		if r := c.run("logs", c.own("fills")); !strings.Contains(r.out+r.err, "No space left on device") {
			return fmt.Errorf("%s%s", r.out, r.err)
		}
		return nil
	})
	big := archiveOf(t, map[string]string{"file": strings.Repeat("x", 20<<20)})
	c.fails(1, "no space left on device", "import", big, "too-big")
	c.fails(1, "no space left on device", "cp", big, c.own("fills")+":/another")
	// The engine is as it was, and works again when there is room.
	c.equal(c.ok("images", "-q", "too-big"), "")
	c.contains(c.ok("ps"), c.own("fills"))
	c.ok("rm", "-f", c.own("fills"))
	eventually(t, "room", func() error {
		if r := c.run("run", "--rm", "busybox", "echo", "works"); r.out != "works\n" {
			return errors.New(r.err)
		}
		return nil
	})
}

// TestSickPlugins puts plugins that must not run beside good ones: the engine
// says why they do not, and works without them.
func TestSickPlugins(t *testing.T) {
	bin, err := private.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	sick := t.TempDir()
	if err := os.Chmod(sick, 0o755); err != nil {
		t.Fatal(err)
	}
	install := func(name, program string, mode os.FileMode, manifest string) {
		t.Helper()
		path := filepath.Join(sick, "davit-"+name)
		if err := os.WriteFile(path, []byte(program), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		write(t, path+".json", manifest)
	}
	template := read(t, filepath.Join(bin, "plugins", "davit-volume-local.json"))
	as := func(name string) string {
		_, driver, _ := strings.Cut(name, "-")
		lines := []string{}
		for line := range strings.Lines(template) {
			switch {
			case strings.Contains(line, `"sha256"`):
				continue
			case strings.Contains(line, `"name"`):
				line = fmt.Sprintf("  \"name\": %q,\n", name)
			case strings.Contains(line, `"driver"`):
				line = fmt.Sprintf("  \"driver\": %q,\n", driver)
			}
			lines = append(lines, line)
		}
		return strings.Join(lines, "")
	}
	install("volume-crashing", "#!/bin/sh\necho going down >&2\nexit 3\n", 0o755, as("volume-crashing"))
	install("volume-hanging", "#!/bin/sh\nsleep 1000\n", 0o755, as("volume-hanging"))
	install("volume-writable", "#!/bin/sh\nexit 0\n", 0o777, as("volume-writable"))
	install("volume-changed", "#!/bin/sh\nexit 0\n", 0o755, strings.Replace(as("volume-changed"), "{\n", "{\n  \"sha256\": \""+strings.Repeat("0", 64)+"\",\n", 1))
	install("volume-broken", "#!/bin/sh\nexit 0\n", 0o755, "{")
	install("volume-foreign", "#!/bin/sh\necho '1|99|unix|/x|grpc|'\nsleep 1000\n", 0o755, as("volume-foreign"))
	e := ownEngine(t, private.Options{Plugins: []string{sick}, StartTimeout: 3 * time.Second})
	c := newClient(t, "davit", e)
	for name, why := range map[string]string{
		"volume-crashing": "exit status 3", "volume-hanging": "was not ready within", "volume-writable": "writable", "volume-changed": "its manifest says", "volume-foreign": "protocol",
	} {
		eventually(t, name, func() error {
			got := c.ok("plugin", "inspect", "-f", "{{.State}}: {{.LastError}}", name)
			if strings.HasPrefix(got, "ready") || !strings.Contains(strings.ToLower(got), why) {
				return fmt.Errorf("%s: want %q", got, why)
			}
			return nil
		})
	}
	c.contains(e.LogTail(), "davit-volume-broken.json")
	c.equal(c.ok("run", "--rm", "-v", "good:/v", "busybox", "echo", "works"), "works")
	c.ok("volume", "rm", "good")
	begin := time.Now()
	c.fails(1, "hanging", "volume", "create", "-d", "hanging", "x")
	if took := time.Since(begin); took > private.Patience(30*time.Second) {
		t.Errorf("a hanging plugin holds its users for %s", took)
	}
}
