package native_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/native"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/runtime"
)

// patience is how long anything may take, on an emulated machine, too.
const patience = 3 * time.Minute

// lab is what all tests share: one driver, and a root filesystem of busybox.
var lab struct {
	driver  *native.Driver
	run     string
	rootfs  string
	monitor string // its program
	refused string // why there is no lab
	count   atomic.Int32
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		stop, err := setUp()
		if err != nil {
			lab.refused = err.Error()
			if os.Geteuid() == 0 {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		defer stop()
		return m.Run()
	}())
}

func buildMonitor(program string) error {
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "github.com/davit-engine/davit/cmd/davit-monitor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the monitor: %w: %s", err, out)
	}
	return nil
}

func setUp() (stop func(), err error) {
	stop = func() {}
	if os.Geteuid() != 0 {
		return stop, errors.New("starting containers needs root")
	}
	dir, err := os.MkdirTemp("", "davit-native-")
	if err != nil {
		return stop, err
	}
	stop = func() { _ = os.RemoveAll(dir) }
	lab.run, lab.rootfs = filepath.Join(dir, "run"), filepath.Join(dir, "rootfs")
	program := filepath.Join(dir, "davit-monitor")
	lab.monitor = program
	// Before the driver is there: it reaps every child of this process.
	if bin := os.Getenv("DAVIT_BIN"); bin != "" { // built before, as for a guest without Go
		program = filepath.Join(bin, "davit-monitor")
		lab.monitor = program
	} else if err := buildMonitor(program); err != nil {
		return stop, err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return stop, fmt.Errorf("%w: run make test, which installs it", err)
	}
	for _, name := range []string{"bin", "proc", "dev", "sys", "tmp", "out", "etc"} {
		if err := os.MkdirAll(filepath.Join(lab.rootfs, name), 0o755); err != nil {
			return stop, err
		}
	}
	if err := os.Mkdir(lab.run, 0o700); err != nil {
		return stop, err
	}
	body, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(lab.rootfs, "bin/busybox"), body, 0o755)
	}
	if err == nil {
		err = os.Symlink("busybox", filepath.Join(lab.rootfs, "bin/sh"))
	}
	if err != nil {
		return stop, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return stop, err
	}
	lab.driver, err = native.New(lab.run, program, hclog.NewNullLogger())
	if err != nil {
		return stop, err
	}
	parent := fmt.Sprintf("/davit-native-%d", os.Getpid())
	stop = func() {
		lab.driver.Close()
		for _, path := range []string{parent + "/monitors", parent} {
			if group, err := cgroup.Open(path); err == nil {
				if err := group.Delete(context.Background()); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}
		}
		_ = os.RemoveAll(dir)
	}
	return stop, nil
}

// box is one container of a test.
type box struct {
	t    *testing.T
	id   string
	spec *specs.Spec
	// rootfs are its mounts; tests may replace them.
	rootfs   []mount.Mount
	dir, out string // the test's directory, and what the container sees as /out
	created  bool
}

func ptr[T any](v T) *T { return &v }

// newBox prepares a container that runs a shell script.
func newBox(t *testing.T, script string) *box {
	t.Helper()
	if lab.refused != "" {
		t.Skip(lab.refused)
	}
	b := &box{t: t, id: fmt.Sprintf("t%d", lab.count.Add(1)), dir: t.TempDir()}
	b.out = filepath.Join(b.dir, "out")
	for _, name := range []string{"out", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(b.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(b.out, 0o777); err != nil {
		t.Fatal(err)
	}
	b.rootfs = []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"lowerdir=" + lab.rootfs, "upperdir=" + filepath.Join(b.dir, "upper"), "workdir=" + filepath.Join(b.dir, "work"),
	}}}
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_NET_ADMIN"}
	b.spec = &specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin", "HOME=/"}, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/out", Type: "bind", Source: b.out, Options: []string{"rbind", "rprivate"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: fmt.Sprintf("/davit-native-%d/%s", os.Getpid(), b.id),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			},
		},
	}
	return b
}

func (b *box) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	return ctx
}

// create makes the container; it is gone after the test.
func (b *box) create() (runtime.Process, error) {
	body, err := json.Marshal(b.spec)
	if err != nil {
		b.t.Fatal(err)
	}
	p, err := lab.driver.Create(b.context(), runtime.Create{ID: b.id, Spec: body, Rootfs: b.rootfs, IO: runtime.IO{
		Terminal: b.spec.Process.Terminal, Stdin: b.spec.Process.Terminal, Stdout: true, Stderr: true, Log: &runtime.Log{Path: b.log(), MaxFile: 1},
	}})
	if err == nil {
		b.created = true
		b.t.Cleanup(func() { b.remove() })
	}
	if _, found := os.Stat(filepath.Join(lab.run, b.id)); err != nil && found == nil {
		b.t.Errorf("the failed creation left %s", filepath.Join(lab.run, b.id))
	}
	return p, err
}

func (b *box) remove() {
	if !b.created {
		return
	}
	b.created = false
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := lab.driver.Delete(ctx, b.id, "", true); err != nil {
		b.t.Error(err)
	}
}

func (b *box) log() string { return filepath.Join(b.dir, "log.json") }

// start creates the container and starts it.
func (b *box) start() runtime.Process {
	b.t.Helper()
	p, err := b.create()
	if err == nil {
		err = lab.driver.Start(b.context(), b.id, "")
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// run answers the container's output without white space around it, and its
// exit code.
func (b *box) run() (string, int) {
	b.t.Helper()
	b.start()
	exit, err := lab.driver.Wait(b.context(), b.id, "")
	if err != nil {
		b.t.Fatal(err)
	}
	b.remove()
	return b.output(), exit.Code
}

// output is what the log has.
func (b *box) output() string {
	b.t.Helper()
	body, err := os.ReadFile(b.log())
	if err != nil {
		b.t.Fatal(err)
	}
	var text strings.Builder
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		var line struct{ Log string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			b.t.Fatal(err)
		}
		text.WriteString(line.Log)
	}
	return strings.TrimSpace(strings.ReplaceAll(text.String(), "\r\n", "\n"))
}

// prints fails unless the container prints exactly want and exits with 0.
func (b *box) prints(want string) {
	b.t.Helper()
	if got, code := b.run(); got != want || code != 0 {
		b.t.Errorf("the container printed %q and exited with %d, want %q", got, code, want)
	}
}

// fails fails unless creation or start is refused with a message that has all of
// want.
func (b *box) fails(want ...string) error {
	b.t.Helper()
	_, err := b.create()
	if err == nil {
		err = lab.driver.Start(b.context(), b.id, "")
	}
	if err == nil {
		b.t.Fatalf("the container started, want an error with %q", want)
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			b.t.Errorf("error %q does not have %q", err, text)
		}
	}
	return err
}

// exec runs a script in the running container and answers what it printed.
func (b *box) exec(script string, change func(*specs.Process)) string {
	b.t.Helper()
	id := fmt.Sprintf("e%d", lab.count.Add(1))
	process := *b.spec.Process
	process.Terminal = false
	process.Args = []string{"sh", "-c", "exec >/out/" + id + " 2>&1; " + script}
	if change != nil {
		change(&process)
	}
	body, err := json.Marshal(process)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx := b.context()
	if _, err = lab.driver.Exec(ctx, runtime.Exec{ID: b.id, ExecID: id, Process: body}); err == nil {
		if err = lab.driver.Start(ctx, b.id, id); err == nil {
			_, err = lab.driver.Wait(ctx, b.id, id)
		}
	}
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := os.ReadFile(filepath.Join(b.out, id))
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// mount adds a mount to the spec.
func (b *box) mount(kind, source, destination string, options ...string) {
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: kind, Source: source, Destination: destination, Options: options})
}

// hostMount mounts on the host for the time of the test.
func (b *box) hostMount(kind, name string, flags uintptr, data string) string {
	b.t.Helper()
	dir := filepath.Join(b.dir, name)
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		source := kind
		if kind == "bind" {
			source, flags = dir, flags|unix.MS_BIND
		}
		err = unix.Mount(source, dir, kind, flags, data)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			b.t.Error(err)
		}
	})
	return dir
}

// waitFor polls for something that nobody announces.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// privateMounts answers a thread with a copy of the host's mount namespace, for
// the time of the test.
func privateMounts(t *testing.T) int {
	t.Helper()
	made, over := make(chan error, 1), make(chan struct{})
	t.Cleanup(func() { close(over) })
	var thread int
	go func() {
		goruntime.LockOSThread() // never unlocked: the thread ends with the goroutine
		thread = unix.Gettid()
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")
		}
		made <- err
		<-over
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	return thread
}
