package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var forever = []string{"sleep", "100000"}

func TestLife(t *testing.T) {
	r := newRuntime(t)
	id := r.id + "-life"
	bundle := r.bundle(forever, func(s *specs.Spec) { s.Annotations = map[string]string{"org.example.key": "value"} })
	pidFile := filepath.Join(t.TempDir(), "pid")
	r.must("create", "--bundle", bundle, "--pid-file", pidFile, id)
	s := r.state(id)
	if s.Status != specs.StateCreated || s.ID != id || s.Bundle != bundle || s.Version == "" || s.Annotations["org.example.key"] != "value" {
		t.Errorf("state of a created container: %+v", s)
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil || string(pid) != fmt.Sprint(s.Pid) {
		t.Errorf("pid file has %q (%v), state says %d", pid, err, s.Pid)
	}
	r.refuse(1, "container with given ID already exists", "create", "--bundle", bundle, id)
	r.must("start", id)
	if s := r.state(id); s.Status != specs.StateRunning {
		t.Errorf("state of a started container: %+v", s)
	}
	r.refuse(1, "cannot start an already running container", "start", id)
	r.refuse(1, "is not stopped", "delete", id)

	r.must("pause", id)
	if s := r.state(id); s.Status != "paused" {
		t.Errorf("state of a paused container: %+v", s)
	}
	r.refuse(255, "cannot exec in a paused container", "exec", id, "true")
	r.must("resume", id)
	r.refuse(1, "container not paused", "resume", id)

	var pids []int
	if err := json.Unmarshal([]byte(r.must("ps", "--format", "json", id)), &pids); err != nil || len(pids) != 1 || pids[0] != s.Pid {
		t.Errorf("ps: %v (%v), want %d", pids, err, s.Pid)
	}
	if table := r.must("ps", id); strings.Count(table, "\n") != 2 || !strings.Contains(table, "sleep 100000") {
		t.Errorf("ps: %q", table)
	}

	r.must("kill", id, "KILL")
	eventually(t, "the container stops", func() bool { return r.state(id).Status == specs.StateStopped })
	r.refuse(1, "container not running", "kill", id)
	r.refuse(1, "container not running", "pause", id)
	r.refuse(255, "cannot exec in a stopped container", "exec", id, "true")
	r.refuse(1, "cannot start a container that has stopped", "start", id)
	r.must("delete", id)
	for _, args := range [][]string{{"state", id}, {"start", id}, {"kill", id, "9"}, {"delete", id}, {"pause", id}, {"resume", id}, {"update", id}, {"ps", id}, {"events", "--stats", id}} {
		r.refuse(1, "container does not exist", args...)
	}
	r.refuse(255, "container does not exist", "exec", id, "true")
	r.must("delete", "--force", id)
}

func TestListing(t *testing.T) {
	r := newRuntime(t)
	bundle := r.bundle(forever)
	a, b := r.id+"-a", r.id+"-b"
	r.must("create", "--bundle", bundle, b)
	r.must("run", "--detach", "--bundle", bundle, a)
	if got := r.must("list", "-q"); got != a+"\n"+b+"\n" {
		t.Errorf("list --quiet: %q", got)
	}
	var states []specs.State
	if err := json.Unmarshal([]byte(r.must("list", "--format", "json")), &states); err != nil || len(states) != 2 || states[0].Status != specs.StateRunning || states[1].Status != specs.StateCreated {
		t.Errorf("list --format json: %+v (%v)", states, err)
	}
	if table := r.must("list"); !strings.HasPrefix(table, "ID ") || strings.Count(table, "\n") != 3 {
		t.Errorf("list: %q", table)
	}
	r.refuse(1, "invalid format option", "list", "--format", "xml")
}

func TestRun(t *testing.T) {
	r := newRuntime(t)
	got := r.run("run", "--bundle", r.bundle([]string{"sh", "-c", "echo out; echo err >&2; exit 7"}), r.id+"-run")
	if got != (result{"out\n", "err\n", 7}) {
		t.Errorf("run: %+v", got)
	}
	if got := r.run("run", "--bundle", r.bundle([]string{"sh", "-c", "kill -KILL $$"}, without(specs.PIDNamespace)), r.id+"-killed"); got.code != 137 {
		t.Errorf("run of a program that is killed: %+v", got)
	}
	id := r.id + "-kept"
	r.must("run", "--keep", "--bundle", r.bundle([]string{"true"}), id)
	if s := r.state(id); s.Status != specs.StateStopped || s.Pid != 0 {
		t.Errorf("state of a container that ended: %+v", s)
	}
	r.must("delete", id)
}

func TestProgramsThatCannotRun(t *testing.T) {
	r := newRuntime(t)
	id := r.id + "-bad"
	for _, test := range []struct{ program, want string }{
		{"nothing", `exec: "nothing": executable file not found in $PATH`},
		{"/nothing", `exec: "/nothing": stat /nothing: no such file or directory`},
		{"/etc", `exec: "/etc": permission denied`},
	} {
		bundle := r.bundle([]string{test.program})
		r.refuse(1, test.want, "create", "--bundle", bundle, id)
		r.refuse(1, test.want, "run", "--bundle", bundle, id)
	}
	r.must("run", "--detach", "--bundle", r.bundle(forever), id)
	r.refuse(255, `exec: "nothing": executable file not found in $PATH`, "exec", id, "nothing")
	// Found, but no program: only execve can tell, and start says so.
	broken := r.bundle([]string{"/bin/text"})
	if err := os.WriteFile(filepath.Join(broken, "rootfs/bin/text"), []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.must("create", "--bundle", broken, id+"2")
	r.refuse(1, "exec format error", "start", id+"2")
	eventually(t, "the container stops", func() bool { return r.state(id+"2").Status == specs.StateStopped })
}

func TestBadBundles(t *testing.T) {
	r := newRuntime(t)
	id := r.id + "-bundle"
	r.refuse(1, "config.json", "create", "--bundle", t.TempDir(), id)
	r.refuse(1, "args must not be empty", "create", "--bundle", r.bundle(nil), id)
	r.refuse(1, "Cwd must be an absolute path", "create", "--bundle", r.bundle(forever, func(s *specs.Spec) { s.Process.Cwd = "here" }), id)
	r.refuse(1, "invalid rootfs", "create", "--bundle", r.bundle(forever, func(s *specs.Spec) { s.Root.Path = "nowhere" }), id)
	r.refuse(1, "ociVersion", "create", "--bundle", r.bundle(forever, func(s *specs.Spec) { s.Version = "7.0.0" }), id)
	r.refuse(1, "cannot allocate tty", "create", "--bundle", r.bundle(forever, func(s *specs.Spec) { s.Process.Terminal = true }), id)
	r.refuse(1, "cannot use console socket", "create", "--console-socket", "/nowhere", "--bundle", r.bundle(forever), id)
	for _, bad := range []string{"a/b", "..", "", "ä", strings.Repeat("x", 300)} {
		if got := r.run("create", "--bundle", r.bundle(forever), bad); got.code != 1 {
			t.Errorf("ID %q: %+v", bad, got)
		}
	}
	r.refuse(1, "invalid container ID format", "state", "../x")
}

func TestUsage(t *testing.T) {
	r := newRuntime(t)
	for _, args := range [][]string{{}, {"help"}, {"--help"}} {
		if got := r.run(args...); got.code != 0 || !strings.Contains(got.out, "Commands:") {
			t.Errorf("%v: %+v", args, got)
		}
	}
	if got := r.must("create", "--help"); !strings.Contains(got, "pid-file") {
		t.Errorf("help of create: %q", got)
	}
	if got := r.must("--version"); !strings.HasPrefix(got, "davit-oci version ") || !strings.Contains(got, "\nspec: 1.") {
		t.Errorf("version: %q", got)
	}
	r.refuse(3, "No help topic for 'fly'", "fly")
	r.refuse(1, "Incorrect Usage", "create", "--fly", "x")
	r.refuse(1, "requires exactly 1 argument(s)", "start")
	r.refuse(1, "requires exactly 1 argument(s)", "start", "a", "b")
	r.refuse(1, "requires a minimum of 1 argument(s)", "exec")
	r.refuse(1, "requires a maximum of 2 argument(s)", "kill", "a", "9", "c")
	r.refuse(1, "invalid log-format", "--log-format", "xml", "list")
}

func TestLog(t *testing.T) {
	r := newRuntime(t)
	log := filepath.Join(t.TempDir(), "log")
	got := r.run("--log", log, "--log-format", "json", "state", "missing")
	if got.code != 1 || got.err != "container does not exist\n" {
		t.Errorf("what people see: %+v", got)
	}
	body, err := os.ReadFile(log)
	var line struct{ Level, Msg, Time string }
	if err == nil {
		err = json.Unmarshal(body, &line)
	}
	if err != nil || line.Level != "error" || line.Msg != "container does not exist" || line.Time == "" {
		t.Errorf("log: %q (%v)", body, err)
	}
}

func TestSignals(t *testing.T) {
	r := newRuntime(t)
	id := r.id + "-signal"
	script := `trap "echo term; exit 3" TERM; trap "echo usr1" USR1; echo ready; while :; do sleep 0.05; done`
	cmd := r.command("run", "--bundle", r.bundle([]string{"sh", "-c", script}), id)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = out
	said := func() string { body, _ := os.ReadFile(out.Name()); return string(body) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the program runs", func() bool { return said() == "ready\n" })
	r.must("kill", id, "USR1")
	eventually(t, "SIGUSR1 arrives", func() bool { return said() == "ready\nusr1\n" })
	r.refuse(1, "unknown signal", "kill", id, "WHAT")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil { // forwarded
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 || said() != "ready\nusr1\nterm\n" {
		t.Errorf("exit code %d, said %q", code, said())
	}
}

// A container without a PID namespace of its own leaves nothing behind either.
func TestKillAll(t *testing.T) {
	r := newRuntime(t)
	id := r.id + "-all"
	r.must("run", "--detach", "--bundle", r.bundle([]string{"sh", "-c", "sleep 100000 & sleep 100000 & wait"}, without(specs.PIDNamespace)), id)
	eventually(t, "three processes", func() bool {
		var pids []int
		return json.Unmarshal([]byte(r.must("ps", "--format", "json", id)), &pids) == nil && len(pids) == 3
	})
	r.must("kill", "--all", id, "KILL")
	eventually(t, "the container stops", func() bool { return r.state(id).Status == specs.StateStopped })
	r.must("delete", id)
}

// TestNoPivot: the container sees its own root and nothing of the host, also when
// it enters its mount namespace anew.
func TestNoPivot(t *testing.T) {
	r := newRuntime(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	look := "for root in / /.. /proc/1/root; do test -e $root/" + secret + " && echo seen; done; test -x /bin/busybox && echo own; "
	script := look + "cut -d' ' -f5 /proc/self/mountinfo | head -n 1; busybox nsenter -t 1 -m busybox sh -c '" + look + "'"
	bundle := r.bundle([]string{"busybox", "sh", "-c", script}, func(s *specs.Spec) {
		s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE")
		s.Process.Capabilities.Permitted, s.Process.Capabilities.Effective = s.Process.Capabilities.Bounding, s.Process.Capabilities.Bounding
	})
	if got, want := r.must("run", "--no-pivot", "--bundle", bundle, r.id+"-nopivot"), "own\n/\nown\n"; got != want {
		t.Errorf("the container says %q, want %q", got, want)
	}
}
