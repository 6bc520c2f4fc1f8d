package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/test/private"
)

// otherRuntimes makes a driver of each OCI runtime that there is, beside the one
// that is installed, and answers an engine that has them.
func otherRuntimes(t *testing.T) (*private.Engine, []string) {
	t.Helper()
	bin, err := private.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	programs := map[string]string{"davit": filepath.Join(bin, "davit-oci")}
	for _, name := range []string{"runc", "crun"} {
		if found, err := exec.LookPath(name); err == nil {
			programs[name] = found
		}
	}
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup/unified", &fs) == nil {
		delete(programs, "crun") // it refuses to work where both versions of cgroups are
	}
	manifest := read(t, filepath.Join(bin, "plugins", "davit-runtime-oci.json"))
	var names []string
	tables := ""
	for name, program := range programs {
		driver := "x" + name
		path := filepath.Join(dir, "davit-runtime-"+driver)
		if err := os.Link(filepath.Join(bin, "plugins", "davit-runtime-oci"), path); err != nil {
			write(t, path, read(t, filepath.Join(bin, "plugins", "davit-runtime-oci")))
			if err := os.Chmod(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		write(t, path+".json", strings.NewReplacer(`"runtime-oci"`, `"runtime-`+driver+`"`, `"driver": "oci"`, `"driver": "`+driver+`"`).Replace(manifest))
		tables += fmt.Sprintf("[plugins.config.runtime-%s]\nprogram = %q\nmonitor = %q\n", driver, program, filepath.Join(bin, "davit-monitor"))
		names = append(names, driver)
	}
	return ownEngine(t, private.Options{Plugins: []string{dir}, Tables: tables}), names
}

// TestOtherRuntimes runs containers of several OCI runtimes side by side on one
// engine, each with everything that a container does in its life.
func TestOtherRuntimes(t *testing.T) {
	e, names := otherRuntimes(t)
	for _, p := range pluginStates(t, e) {
		if strings.HasPrefix(p, "runtime-x") && !strings.HasSuffix(p, " idle") {
			t.Errorf("nobody has called %s", p)
		}
	}
	for _, client := range []string{"docker", "davit"} {
		for _, name := range names {
			t.Run(client+"/"+name[1:], func(t *testing.T) { lifeOnRuntime(newClient(t, client, e), name) })
		}
	}
	for _, p := range pluginStates(t, e) {
		if strings.HasPrefix(p, "runtime-x") && !strings.HasSuffix(p, " ready") {
			t.Errorf("after its use: %s", p)
		}
	}
}

func pluginStates(t *testing.T, e *private.Engine) (list []string) {
	t.Helper()
	plugins, err := e.Plugins(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins {
		list = append(list, p.Name+" "+p.State)
	}
	return list
}

func lifeOnRuntime(c *client, name string) {
	c.Helper()
	runs := func(args ...string) []string { return append([]string{"run", "--runtime", name}, args...) }
	c.equal(c.ok(runs("--rm", "-e", "A=b", "-w", "/tmp", "busybox", "sh", "-c", "echo $A; pwd")...), "b\n/tmp")
	c.fails(7, "", runs("--rm", "busybox", "sh", "-c", "exit 7")...)
	c.fails(127, "executable file not found", runs("--rm", "busybox", "nosuch")...)
	c.fails(126, "", runs("--rm", "busybox", "/etc")...)
	c.fails(125, "shared", runs("--rm", "-v", "/tmp:/x:rshared", "busybox", "true")...)
	// A part of a volume, and a terminal.
	volume := c.own("volume")
	c.Cleanup(func() { c.run("volume", "rm", "-f", volume) })
	c.ok(runs("--rm", "-v", volume+":/v", "busybox", "sh", "-c", "mkdir -p /v/a/b; echo part > /v/a/b/file")...)
	c.equal(c.ok(runs("--rm", "--mount", "type=volume,src="+volume+",dst=/x,volume-subpath=a/b", "busybox", "cat", "/x/file")...), "part")
	p := openTerminal(c, runs("--rm", "-it", "busybox", "sh")...)
	p.expect("# ")
	p.send("stty size; tty\n")
	p.expect("33 77")
	p.send("exit 5\n")
	if code := p.wait(); code != 5 {
		c.Errorf("the terminal's shell ended with %d", code)
	}

	c.ok(runs("-d", "--name", c.own("life"), "--memory", "64m", "busybox", "sh", "-c", "echo begun; trap 'echo told; exit 3' TERM; while :; do sleep 0.1; done")...)
	life := c.own("life")
	c.Cleanup(func() { c.run("rm", "-f", life) })
	c.equal(c.ok("exec", life, "sh", "-c", "echo in; exit 0"), "in")
	c.fails(9, "", "exec", life, "sh", "-c", "exit 9")
	c.fails(127, "nosuch", "exec", life, "nosuch")
	p = openTerminal(c, "exec", "-it", life, "sh")
	p.expect("# ")
	p.send("stty size; exit 4\n")
	p.expect("33 77")
	if code := p.wait(); code != 4 {
		c.Errorf("the terminal's exec ended with %d", code)
	}
	c.contains(c.ok("top", life), "sleep")
	c.contains(c.ok("stats", "--no-stream", life), "64MiB")
	c.ok("pause", life)
	c.equal(c.ok("inspect", "-f", "{{.State.Status}}", life), "paused")
	c.ok("unpause", life)
	c.ok("update", "--memory", "80m", "--memory-swap", "80m", life)
	c.contains(c.ok("stats", "--no-stream", life), "80MiB")
	c.equal(c.ok("exec", life, "true"), "")

	// The driver dies, and the container goes on.
	for _, plugin := range mustPlugins(c) {
		if plugin.Driver == name {
			kill(c.T, plugin.PID)
		}
	}
	eventually(c.T, "an exec with the next driver process", func() error {
		if r := c.run("exec", life, "echo", "again"); r.out != "again\n" {
			return errors.New(r.err)
		}
		return nil
	})
	c.ok("stop", "-t", "30", life)
	c.equal(c.ok("inspect", "-f", "{{.State.ExitCode}}", life), "3")
	c.contains(c.ok("logs", life), "begun\ntold")
	c.ok("start", life)
	c.ok("kill", life)
	eventually(c.T, "the end", func() error {
		if got := c.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", life); got != "exited 137" {
			return errors.New(got)
		}
		return nil
	})
	c.ok("rm", life)
}

func mustPlugins(c *client) []private.PluginStatus {
	c.Helper()
	plugins, err := c.engine.Plugins(c.Context())
	if err != nil {
		c.Fatal(err)
	}
	return plugins
}

// TestContainersOfAnotherRuntimeSurviveTheEngine kills the core, and then a monitor.
func TestContainersOfAnotherRuntimeSurviveTheEngine(t *testing.T) {
	e, names := otherRuntimes(t)
	c := newClient(t, "davit", e)
	for _, name := range names {
		c.ok("run", "-d", "--runtime", name, "--name", name, "busybox", "sh", "-c", "i=0; while sleep 0.1; do i=$((i+1)); echo $i; done")
	}
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		c.equal(c.ok("exec", name, "echo", "still"), "still")
		monitor := parent(t, c.ok("inspect", "-f", "{{.State.Pid}}", name))
		if err := syscall.Kill(monitor, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the end of "+name, func() error {
			if got := c.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}", name); !strings.HasPrefix(got, "exited 137 the container's monitor") {
				return errors.New(got)
			}
			return nil
		})
		c.ok("rm", name)
	}
}

// parent is the process that a container's init has as its parent.
func parent(t *testing.T, pid string) int {
	t.Helper()
	for line := range strings.Lines(read(t, "/proc/"+pid+"/status")) {
		var ppid int
		if n, _ := fmt.Sscanf(line, "PPid:\t%d", &ppid); n == 1 {
			return ppid
		}
	}
	t.Fatalf("process %s has no parent", pid)
	return 0
}
