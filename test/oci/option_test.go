package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
)

func TestExecOptions(t *testing.T) {
	r := newRuntime(t)
	id := r.id + "-exec"
	r.must("run", "--detach", "--bundle", r.bundle(forever), id)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--cwd", "/tmp", id, "pwd"}, "/tmp\n"},
		{[]string{"--env", "A=1", "-e", "B=2", id, "sh", "-c", "echo $A$B"}, "12\n"},
		{[]string{"--user", "1000:1001", "--additional-gids", "7", id, "id"}, "uid=1000 gid=1001 groups=7\n"},
		{[]string{"--cap", "CAP_SYS_CHROOT", id, "grep", "CapEff", "/proc/self/status"}, "CapEff:\t0000000020040420\n"},
		{[]string{id, "grep", "CapEff", "/proc/self/status"}, "CapEff:\t0000000020000420\n"},
		{[]string{"--no-new-privs", id, "grep", "NoNewPrivs", "/proc/self/status"}, "NoNewPrivs:\t1\n"},
	} {
		if got := r.must(append([]string{"exec"}, test.args...)...); got != test.want {
			t.Errorf("exec %v: %q, want %q", test.args, got, test.want)
		}
	}
	process := filepath.Join(t.TempDir(), "process.json")
	body, err := json.Marshal(specs.Process{Args: []string{"/bin/sh", "-c", "echo $0 $C; exit 6"}, Cwd: "/", Env: []string{"C=3"}})
	if err == nil {
		err = os.WriteFile(process, body, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := r.run("exec", "--process", process, id); got.out != "/bin/sh 3\n" || got.code != 6 {
		t.Errorf("exec --process: %+v", got)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	r.must("exec", "--detach", "--pid-file", pidFile, id, "sleep", "100000")
	pid, err := os.ReadFile(pidFile)
	if err != nil || !strings.Contains(r.must("ps", "--format", "json", id), string(pid)) {
		t.Errorf("pid %q of a detached exec (%v) is not in the container", pid, err)
	}
	r.refuse(255, "process args cannot be empty", "exec", id)
	r.refuse(255, "parsing x as int for uid", "exec", "--user", "x", id, "true")
	r.refuse(255, "Cwd must be an absolute path", "exec", "--cwd", "x", id, "true")
	r.refuse(255, "no such cgroup", "exec", "--cgroup", "missing", id, "true")
}

func TestUpdateAndEvents(t *testing.T) {
	r := newRuntime(t)
	id := r.id + "-limits"
	r.must("run", "--detach", "--bundle", r.bundle(forever), id)
	stats := func() (pids, memory uint64) {
		var event struct {
			Type, ID string
			Data     struct {
				Pids   struct{ Current, Limit uint64 }
				Memory struct{ Usage struct{ Limit uint64 } }
			}
		}
		line := r.must("events", "--stats", id)
		if err := json.Unmarshal([]byte(line), &event); err != nil || event.Type != "stats" || event.ID != id || event.Data.Pids.Current != 1 {
			t.Errorf("events --stats: %s (%v)", line, err)
		}
		return event.Data.Pids.Limit, event.Data.Memory.Usage.Limit
	}
	r.must("update", "--memory", "32m", "--pids-limit", "17", id)
	if pids, memory := stats(); pids != 17 || memory != 32<<20 {
		t.Errorf("after update: %d processes, %d bytes", pids, memory)
	}
	cmd := r.command("update", "--resources", "-", id)
	cmd.Stdin = strings.NewReader(`{"pids": {"limit": 23}}`)
	if got := run(cmd); got.code != 0 {
		t.Errorf("update --resources -: %+v", got)
	}
	if pids, memory := stats(); pids != 23 || memory != 32<<20 {
		t.Errorf("after the second update: %d processes, %d bytes", pids, memory)
	}
	r.refuse(1, "invalid value for memory", "update", "--memory", "much", id)
	r.refuse(1, "Intel RDT is not supported", "update", "--l3-cache-schema", "x", id)

	// The watcher ends with its container.
	watch := r.command("events", "--interval", "20ms", id)
	out, err := os.Create(filepath.Join(t.TempDir(), "events"))
	if err != nil {
		t.Fatal(err)
	}
	watch.Stdout = out
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two events", func() bool { body, _ := os.ReadFile(out.Name()); return strings.Count(string(body), "\n") >= 2 })
	r.must("kill", id, "KILL")
	if err := watch.Wait(); err != nil {
		t.Errorf("the watcher of a container that ended: %v", err)
	}
}

// TestEventsTellWantOfMemory: at once, however long the interval is.
func TestEventsTellWantOfMemory(t *testing.T) {
	r := newRuntime(t)
	id := r.id + "-hungry"
	r.must("run", "--detach", "--bundle", r.bundle([]string{"sh", "-c", "while :; do if test -e /dev/eat; then (x=a; while :; do x=$x$x; done); fi; sleep 0.3; done"}), id)
	r.must("update", "--memory", "16m", "--memory-swap", "16m", id)
	watch := r.command("events", "--interval", "10m", id)
	out, err := os.Create(filepath.Join(t.TempDir(), "events"))
	if err != nil {
		t.Fatal(err)
	}
	watch.Stdout = out
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	said := func(kind string) func() bool {
		return func() bool {
			body, _ := os.ReadFile(out.Name())
			return strings.Contains(string(body), `{"type":"`+kind+`","id":"`+id+`"`)
		}
	}
	eventually(t, "the first statistics", said("stats"))
	r.must("exec", id, "touch", "/dev/eat")
	eventually(t, "the event", said("oom"))
	r.must("kill", id, "KILL")
	if err := watch.Wait(); err != nil {
		t.Errorf("the watcher of a container that ended: %v", err)
	}
}

func TestConsoleSocket(t *testing.T) {
	r := newRuntime(t)
	socket := newConsoleSocket(t)
	id := r.id + "-console"
	r.must("create", "--console-socket", socket.path, "--bundle", r.bundle([]string{"tty"}, func(s *specs.Spec) { s.Process.Terminal = true }), id)
	terminal := socket.receive()
	r.must("start", id)
	said := make([]byte, 64)
	if n, err := terminal.Read(said); err != nil || string(said[:n]) != "/dev/pts/0\r\n" {
		t.Errorf("the terminal said %q (%v)", said[:n], err)
	}
}

func TestPreserveFDs(t *testing.T) {
	r := newRuntime(t)
	id := r.id + "-fds"
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := r.command("run", "--preserve-fds", "2", "--bundle", r.bundle([]string{"sh", "-c", "echo three >&3; echo four >&4; ls /proc/self/fd"}), id)
	cmd.ExtraFiles = []*os.File{f, f}
	if got := run(cmd); got.code != 0 || got.out != "0\n1\n2\n3\n4\n5\n" { // 5 is ls's own
		t.Errorf("run: %+v", got)
	}
	if body, _ := os.ReadFile(f.Name()); string(body) != "three\nfour\n" {
		t.Errorf("the descriptors got %q", body)
	}
}

func TestHooks(t *testing.T) {
	r := newRuntime(t)
	id := r.id + "-hooks"
	dir := t.TempDir()
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", fmt.Sprintf("cat >%s/%s; echo %s >>%s/order", dir, name, name, dir)}}}
	}
	bundle := r.bundle(forever, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), Poststart: hook("poststart"), Poststop: hook("poststop")} //nolint:staticcheck // what Docker still sets
	})
	order := func() string { body, _ := os.ReadFile(filepath.Join(dir, "order")); return string(body) }
	r.must("create", "--bundle", bundle, id)
	if got := order(); got != "prestart\ncreateRuntime\n" {
		t.Errorf("after create: %q", got)
	}
	var told specs.State
	body, err := os.ReadFile(filepath.Join(dir, "prestart"))
	if err == nil {
		err = json.Unmarshal(body, &told)
	}
	if s := r.state(id); err != nil || told.ID != id || told.Pid != s.Pid || told.Bundle != bundle {
		t.Errorf("a hook was told %s (%v)", body, err)
	}
	r.must("start", id)
	if got := order(); got != "prestart\ncreateRuntime\npoststart\n" {
		t.Errorf("after start: %q", got)
	}
	r.must("delete", "--force", id)
	if got := order(); got != "prestart\ncreateRuntime\npoststart\npoststop\n" {
		t.Errorf("after delete: %q", got)
	}
	failing := r.bundle(forever, func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}} })
	r.refuse(1, "createRuntime", "create", "--bundle", failing, id)
}

// The stage is the monitor that is installed with the runtime, or the runtime
// itself. What the container can reach of it is not to be written to.
func TestTheStagesProgram(t *testing.T) {
	built := filepath.Dir(program(t))
	for name, monitor := range map[string]string{"beside": "bin/davit-monitor", "installed": "lib/davit/davit-monitor", "alone": ""} {
		t.Run(name, func(t *testing.T) {
			r := newRuntime(t)
			dir := t.TempDir()
			r.bin = filepath.Join(dir, "bin/davit-oci")
			copyProgram(t, filepath.Join(built, "davit-oci"), r.bin)
			want := r.bin
			if monitor != "" {
				want = filepath.Join(dir, monitor)
				copyProgram(t, filepath.Join(built, "davit-monitor"), want)
			}
			id := r.id + "-exe"
			r.must("create", "--bundle", r.bundle(forever), id)
			stage := fmt.Sprintf("/proc/%d/exe", r.state(id).Pid)
			expected, err := os.Stat(want)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.Stat(stage); err != nil || !os.SameFile(got, expected) {
				t.Errorf("the stage is not %s (%v)", want, err)
			}
			fd, err := unix.Open(stage, unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
			if !errors.Is(err, unix.EROFS) {
				t.Errorf("opening the stage's program for writing: %v", err)
				_ = unix.Close(fd)
			}
			r.must("start", id)
			if got := r.run("exec", id, "echo", "in"); got != (result{"in\n", "", 0}) {
				t.Errorf("exec: %+v", got)
			}
		})
	}
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	body, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, body, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A creation that is killed leaves nothing that the next one stumbles over.
func TestKilledCreations(t *testing.T) {
	r := newRuntime(t)
	id := r.id + "-crash"
	bundle := r.bundle(forever, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "kill -KILL $PPID; sleep 0.2"}}}}
	})
	if got := r.run("create", "--bundle", bundle, id); got.code != -1 { // died of the signal
		t.Fatalf("the hook did not kill its parent: %+v", got)
	}
	r.refuse(1, "container does not exist", "state", id)
	r.must("run", "--bundle", r.bundle([]string{"true"}), id)
	if got := r.run("create", "--bundle", bundle, id); got.code != -1 {
		t.Fatalf("the hook did not kill its parent: %+v", got)
	}
	r.must("delete", "--force", id)
}

func TestUserNamespace(t *testing.T) {
	r := newRuntime(t)
	id := r.id + "-user"
	mapped := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	bundle := r.bundle(forever, func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = mapped, mapped
	})
	if err := os.Chmod(filepath.Dir(bundle), 0o755); err != nil { // the mapped root must reach it
		t.Fatal(err)
	}
	r.must("create", "--bundle", bundle, id)
	r.must("start", id)
	var st syscall.Stat_t
	if err := syscall.Stat(fmt.Sprintf("/proc/%d", r.state(id).Pid), &st); err != nil || st.Uid != 100000 {
		t.Errorf("the container's root is %d on the host (%v)", st.Uid, err)
	}
	if got := r.must("exec", id, "id", "-u"); got != "0\n" {
		t.Errorf("the exec is %q", got)
	}
}

func TestFeatures(t *testing.T) {
	r := newRuntime(t)
	var f features.Features
	if err := json.Unmarshal([]byte(r.must("features")), &f); err != nil {
		t.Fatal(err)
	}
	if f.OCIVersionMin != "1.0.0" || len(f.Hooks) != 6 || len(f.MountOptions) < 30 || !slices.Contains(f.Linux.Namespaces, "user") || !*f.Linux.Seccomp.Enabled {
		t.Errorf("features: %+v", f)
	}
}
