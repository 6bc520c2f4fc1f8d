package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

func TestRunPrintsWhatTheCommandSays(t *testing.T) {
	both(t, func(c *client) {
		r := c.run("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
		c.equal(r.out, "out\n")
		c.equal(r.err, "err\n")
		if r.code != 7 {
			c.Errorf("exit code %d, want the command's 7", r.code)
		}
		c.equal(c.with("one\ntwo\n").ok("run", "--rm", "-i", "busybox", "wc", "-l"), "2")
	})
}

func TestExitCodesOfRun(t *testing.T) {
	both(t, func(c *client) {
		c.fails(127, "executable file not found in $PATH", "run", "--rm", "busybox", "no-such-command")
		c.fails(127, "no such file or directory", "run", "--rm", "busybox", "/no/such/file")
		c.fails(126, "permission denied", "run", "--rm", "busybox", "/etc/passwd")
		c.fails(125, "Error response from daemon", "run", "--rm", "--memory", "1m", "busybox", "true")
		c.fails(137, "", "run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $PPID'; (sleep 0.1; kill -9 1) & kill -9 $$; exit 137")
		c.fails(0, "", "run", "--rm", "busybox", "true")
	})
}

func TestATerminal(t *testing.T) {
	both(t, func(c *client) {
		p := openTerminal(c, "run", "--rm", "-it", "busybox", "sh")
		p.expect("/ # ")
		p.send("stty size; tty; echo $TERM\n")
		p.expect("33 77")
		p.expect("/dev/pts/0")
		p.expect("xterm")
		p.resize(44, 99)
		eventually(c.T, "the new size", func() error {
			p.send("stty size\n")
			if !p.reads("44 99", 500*time.Millisecond) {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		p.send("exit 5\n")
		if code := p.wait(); code != 5 {
			c.Errorf("exit code %d, want the shell's 5", code)
		}
	})
}

func TestDetachAndAttachAgain(t *testing.T) {
	both(t, func(c *client) {
		name := c.own("box")
		c.Cleanup(func() { c.run("rm", "-f", name) })
		p := openTerminal(c, "run", "-it", "--name", name, "busybox", "sh")
		p.expect("/ # ")
		p.send("echo first\n")
		p.expect("first")
		p.send("\x10\x11") // ctrl-p ctrl-q
		if code := p.wait(); code != 0 {
			c.Errorf("exit code %d after detaching", code)
		}
		c.equal(c.ok("inspect", "-f", "{{.State.Status}}", name), "running")
		p = openTerminal(c, "attach", name)
		p.send("echo again\n")
		p.expect("again")
		p.send("exit 3\n")
		if code := p.wait(); code != 3 {
			c.Errorf("exit code %d, want the shell's 3", code)
		}
	})
}

func TestExec(t *testing.T) {
	both(t, func(c *client) {
		c.background("box", "-e", "A=1", "-w", "/tmp", "busybox", "sleep", "600")
		box := c.own("box")
		c.equal(c.ok("exec", "-e", "B=2", box, "sh", "-c", "echo $A $B $(pwd)"), "1 2 /tmp")
		c.equal(c.ok("exec", "-u", "nobody", "-w", "/", box, "sh", "-c", "id -u; pwd"), "65534\n/")
		c.equal(c.with("hello").ok("exec", "-i", box, "cat"), "hello")
		c.fails(9, "", "exec", box, "sh", "-c", "exit 9")
		c.fails(127, "executable file not found", "exec", box, "no-such-command")
		c.fails(1, "No such container", "exec", c.own("nobody"), "true")
		c.ok("exec", "-d", box, "sh", "-c", "echo done > /tmp/mark")
		eventually(c.T, "the detached command", func() error {
			if r := c.run("exec", box, "cat", "/tmp/mark"); r.out != "done\n" {
				return fmt.Errorf("%s%s", r.out, r.err)
			}
			return nil
		})
		p := openTerminal(c, "exec", "-it", box, "sh")
		p.expect("/tmp # ")
		p.send("stty size\n")
		p.expect("33 77")
		p.send("exit 4\n")
		if code := p.wait(); code != 4 {
			c.Errorf("exit code %d, want 4", code)
		}
	})
}

func TestLogs(t *testing.T) {
	both(t, func(c *client) {
		box := c.own("box")
		c.background("box", "busybox", "sh", "-c", "echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three; while [ ! -e /go ]; do sleep 0.05; done; echo four")
		eventually(c.T, "three lines", func() error {
			if r := c.run("logs", box); strings.Count(r.out, "\n")+strings.Count(r.err, "\n") != 3 {
				return fmt.Errorf("%q %q", r.out, r.err)
			}
			return nil
		})
		r := c.run("logs", box)
		c.equal(r.out, "one\nthree\n")
		c.equal(r.err, "two\n")
		c.equal(c.run("logs", "--tail", "1", box).out, "three\n")
		c.contains(c.run("logs", "-t", box).out, "Z one")
		followed := make(chan result)
		go func() { followed <- c.run("logs", "-f", box) }()
		c.ok("exec", box, "touch", "/go")
		select {
		case r := <-followed:
			c.equal(r.out, "one\nthree\nfour\n")
		case <-time.After(private.Patience(30 * time.Second)):
			c.Fatal("logs -f does not end with the container")
		}
	})
}

// TestLogOptions are seen in the log's file and by logs --details.
func TestLogOptions(t *testing.T) {
	both(t, func(c *client) {
		box := c.own("box")
		c.Cleanup(func() { c.run("rm", "-f", box) })
		c.ok("run", "--name", box, "--label", "team=blue", "-e", "STAGE=a b", "--log-opt", "max-size=20k", "--log-opt", "max-file=4", "--log-opt", "compress=true",
			"--log-opt", "labels=team", "--log-opt", "env=STAGE", "--log-opt", "tag={{.Name}}", "busybox", "seq", "1", "400")
		c.equal(c.ok("logs", "--details", "--tail", "1", box), "STAGE=a+b,tag="+box+",team=blue 400")
		var want strings.Builder
		for i := 1; i <= 400; i++ {
			fmt.Fprintln(&want, i)
		}
		c.equal(c.run("logs", box).out, want.String())
		path := c.ok("inspect", "-f", "{{.LogPath}}", box)
		if packed, err := filepath.Glob(path + ".*.gz"); err != nil || len(packed) == 0 {
			c.Errorf("nothing is compressed beside %s: %v", path, err)
		}
		c.fails(125, "unknown log opt 'colour' for json-file log driver", "run", "--rm", "--log-opt", "colour=red", "busybox", "true")
		c.fails(125, "compress cannot be true when max-file is less than 2", "run", "--rm", "--log-opt", "compress=true", "--log-opt", "max-file=1", "busybox", "true")
	})
}

func TestLifeOfAContainer(t *testing.T) {
	both(t, func(c *client) {
		box, state := c.own("box"), "{{.State.Status}} {{.State.ExitCode}}"
		c.Cleanup(func() { c.run("rm", "-f", box, c.own("new")) })
		c.ok("create", "--name", box, "busybox", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")
		c.equal(c.ok("inspect", "-f", state, box), "created 0")
		c.equal(c.ok("start", box), box)
		c.equal(c.ok("inspect", "-f", state, box), "running 0")
		c.ok("pause", box)
		c.equal(c.ok("inspect", "-f", "{{.State.Status}} {{.State.Paused}}", box), "paused true")
		c.fails(1, "is paused", "exec", box, "true")
		c.ok("unpause", box)
		c.ok("stop", box)
		c.equal(c.ok("inspect", "-f", state, box), "exited 3")
		c.ok("start", box)
		c.ok("restart", "-t", "5", box)
		c.ok("kill", box)
		c.equal(c.ok("wait", box), "137")
		c.equal(c.ok("inspect", "-f", state, box), "exited 137")
		c.ok("rename", box, c.own("new"))
		c.fails(1, "No such container", "start", box)
		c.ok("start", c.own("new"))
		c.fails(1, "container is running", "rm", c.own("new"))
		c.ok("rm", "-f", c.own("new"))
		c.fails(1, "No such container", "rm", c.own("new"))
	})
}

func TestListing(t *testing.T) {
	both(t, func(c *client) {
		box := c.own("box")
		id := c.background("box", "-l", "who="+c.prefix, "busybox", "sleep", "600")
		c.equal(c.ok("ps", "--no-trunc", "-q", "-f", "label=who="+c.prefix), id)
		c.equal(c.ok("ps", "-f", "name="+box, "--format", "{{.Names}} {{.Image}} {{.Command}}"), box+` busybox "sleep 600"`)
		c.contains(c.ok("ps"), "CONTAINER ID")
		c.ok("stop", "-t", "0", box)
		c.equal(c.ok("ps", "-q", "-f", "name="+box), "")
		c.equal(c.ok("ps", "-aq", "--no-trunc", "-f", "name="+box, "-f", "status=exited"), id)
	})
}

func TestInspectTopAndStats(t *testing.T) {
	both(t, func(c *client) {
		box := c.own("box")
		id := c.background("box", "-m", "64m", "--cpus", "0.5", "--pids-limit", "50", "busybox", "sleep", "600")
		var list []struct {
			ID         string `json:"Id"`
			Name       string
			State      struct{ Pid int }
			HostConfig struct{ Memory, NanoCpus, PidsLimit int64 }
		}
		if err := json.Unmarshal([]byte(c.ok("inspect", box)), &list); err != nil || len(list) != 1 {
			c.Fatalf("inspect: %v", err)
		}
		got := list[0]
		if got.ID != id || got.Name != "/"+box || got.HostConfig.Memory != 64<<20 || got.HostConfig.NanoCpus != 5e8 || got.HostConfig.PidsLimit != 50 {
			c.Errorf("inspect: %+v", got)
		}
		if _, err := os.Stat("/proc/" + strconv.Itoa(got.State.Pid)); err != nil || got.State.Pid == 0 {
			c.Errorf("process %d: %v", got.State.Pid, err)
		}
		top := c.ok("top", box)
		c.contains(top, "PID")
		c.contains(top, "sleep 600")
		c.contains(top, strconv.Itoa(got.State.Pid))
		c.contains(c.ok("top", box, "-o", "pid,comm"), "COMMAND")
		stats := c.ok("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", box)
		c.contains(stats, "/ 64MiB 1")
		c.ok("update", "--memory", "96m", "--memory-swap", "-1", box)
		c.contains(c.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", box), "/ 96MiB")
	})
}

func TestCopy(t *testing.T) {
	both(t, func(c *client) {
		box, dir := c.own("box"), c.TempDir()
		c.background("box", "busybox", "sleep", "600")
		write(c.T, filepath.Join(dir, "in"), "content\n")
		if err := os.Mkdir(filepath.Join(dir, "tree"), 0o750); err != nil {
			c.Fatal(err)
		}
		write(c.T, filepath.Join(dir, "tree", "leaf"), "leaf\n")
		for _, state := range []string{"running", "stopped"} {
			c.ok("cp", filepath.Join(dir, "in"), box+":/tmp/"+state)
			c.ok("cp", box+":/tmp/"+state, filepath.Join(dir, state))
			c.equal(read(c.T, filepath.Join(dir, state)), "content\n")
			c.ok("cp", filepath.Join(dir, "tree"), box+":/home/"+state)
			c.ok("cp", box+":/home/"+state, dir+"/back-"+state)
			c.equal(read(c.T, filepath.Join(dir, "back-"+state, "leaf")), "leaf\n")
			c.fails(1, "Could not find the file", "cp", box+":/no/such", dir)
			if state == "running" {
				c.equal(c.ok("exec", box, "stat", "-c", "%a %u", "/home/running"), "750 0")
				c.ok("stop", "-t", "0", box)
			}
		}
		diff := c.ok("diff", box)
		c.contains(diff, "A /tmp/running")
		c.contains(diff, "C /tmp")
		if strings.Contains(diff, "/proc") || strings.Contains(diff, "/etc/hosts") {
			c.Errorf("diff shows what davit puts into every container:\n%s", diff)
		}
	})
}

// TestCopyStaysInside tries to leave a container through links in it.
func TestCopyStaysInside(t *testing.T) {
	both(t, func(c *client) {
		box, dir := c.own("box"), c.TempDir()
		secret := filepath.Join(dir, "secret")
		write(c.T, secret, "of the host\n")
		c.background("box", "busybox", "sh", "-c", fmt.Sprintf("ln -s %s /leak; ln -s / /root-link; ln -s ../../../../../.. /up; ln -s %s /dir; sleep 600", secret, dir))
		eventually(c.T, "links", func() error {
			if r := c.run("exec", box, "test", "-L", "/dir"); r.code != 0 {
				return fmt.Errorf("not there")
			}
			return nil
		})
		for _, path := range []string{"/up" + secret, "/root-link" + secret, "/dir/secret"} {
			c.fails(1, "Could not find the file", "cp", box+":"+path, filepath.Join(dir, "stolen"))
		}
		c.fails(1, "too many levels of symbolic links", "cp", box+":/proc/1/root"+secret, filepath.Join(dir, "stolen"))
		c.fails(1, "", "cp", secret, box+":/dir/planted")
		c.fails(1, "", "cp", secret, box+":/up/"+dir+"/planted")
		if _, err := os.Stat(filepath.Join(dir, "planted")); err == nil {
			c.Error("a file was written outside the container")
		}
	})
}

func TestRestartPolicies(t *testing.T) {
	both(t, func(c *client) {
		c.background("often", "--restart", "on-failure:2", "busybox", "false")
		eventually(c.T, "two restarts", func() error {
			if got := c.ok("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", c.own("often")); got != "2 exited" {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
		c.background("always", "--restart", "always", "busybox", "sleep", "600")
		pid := c.ok("inspect", "-f", "{{.State.Pid}}", c.own("always"))
		number, err := strconv.Atoi(pid)
		if err != nil {
			c.Fatal(err)
		}
		kill(c.T, number)
		eventually(c.T, "another process", func() error {
			if got := c.ok("inspect", "-f", "{{.State.Pid}}", c.own("always")); got == pid || got == "0" {
				return fmt.Errorf("still %s", got)
			}
			return nil
		})
		c.ok("stop", "-t", "0", c.own("always"))
		c.equal(c.ok("inspect", "-f", "{{.State.Status}}", c.own("always")), "exited")
	})
}

func TestEvents(t *testing.T) {
	both(t, func(c *client) {
		begin := strconv.FormatInt(time.Now().Unix()-1, 10)
		name := c.own("box")
		c.ok("run", "--rm", "--name", name, "busybox", "true")
		eventually(c.T, "the last event", func() error {
			out := c.ok("events", "--since", begin, "--until", strconv.FormatInt(time.Now().Unix(), 10), "-f", "container="+name, "--format", "{{.Action}}")
			for _, action := range []string{"create", "start", "die", "destroy"} {
				if !strings.Contains(out, action) {
					return fmt.Errorf("no %s in %q", action, out)
				}
			}
			return nil
		})
	})
}

func TestExportAndImport(t *testing.T) {
	both(t, func(c *client) {
		box, file := c.own("box"), filepath.Join(c.TempDir(), "box.tar")
		c.background("box", "busybox", "sh", "-c", "echo kept > /kept; sleep 600")
		eventually(c.T, "the file", func() error {
			if c.run("exec", box, "cat", "/kept").code != 0 {
				return fmt.Errorf("not there")
			}
			return nil
		})
		c.ok("export", "-o", file, box)
		image := c.own("image")
		c.contains(c.ok("import", "--change", `CMD ["cat", "/kept"]`, "--change", "ENV A=b", file, image), "sha256:")
		c.Cleanup(func() { c.run("rmi", image) })
		c.equal(c.ok("run", "--rm", image), "kept")
		c.equal(c.ok("inspect", "-f", "{{.Config.Env}}", image), "[A=b]")
		c.fails(1, "is not a valid change command", "import", "--change", "NONSENSE 1", file)
	})
}

func TestIsolation(t *testing.T) {
	both(t, func(c *client) {
		run := func(args ...string) string { c.Helper(); return c.ok(append([]string{"run", "--rm"}, args...)...) }
		c.equal(run("-h", "box", "busybox", "hostname"), "box")
		c.equal(run("-u", "nobody", "busybox", "sh", "-c", "id -u; echo $HOME"), "65534\n/home")
		c.fails(125, "unable to find user ghost: no matching entries in passwd file", "run", "--rm", "-u", "ghost", "busybox", "true")
		c.fails(1, "Read-only file system", "run", "--rm", "--read-only", "busybox", "touch", "/x")
		c.equal(run("--read-only", "--tmpfs", "/scratch:size=1m", "busybox", "sh", "-c", "touch /scratch/x && df -k /scratch | tail -n 1 | awk '{print $2}'"), "1024")
		c.fails(1, "", "run", "--rm", "--cap-drop", "ALL", "busybox", "chown", "nobody", "/tmp")
		c.equal(run("--cap-drop", "ALL", "--cap-add", "chown", "busybox", "sh", "-c", "chown nobody /tmp && grep CapEff /proc/self/status | cut -f2"), "0000000000000001")
		c.fails(1, "Operation not permitted", "run", "--rm", "busybox", "unshare", "-U", "true")
		c.equal(run("busybox", "grep", "Seccomp:", "/proc/self/status"), "Seccomp:\t2")
		c.equal(run("--security-opt", "seccomp=unconfined", "busybox", "grep", "Seccomp:", "/proc/self/status"), "Seccomp:\t0")
		c.equal(run("--security-opt", "no-new-privileges", "busybox", "grep", "NoNewPrivs", "/proc/self/status"), "NoNewPrivs:\t1")
		c.fails(1, "", "run", "--rm", "busybox", "sh", "-c", "echo 1 > /proc/sys/kernel/panic")
		c.equal(run("--sysctl", "net.ipv4.ip_forward=1", "busybox", "cat", "/proc/sys/net/ipv4/ip_forward"), "1")
		c.equal(run("--ulimit", "nofile=99:99", "busybox", "sh", "-c", "ulimit -n"), "99")
		c.equal(run("busybox", "sh", "-c", "echo $$"), "1")
		c.fails(1, "can't open '/dev/mem'", "run", "--rm", "busybox", "sh", "-c", "mknod /dev/mem c 1 1; cat /dev/mem")
		c.equal(run("--device", "/dev/zero:/dev/nothing", "busybox", "sh", "-c", "head -c 3 /dev/nothing | wc -c"), "3")
		c.contains(run("--privileged", "busybox", "sh", "-c", "mount -t tmpfs x /tmp && echo mounted"), "mounted")
	})
}

func TestLimitsBite(t *testing.T) {
	both(t, func(c *client) {
		oom := c.own("oom")
		c.Cleanup(func() { c.run("rm", "-f", oom) })
		c.fails(137, "", "run", "--name", oom, "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", "x=a; while :; do x=$x$x; done")
		c.equal(c.ok("inspect", "-f", "{{.State.OOMKilled}}", oom), "true")
		c.fails(2, "can't fork", "run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait; true")
		// A tenth of a CPU, looked at from outside: throttled in nearly every period.
		c.background("slow", "--cpus", "0.1", "busybox", "sh", "-c", "while :; do :; done")
		eventually(c.T, "throttling", func() error {
			throttled := c.ok("exec", c.own("slow"), "sh", "-c", "cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null | grep nr_throttled")
			if count, err := strconv.Atoi(strings.TrimPrefix(throttled, "nr_throttled ")); err != nil || count < 3 {
				return fmt.Errorf("%q", throttled)
			}
			return nil
		})
	})
}

func TestMACAndStaticAddress(t *testing.T) {
	both(t, func(c *client) {
		network := c.own("net")
		second := 200 + len(c.name)
		c.ok("network", "create", "--subnet", fmt.Sprintf("10.9.%d.0/24", second), network)
		c.Cleanup(func() { c.run("network", "rm", network) })
		out := c.ok("run", "--rm", "--network", network, "--ip", fmt.Sprintf("10.9.%d.77", second), "--mac-address", "02:00:00:00:00:77", "busybox", "ip", "addr", "show", "eth0")
		c.contains(out, fmt.Sprintf("10.9.%d.77/24", second))
		c.contains(out, "02:00:00:00:00:77")
	})
}

func TestPublishedPorts(t *testing.T) {
	both(t, func(c *client) {
		port := freePort(c.T)
		c.background("web", "-p", fmt.Sprintf("%d:8080", port), "busybox", "sh", "-c", "echo page > /tmp/index.html; httpd -f -p 8080 -h /tmp")
		c.equal(fetch(c.T, port), "page\n")
		c.contains(c.ok("port", c.own("web")), fmt.Sprintf("8080/tcp -> 0.0.0.0:%d", port))
		c.fails(125, "port is already allocated", "run", "--rm", "-p", fmt.Sprintf("%d:80", port), "busybox", "true")
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			c.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		c.fails(125, "address already in use", "run", "--rm", "-p", fmt.Sprintf("127.0.0.1:%d:80", l.Addr().(*net.TCPAddr).Port), "busybox", "true")
		c.ok("rm", "-f", c.own("web"))
		// The port is free again at once.
		c.background("web", "-p", fmt.Sprintf("127.0.0.1:%d:8080", port), "busybox", "sh", "-c", "echo other > /tmp/index.html; httpd -f -p 8080 -h /tmp")
		c.equal(fetch(c.T, port), "other\n")
	})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestUsersAreTheContainersOwn changes the accounts before the first start and
// between starts.
func TestUsersAreTheContainersOwn(t *testing.T) {
	both(t, func(c *client) {
		passwd := filepath.Join(c.TempDir(), "passwd")
		write(c.T, passwd, "root:x:0:0:root:/root:/bin/sh\nada:x:4711:4711::/home:/bin/sh\n")
		c.Cleanup(func() { c.run("rm", "-f", c.own("new"), c.own("old")) })
		c.fails(125, "unable to find user ada", "run", "--rm", "-u", "ada", "busybox", "true")
		c.ok("create", "--name", c.own("new"), "-u", "ada", "busybox", "id", "-u")
		c.ok("cp", passwd, c.own("new")+":/etc/passwd")
		c.equal(c.ok("start", "-a", c.own("new")), "4711")
		c.ok("run", "--name", c.own("old"), "-u", "0", "busybox", "sed", "-i", "s/root:x:0/root:x:0/; s/:\\/root:/:\\/tmp:/", "/etc/passwd")
		c.ok("start", "-a", c.own("old"))
		c.equal(c.ok("run", "--rm", "-u", "root", "busybox", "sh", "-c", "echo $HOME"), "/root")
	})
}
