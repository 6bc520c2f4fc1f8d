package native_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/runtime"
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

// forgetsPromises says whether CRIU is too old to restore no_new_privs.
func forgetsPromises(t *testing.T) bool {
	t.Helper()
	out, err := exec.Command("criu", "--version").Output()
	var major, minor int
	if err == nil {
		_, err = fmt.Sscanf(string(out), "Version: %d.%d", &major, &minor)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return major < 3 || major == 3 && minor < 19
}

// TestPromisesAreNotForgotten: a container that must not gain privileges is not
// checkpointed by a CRIU that would restore it without that.
func TestPromisesAreNotForgotten(t *testing.T) {
	if _, err := exec.LookPath("criu"); err != nil {
		t.Skip("criu is not installed: run make test, which installs it")
	}
	if !forgetsPromises(t) {
		t.Skip("this CRIU restores no_new_privs: TestARestoredContainerIsWhatItWas")
	}
	b := newBox(t, "sleep 600")
	b.spec.Process.NoNewPrivileges = true
	b.start()
	image := filepath.Join(b.dir, "image")
	err := b.checkpoint(runtime.Checkpoint{Image: image})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "no_new_privs") || !strings.Contains(err.Error(), "CRIU 3.19 or later is needed") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(image); !os.IsNotExist(err) {
		t.Errorf("a checkpoint is left: %v", err)
	}
	if state, err := lab.driver.Adopt(b.context(), b.id); err != nil || state.Status != runtime.StatusRunning {
		t.Errorf("the container is %+v, %v", state, err)
	}
}

// privileged says whether the tests have a capability.
func privileged(t *testing.T, capability int) bool {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var own [2]unix.CapUserData
	if err := unix.Capget(&header, &own[0]); err != nil {
		t.Fatal(err)
	}
	return own[capability/32].Effective&(1<<(capability%32)) != 0
}

// counter counts into a file of the host's and to its log.
const counter = `n=0; while :; do n=$((n+1)); echo $n >/out/n; echo $n; usleep 20000; done`

// count is how far a counter has come.
func (b *box) count() int {
	b.t.Helper()
	body, err := os.ReadFile(filepath.Join(b.out, "n"))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(body)))
	return n
}

func (b *box) checkpoint(c runtime.Checkpoint) error {
	c.ID = b.id
	return lab.driver.Checkpoint(b.context(), c)
}

// restore makes the box's container from a checkpoint, with the box's spec.
func (b *box) restore(image string) error {
	b.t.Helper()
	body, err := json.Marshal(b.spec)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = lab.driver.Restore(b.context(), runtime.Restore{Image: image, Create: runtime.Create{ID: b.id, Spec: body, Rootfs: b.rootfs, IO: runtime.IO{
		Terminal: b.spec.Process.Terminal, Stdin: b.spec.Process.Terminal, Stdout: true, Stderr: true, Log: &runtime.Log{Path: b.log(), MaxFile: 1},
	}}})
	if err == nil {
		b.created = true
		b.t.Cleanup(b.remove)
	}
	if _, found := os.Stat(filepath.Join(lab.run, b.id)); err != nil && found == nil {
		b.t.Errorf("the failed restoration left %s", filepath.Join(lab.run, b.id))
	}
	return err
}

func TestCheckpointAndRestore(t *testing.T) {
	needsCRIU(t)
	b := newBox(t, counter)
	b.start()
	waitFor(t, "the counter", func() bool { return b.count() >= 5 })
	image := filepath.Join(b.dir, "one")
	if err := b.checkpoint(runtime.Checkpoint{Image: image}); err != nil {
		t.Fatal(err)
	}
	b.remove()
	at := b.count()
	if err := b.restore(image); err != nil {
		t.Fatal(err)
	}
	if err := lab.driver.Start(b.context(), b.id, ""); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the counter to go on", func() bool { return b.count() >= at+5 })
	b.remove()
	lines := strings.Split(b.output(), "\n")
	for i, line := range lines {
		if line != strconv.Itoa(i+1) {
			t.Fatalf("line %d of the log is %q", i+1, line)
		}
	}
}

// goOn restores the box's container and lets it go on.
func (b *box) goOn(image string) {
	b.t.Helper()
	if err := b.restore(image); err != nil {
		b.t.Fatal(err)
	}
	if err := lab.driver.Start(b.context(), b.id, ""); err != nil {
		b.t.Fatal(err)
	}
}

// counting starts a counter and answers when it counts.
func (b *box) counting() {
	b.t.Helper()
	b.start()
	waitFor(b.t, "the counter", func() bool { return b.count() >= 5 })
}

// Both containers of one checkpoint go on, and so does the one it was taken of.
func TestACheckpointIsRestoredTwice(t *testing.T) {
	needsCRIU(t)
	b := newBox(t, counter)
	b.counting()
	image := filepath.Join(b.dir, "one")
	if err := b.checkpoint(runtime.Checkpoint{Image: image, LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	at := b.count()
	waitFor(t, "the counter to go on", func() bool { return b.count() >= at+5 })
	if err := b.checkpoint(runtime.Checkpoint{Image: image}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("asked again: %v", err)
	}
	for range 2 {
		other := newBox(t, "exit 1")
		other.goOn(image)
		waitFor(t, "the restored counter", func() bool { return other.count() >= at })
		if first, _, _ := strings.Cut(other.output(), "\n"); first == "1" {
			t.Error("the restored counter began anew")
		}
		if state, err := lab.driver.Adopt(other.context(), other.id); err != nil || state.Status != runtime.StatusRunning {
			t.Errorf("the restored container is %+v: %v", state, err)
		}
	}
}

// What a restored container is in is what its spec says, and what it was is
// kept: user, filter, terminal, files in memory, hostname.
func TestARestoredContainerIsWhatItWas(t *testing.T) {
	needsCRIU(t)
	b := newBox(t, `echo kept >/shm/kept; echo ready >/out/ready
		while [ ! -e /out/go ]; do usleep 20000; done
		{ cat /shm/kept; hostname; id -u; grep -E '^(NoNewPrivs|Seccomp|CapEff):' /proc/self/status; touch /root.file 2>&1; cat /etc/given; readlink /proc/self/fd/0; cat /proc/self/oom_score_adj; } >/out/is
		exit 7`)
	given := filepath.Join(b.dir, "given")
	if err := os.WriteFile(given, []byte("by the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.mount("tmpfs", "shm", "/shm", "nosuid", "mode=1777")
	b.mount("bind", given, "/etc/given", "bind", "ro", "rprivate")
	user := "1000"
	if !privileged(t, unix.CAP_SYS_RESOURCE) {
		user = "0" // limits of other users' processes cannot be read
	}
	uid, err := strconv.Atoi(user)
	if err != nil {
		t.Fatal(err)
	}
	promises := !forgetsPromises(t)
	b.spec.Process.User.UID, b.spec.Process.NoNewPrivileges = uint32(uid), promises
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{}
	b.spec.Process.OOMScoreAdj = ptr(123)
	b.spec.Hostname, b.spec.Root.Readonly = "counted", true
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = []string{"/proc/kcore", "/proc/acpi", "/sys/firmware"}, []string{"/proc/sys", "/proc/bus"}
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64}, Syscalls: []specs.LinuxSyscall{{Names: []string{"acct"}, Action: specs.ActErrno}}}
	b.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(50))}}
	b.start()
	waitFor(t, "the container", func() bool { _, err := os.Stat(filepath.Join(b.out, "ready")); return err == nil })
	image := filepath.Join(b.dir, "one")
	if err := b.checkpoint(runtime.Checkpoint{Image: image}); err != nil {
		t.Fatal(err)
	}
	if exit, err := lab.driver.Wait(b.context(), b.id, ""); err != nil || exit.Code != 137 {
		t.Errorf("the container ended with %+v: %v", exit, err)
	}
	b.remove()
	b.goOn(image)
	stats, err := lab.driver.Stats(b.context(), b.id)
	if err != nil || stats.Memory.Limit != 64<<20 || stats.Pids.Limit != 50 || stats.Pids.Current < 2 {
		t.Errorf("statistics of the restored container: %+v %+v: %v", stats.Memory, stats.Pids, err)
	}
	if got := b.exec("hostname; echo $$", nil); !strings.HasPrefix(got, "counted\n") {
		t.Errorf("an exec in the restored container prints %q", got)
	}
	if err := os.WriteFile(filepath.Join(b.out, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	exit, err := lab.driver.Wait(b.context(), b.id, "")
	if err != nil || exit.Code != 7 {
		t.Errorf("the restored container ended with %+v: %v", exit, err)
	}
	is, err := os.ReadFile(filepath.Join(b.out, "is"))
	if err != nil {
		t.Fatal(err)
	}
	want := "kept\ncounted\n" + user + "\nCapEff:\t0000000000000000\nNoNewPrivs:\t" + map[bool]string{true: "1", false: "0"}[promises] + "\nSeccomp:\t2\ntouch: /root.file: Read-only file system\nby the host\n/dev/null\n123\n"
	if string(is) != want {
		t.Errorf("the restored container is\n%swant\n%s", is, want)
	}
}

func TestCheckpointOfATerminal(t *testing.T) {
	needsCRIU(t)
	b := newBox(t, `echo ready; while read line; do echo "got $line on $(tty)"; done`)
	b.spec.Process.Terminal = true
	p := b.start()
	waitFor(t, "the container", func() bool { return strings.Contains(b.output(), "ready") })
	say := func(socket, line string) {
		t.Helper()
		stream, err := monitor.Attach(b.context(), socket, monitor.AttachOptions{Stdin: true, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = stream.Close() }()
		if _, err := stream.Write([]byte(line + "\n")); err != nil {
			t.Fatal(err)
		}
		want := "got " + line + " on /dev/pts/0"
		waitFor(t, want, func() bool { return strings.Contains(b.output(), want) })
	}
	say(p.Socket, "one")
	image := filepath.Join(b.dir, "one")
	if err := b.checkpoint(runtime.Checkpoint{Image: image}); err != nil {
		t.Fatal(err)
	}
	b.remove()
	b.goOn(image)
	state, err := lab.driver.Adopt(b.context(), b.id)
	if err != nil {
		t.Fatal(err)
	}
	say(state.Socket, "two")
	if err := lab.driver.Resize(b.context(), b.id, "", 77, 33); err != nil {
		t.Fatal(err)
	}
	b.remove()
	b.spec.Process.Terminal = false
	if err := b.restore(image); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("restored without a terminal: %v", err)
	}
}

// A dump that cannot be made, or that nobody waits for any more, leaves the
// container running and nothing on the disk.
func TestAFailedCheckpoint(t *testing.T) {
	needsCRIU(t)
	nothing := func(b *box, image string) {
		t.Helper()
		for _, name := range []string{image, image + ".partial"} {
			if _, err := os.Stat(name); err == nil {
				t.Errorf("the failed checkpoint left %s", name)
			}
		}
		at := b.count()
		waitFor(t, "the counter to go on", func() bool { return b.count() >= at+5 })
	}
	nested := newBox(t, `unshare -p -f sleep 1000 & `+counter)
	nested.counting()
	image := filepath.Join(nested.dir, "one")
	err := nested.checkpoint(runtime.Checkpoint{Image: image})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "nested pid namespace") {
		t.Errorf("checkpoint with a pid namespace inside: %v", err)
	}
	nothing(nested, image)
	b := newBox(t, counter)
	b.counting()
	image = filepath.Join(b.dir, "one")
	ctx, cancel := context.WithCancel(b.context())
	time.AfterFunc(20*time.Millisecond, cancel) // CRIU is at work: it starts in less, and takes longer
	if err := lab.driver.Checkpoint(ctx, runtime.Checkpoint{ID: b.id, Image: image}); !errors.Is(err, context.Canceled) {
		t.Errorf("checkpoint that nobody wants any more: %v", err)
	}
	nothing(b, image)
	if err := b.checkpoint(runtime.Checkpoint{Image: image}); err != nil {
		t.Error(err)
	}
	if err := b.checkpoint(runtime.Checkpoint{Image: image + "2"}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("checkpoint of a container that has ended: %v", err)
	}
}

// Images that are not whole make an error that says so, and nothing stays.
func TestDamagedCheckpoints(t *testing.T) {
	needsCRIU(t)
	b := newBox(t, counter)
	b.counting()
	image := filepath.Join(b.dir, "one")
	if err := b.checkpoint(runtime.Checkpoint{Image: image, LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(dir string) error{
		"no description": func(dir string) error { return os.Remove(filepath.Join(dir, "davit.json")) },
		"no inventory":   func(dir string) error { return os.Remove(filepath.Join(dir, "inventory.img")) },
		"half a tree":    func(dir string) error { return os.Truncate(filepath.Join(dir, "pstree.img"), 7) },
		"no memory":      func(dir string) error { return os.Truncate(filepath.Join(dir, "pages-1.img"), 100) },
		"noise": func(dir string) error {
			name := filepath.Join(dir, "core-1.img")
			info, err := os.Stat(name)
			if err != nil {
				return err
			}
			return os.WriteFile(name, bytes.Repeat([]byte("noise"), int(info.Size()))[:info.Size()], 0o600)
		},
	} {
		other := newBox(t, "exit 0")
		dir := filepath.Join(other.dir, "one")
		if err := os.CopyFS(dir, os.DirFS(image)); err != nil {
			t.Fatal(err)
		}
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		err := other.restore(dir)
		if err == nil {
			t.Errorf("%s: restored", name)
			continue
		}
		t.Logf("%s: %v", name, err)
		if _, err := os.Stat(filepath.Join(dir, "pages-1.img")); err != nil {
			t.Errorf("%s: the checkpoint is gone: %v", name, err)
		}
		if group, err := cgroup.Open(other.spec.Linux.CgroupsPath); err == nil {
			pids, _ := group.Procs()
			t.Errorf("%s: the cgroup is left, with processes %v", name, pids)
		}
		other.prints("")
	}
	if err := newBox(t, "exit 1").restore(filepath.Join(b.dir, "none")); !errdefs.IsNotFound(err) {
		t.Errorf("a checkpoint that is not there: %v", err)
	}
}

func TestCheckpointOfAPausedContainer(t *testing.T) {
	needsCRIU(t)
	b := newBox(t, counter)
	b.counting()
	if err := lab.driver.Pause(b.context(), b.id); err != nil {
		t.Fatal(err)
	}
	at := b.count()
	image := filepath.Join(b.dir, "one")
	if err := b.checkpoint(runtime.Checkpoint{Image: image, LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	if state, err := lab.driver.Adopt(b.context(), b.id); err != nil || state.Status != runtime.StatusPaused || b.count() != at {
		t.Errorf("after its checkpoint the paused container is %s and has counted from %d to %d: %v", state.Status, at, b.count(), err)
	}
	if err := lab.driver.Resume(b.context(), b.id); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the counter to go on", func() bool { return b.count() >= at+5 })
	other := newBox(t, "exit 1")
	other.goOn(image)
	waitFor(t, "the restored counter", func() bool { return other.count() >= at+5 })
}
