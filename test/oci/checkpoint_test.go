package oci

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// needsCRIU skips a test on a machine where CRIU does not work, with its reason.
func needsCRIU(t *testing.T) {
	t.Helper()
	program, err := exec.LookPath("criu")
	if err != nil {
		t.Skip("criu is not installed: run make test, which installs it")
	}
	if out, err := exec.Command(program, "check").CombinedOutput(); err != nil {
		t.Skipf("criu does not work on this kernel: %v: %s", err, out)
	}
}

// counter is a container that counts into a file of the host's.
type counter struct {
	*oci
	id, bundle, out string
}

// The start is far from what a container reaches that begins anew.
const origin = 1000000

func newCounter(t *testing.T, name string) *counter {
	t.Helper()
	needsCRIU(t)
	r := newRuntime(t)
	c := &counter{r, r.id + "-" + name, "", t.TempDir()}
	c.bundle = r.bundle([]string{"sh", "-c", fmt.Sprintf(`[ -e /out/n ] || n=%d; n=${n:-0}; trap 'exit 7' TERM; while :; do n=$((n+1)); echo $n >/out/next; busybox mv /out/next /out/n; echo $n; sleep 0.02; done`, origin)}, func(s *specs.Spec) {
		// CRIU before 3.19 does not restore it, and davit-oci refuses then.
		s.Process.NoNewPrivileges = false
		s.Root.Readonly = false
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/out", Type: "bind", Source: c.out, Options: []string{"bind"}})
	})
	return c
}

// detached runs a command that leaves the container running, with streams that
// can be in a checkpoint.
func (c *counter) detached(args ...string) {
	c.t.Helper()
	log := filepath.Join(c.t.TempDir(), "log")
	cmd := exec.Command(c.bin, append([]string{"--root", c.root, "--log", log}, args...)...)
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(log)
		c.t.Fatalf("davit-oci %s: %v: %s", strings.Join(args, " "), err, said)
	}
}

func (c *counter) start() {
	c.t.Helper()
	c.detached("run", "--detach", "--bundle", c.bundle, c.id)
	eventually(c.t, "the counter counts", func() bool { return c.count() > origin })
}

// count is how far it has come; 0 if that is not to be seen right now.
func (c *counter) count() int {
	body, _ := os.ReadFile(filepath.Join(c.out, "n"))
	n, _ := strconv.Atoi(strings.TrimSpace(string(body)))
	return n
}

// goesOn waits until the counter has come further than it was.
func (c *counter) goesOn(from int) {
	c.t.Helper()
	eventually(c.t, "the counter goes on", func() bool { return c.count() > from+5 })
}

// stopped is the count at which a checkpointed container stands.
func (c *counter) stopped() int {
	c.t.Helper()
	c.refuse(1, "container does not exist", "state", c.id)
	return c.count()
}

// A checkpointed container is gone as after delete, and goes on under another
// name where it stopped.
func TestCheckpointAndRestore(t *testing.T) {
	c := newCounter(t, "counter")
	c.start()
	image, work, pidFile := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "work"), filepath.Join(t.TempDir(), "pid")
	c.must("checkpoint", "--image-path", image, "--work-path", work, c.id)
	if log, err := os.ReadFile(filepath.Join(work, "dump.log")); err != nil || len(log) == 0 {
		t.Errorf("CRIU's log in the work path: %v", err)
	}
	at := c.stopped()
	if left := cgroups(c.id); len(left) > 0 {
		t.Errorf("the checkpointed container left %s", left)
	}
	other := c.id + "-other"
	c.detached("restore", "--detach", "--bundle", c.bundle, "--image-path", image, "--pid-file", pidFile, other)
	s := c.state(other)
	if pid, err := os.ReadFile(pidFile); s.Status != specs.StateRunning || err != nil || string(pid) != fmt.Sprint(s.Pid) || s.Bundle != c.bundle {
		t.Errorf("state of the restored container: %+v; pid file %q, %v", s, pid, err)
	}
	c.goesOn(at)
	if got := c.must("exec", other, "cat", "/out/n"); strings.TrimSpace(got) == "" {
		t.Error("exec in the restored container says nothing")
	}
	c.refuse(1, "container with given ID already exists", "restore", "--detach", "--bundle", c.bundle, "--image-path", image, other)
	c.must("kill", other, "KILL")
	eventually(t, "the container stops", func() bool { return c.state(other).Status == specs.StateStopped })
	c.refuse(1, "Container cannot be checkpointed in stopped state", "checkpoint", "--image-path", image, other)
	c.must("delete", other)
}

// In the foreground restore ends with the program's code, and its output goes
// where restore's own goes.
func TestForegroundRestore(t *testing.T) {
	c := newCounter(t, "foreground")
	image := filepath.Join(t.TempDir(), "image")
	var before, after bytes.Buffer
	first := c.command("run", "--bundle", c.bundle, c.id)
	first.Stdout = &before // a pipe
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the counter counts", func() bool { return c.count() > 0 })
	c.must("checkpoint", "--image-path", image, c.id)
	if err := first.Wait(); first.ProcessState.ExitCode() != 128+9 {
		t.Errorf("run of a container that was checkpointed: %v", err)
	}
	at := c.stopped()
	second := c.command("restore", "--bundle", c.bundle, "--image-path", image, c.id)
	second.Stdout = &after
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	c.goesOn(at)
	c.must("kill", c.id, "TERM")
	if err := second.Wait(); second.ProcessState.ExitCode() != 7 {
		t.Errorf("restore in the foreground: %v, want exit status 7", err)
	}
	c.refuse(1, "container does not exist", "state", c.id)
	lines := strings.Fields(after.String())
	if len(lines) == 0 || lines[0] != strconv.Itoa(at) && lines[0] != strconv.Itoa(at+1) {
		t.Errorf("the restored container's output begins with %.40q, stopped was it at %d", after.String(), at)
	}
}

func TestCheckpointLeavesRunning(t *testing.T) {
	c := newCounter(t, "leave")
	c.start()
	pid, image := c.state(c.id).Pid, filepath.Join(t.TempDir(), "image")
	for range 2 { // the second replaces the first
		c.must("checkpoint", "--leave-running", "--image-path", image, c.id)
		c.goesOn(c.count())
		if s := c.state(c.id); s.Status != specs.StateRunning || s.Pid != pid {
			t.Errorf("the container is %+v, its pid was %d", s, pid)
		}
	}
	c.must("pause", c.id)
	c.must("checkpoint", "--leave-running", "--image-path", image, c.id)
	if s := c.state(c.id); s.Status != "paused" {
		t.Errorf("the paused container is %s", s.Status)
	}
	at := c.count()
	c.must("delete", "--force", c.id)
	c.detached("restore", "-d", "-b", c.bundle, "--image-path", image, c.id)
	c.goesOn(at)
}

// What cannot be restored leaves nothing and says why; CRIU's own words are in it.
func TestRestoreOfDamagedImages(t *testing.T) {
	c := newCounter(t, "damaged")
	c.start()
	image := filepath.Join(t.TempDir(), "image")
	c.must("checkpoint", "--image-path", image, c.id)
	for name, damage := range map[string]struct {
		do   func(dir string) error
		text string
	}{
		"no description": {func(dir string) error { return os.Remove(filepath.Join(dir, "davit.json")) }, "is not a checkpoint"},
		"cut off":        {func(dir string) error { return os.Truncate(filepath.Join(dir, "pages-1.img"), 100) }, "is damaged: pages-1.img has 100 bytes"},
		"noise": {func(dir string) error {
			path := filepath.Join(dir, "core-1.img")
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, bytes.Repeat([]byte("noise"), int(info.Size()))[:info.Size()], 0o600)
		}, "restore.log: "},
	} {
		dir := filepath.Join(t.TempDir(), "image")
		if err := os.CopyFS(dir, os.DirFS(image)); err != nil {
			t.Fatal(err)
		}
		if err := damage.do(dir); err != nil {
			t.Fatal(err)
		}
		t.Log(name)
		c.refuse(1, damage.text, "restore", "--detach", "--bundle", c.bundle, "--image-path", dir, c.id)
		c.refuse(1, "container does not exist", "state", c.id)
		if left := cgroups(c.id); len(left) > 0 {
			t.Errorf("%s: left %s", name, left)
		}
	}
	c.refuse(1, "does not exist", "restore", "--detach", "--bundle", c.bundle, "--image-path", image+"-none", c.id)
}

// A restored container's terminal is a new one, which goes to the console socket.
func TestRestoreOfATerminal(t *testing.T) {
	needsCRIU(t)
	r := newRuntime(t)
	id, image, socket := r.id+"-terminal", filepath.Join(t.TempDir(), "image"), newConsoleSocket(t)
	bundle := r.bundle([]string{"sh", "-c", "stty -echo; echo ready; n=41; read line; echo $line $((n+1)); sleep 100000"}, func(s *specs.Spec) {
		s.Process.Terminal, s.Process.NoNewPrivileges, s.Root.Readonly = true, false, false
	})
	says := func(terminal *os.File, want string) {
		t.Helper()
		said := make([]byte, 64)
		if n, err := terminal.Read(said); err != nil || string(said[:n]) != want {
			t.Fatalf("the terminal said %q (%v), want %q", said[:n], err, want)
		}
	}
	r.must("run", "--detach", "--console-socket", socket.path, "--bundle", bundle, id)
	says(socket.receive(), "ready\r\n")
	r.must("checkpoint", "--image-path", image, id)
	r.refuse(1, "cannot allocate tty if the runtime will detach without setting console socket", "restore", "--detach", "--bundle", bundle, "--image-path", image, id)
	r.must("restore", "--detach", "--console-socket", socket.path, "--bundle", bundle, "--image-path", image, id)
	terminal := socket.receive()
	if _, err := terminal.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	says(terminal, "hello 42\r\n")
}

// A failed checkpoint leaves the container running and no images.
func TestAFailedCheckpoint(t *testing.T) {
	c := newCounter(t, "failed")
	c.start()
	image := filepath.Join(t.TempDir(), "image")
	c.detached("exec", "--detach", c.id, "sleep", "100000")
	c.refuse(1, "do not descend from its first", "checkpoint", "--image-path", image, c.id)
	if _, err := os.Stat(image); !os.IsNotExist(err) {
		t.Errorf("the failed checkpoint left images: %v", err)
	}
	c.goesOn(c.count())
}

// Flags of runc's that are not supported are refused by name, whatever else is
// there.
func TestUnsupportedFlagsOfCheckpoints(t *testing.T) {
	r := newRuntime(t)
	for _, flag := range []string{"--lazy-pages", "--auto-dedup", "--pre-dump", "--parent-path=../x", "--page-server=127.0.0.1:1", "--status-fd=1", "--empty-ns=network", "--manage-cgroups-mode=soft"} {
		name, value, _ := strings.Cut(flag, "=")
		if name == "--manage-cgroups-mode" {
			name += " " + value
		}
		r.refuse(1, name+" is not supported by davit-oci", "checkpoint", flag, r.id)
	}
	for _, flag := range []string{"--lazy-pages", "--auto-dedup", "--no-pivot", "--empty-ns=network", "--lsm-profile=x", "--lsm-mount-context=x"} {
		name, _, _ := strings.Cut(flag, "=")
		r.refuse(1, name+" is not supported by davit-oci", "restore", flag, r.id)
	}
	r.refuse(1, "Invalid manage cgroups mode", "checkpoint", "--manage-cgroups-mode", "other", r.id)
	r.refuse(1, "container does not exist", "checkpoint", "--lazy-pages=false", "--manage-cgroups-mode=ignore", r.id)
	r.global = []string{"--criu", "/no/such/criu"}
	r.refuse(1, "checkpoints need CRIU", "restore", "--bundle", r.bundle(forever), "--image-path", t.TempDir(), r.id)
}
