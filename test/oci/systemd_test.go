package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/systemd"
	"github.com/davit-engine/davit/plugins/runtime-native/systemd/systemdtest"
	"github.com/davit-engine/davit/test/private"
)

// scopes is a runtime that makes cgroups through a stand-in for systemd, and the
// cgroupsPath of a container of a slice of the test's.
func scopes(t *testing.T) (r *oci, fake *systemdtest.Systemd, place func(name string) func(*specs.Spec)) {
	t.Helper()
	fake = systemdtest.Start(t)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", fake.Address)
	r = newRuntime(t)
	r.global = []string{"--systemd-cgroup"}
	return r, fake, func(name string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.CgroupsPath = fmt.Sprintf("davitoci%d.slice:%s:%s", os.Getpid(), r.id, name)
		}
	}
}

func TestSystemdLife(t *testing.T) {
	r, fake, place := scopes(t)
	id := r.id + "-life"
	unit := r.id + "-life.scope"
	limit := int64(50)
	limits := func(s *specs.Spec) {
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
		s.Annotations = map[string]string{"org.systemd.property.TimeoutStopSec": "3"}
	}
	r.must("run", "--detach", "--bundle", r.bundle(forever, place("life"), limits), id)
	for property, want := range map[string]string{"TasksMax": "50", "TimeoutStopUSec": "3000000", "Delegate": "true"} {
		if got := fmt.Sprint(fake.Get(unit, property)); got != want {
			t.Errorf("%s of %s is %s, want %s", property, unit, got, want)
		}
	}
	inside := func(pid int) {
		t.Helper()
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil || strings.Count(string(text), "/"+unit+"\n") != strings.Count(string(text), "\n") {
			t.Errorf("process %d is in\n%s(%v), want %s everywhere", pid, text, err, unit)
		}
	}
	inside(r.state(id).Pid)
	pidFile := filepath.Join(t.TempDir(), "pid")
	r.must("exec", "--detach", "--pid-file", pidFile, id, "sleep", "1000")
	body, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(body), &pid); err != nil {
		t.Fatal(err)
	}
	inside(pid)
	r.must("update", "--pids-limit", "60", id)
	if got := fake.Get(unit, "TasksMax"); got != uint64(60) {
		t.Errorf("after an update TasksMax is %v", got)
	}
	if stats := r.must("events", "--stats", id); !strings.Contains(stats, `"limit":60`) {
		t.Errorf("after an update the kernel says %s", stats)
	}
	r.must("delete", "--force", id)
	if fake.Get(unit, "Slice") != nil {
		t.Errorf("after delete --force %s is there", unit)
	}

	// The same name again, in the foreground, and at once once more.
	for range 2 {
		if out := r.must("run", "--bundle", r.bundle([]string{"echo", "hello"}, place("life")), id); out != "hello\n" {
			t.Errorf("run: %q", out)
		}
	}
	if fake.Get(unit, "Slice") != nil {
		t.Errorf("after run %s is there", unit)
	}
}

func TestSystemdRefusals(t *testing.T) {
	r, fake, place := scopes(t)
	bad := func(path string) func(*specs.Spec) { return func(s *specs.Spec) { s.Linux.CgroupsPath = path } }
	r.refuse(1, `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/some/path" instead`, "run", "--bundle", r.bundle(forever, bad("/some/path")), r.id)
	r.refuse(1, "invalid slice name: what", "run", "--bundle", r.bundle(forever, bad("what:p:n")), r.id)
	fake.Fail("failed")
	r.refuse(1, `systemd's job ended as "failed"`, "run", "--bundle", r.bundle(forever, place("fails")), r.id)
	fake.Fail("")
	r.global = nil
	r.refuse(1, "run with --systemd-cgroup", "run", "--bundle", r.bundle(forever, place("x")), r.id)
	if systemd.Running() {
		return
	}
	r.global = []string{"--systemd-cgroup"}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none")
	r.refuse(1, "no systemd is running here", "run", "--bundle", r.bundle(forever, place("x")), r.id)
}

// A creation that is cut off while systemd thinks leaves nothing that the next one
// does not clear up.
func TestSystemdCrash(t *testing.T) {
	r, fake, place := scopes(t)
	bundle := r.bundle(forever, place("crash"))
	unit := r.id + "-crash.scope"
	id := r.id + "-crash"
	fake.Fail("silent")
	cmd := r.command("create", "--bundle", bundle, id)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the unit is there", func() bool { return fake.Get(unit, "Slice") != nil })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	// Its process was the only one.
	eventually(t, "the unit is gone", func() bool { return fake.Get(unit, "Slice") == nil })
	fake.Fail("")
	r.must("create", "--bundle", bundle, id)
	r.must("delete", id)
}

// What is not asked for costs nothing: without the option nobody speaks with a bus.
func TestNoBusUnlessAsked(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("no strace here")
	}
	r := newRuntime(t)
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", "-f", "-qq", "-e", "trace=connect", "-o", trace, r.bin, "--root", r.root, "run", "--bundle", r.bundle([]string{"true"}), r.id+"-quiet")
	done := time.AfterFunc(private.Patience(30*time.Second), func() { _ = cmd.Process.Kill() })
	defer done.Stop()
	if got := run(cmd); got.code != 0 {
		t.Fatalf("exit code %d: %s", got.code, got.err)
	}
	if body, err := os.ReadFile(trace); err != nil || strings.Contains(string(body), "bus") || strings.Contains(string(body), "systemd") {
		t.Errorf("connected: %s (%v)", body, err)
	}
}
