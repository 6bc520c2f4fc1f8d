package sandbox_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/launch"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// The test's own program is the stage, too, as davit-monitor is.
func TestMain(m *testing.M) {
	if os.Args[0] == launch.InitName || os.Args[0] == launch.ExecName {
		sandbox.Main()
	}
	os.Exit(m.Run())
}

// box is a container without an engine: a root filesystem and the stage's
// configuration, for tests to spoil.
type box struct {
	*testing.T
	root   string // the root filesystem as the "image" has it
	config sandbox.Config
	flags  uintptr
}

func newBox(t *testing.T) *box {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces and mounts need root")
	}
	root := t.TempDir()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs the static busybox of the package busybox-static: ", err)
	}
	b := &box{T: t, root: root, flags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET}
	b.dir("bin")
	b.file("bin/busybox", string(busybox))
	b.check(os.Chmod(root, 0o755))
	b.check(os.Chmod(filepath.Join(root, "bin/busybox"), 0o755))
	b.config = sandbox.Config{
		Container: &sandbox.Container{
			Rootfs: t.TempDir(), Propagation: unix.MS_SLAVE | unix.MS_REC,
			Root: []sandbox.Mount{{Type: "bind", Source: root}},
			Mounts: []sandbox.Mount{
				{Type: "proc", Source: "proc", Target: "/proc"},
				{Type: "tmpfs", Source: "tmpfs", Target: "/dev"},
				{Type: "devpts", Source: "devpts", Target: "/dev/pts", Data: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
				{Type: "sysfs", Source: "sysfs", Target: "/sys", Set: unix.MOUNT_ATTR_RDONLY},
			},
			Devices: []sandbox.Device{{Path: "/dev/null", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 3}},
		},
		Process: sandbox.Process{Args: []string{"/bin/busybox", "true"}, Cwd: "/", Caps: &sandbox.Caps{}},
	}
	return b
}

func (b *box) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *box) dir(name string) string {
	b.Helper()
	path := filepath.Join(b.root, name)
	b.check(os.MkdirAll(path, 0o755))
	return path
}

func (b *box) file(name, content string) {
	b.Helper()
	b.check(os.WriteFile(filepath.Join(b.root, name), []byte(content), 0o644))
}

func (b *box) link(target, name string) {
	b.Helper()
	b.check(os.Symlink(target, filepath.Join(b.root, name)))
}

func (b *box) command(line string) {
	b.config.Process.Args = []string{"/bin/busybox", "sh", "-c", line}
}

// stage is a stage that has set its container up and waits for the order to
// execute.
type stage struct {
	*launch.Child
	out      *os.File
	terminal int // -1 for none
	gone     bool
}

func (b *box) start(name string, config sandbox.Config, flags uintptr, init int) (*stage, error) {
	b.Helper()
	body, err := config.Encode()
	b.check(err)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	b.check(err)
	defer func() { _ = null.Close() }()
	out, theirs, err := os.Pipe()
	b.check(err)
	defer func() { _ = theirs.Close() }()
	child, err := launch.Stage{Name: name, Config: body, Flags: flags, Stdin: null, Stdout: theirs, Stderr: theirs, Init: init, PIDNamespace: init}.Start()
	b.check(err)
	s := &stage{Child: child, out: out}
	b.Cleanup(func() { s.end(b.T) })
	s.terminal, err = child.WaitReady()
	return s, err
}

// create makes the container.
func (b *box) create() (*stage, error) {
	b.Helper()
	return b.start(launch.InitName, b.config, b.flags, 0)
}

// end kills what is left of a stage and waits for it.
func (s *stage) end(t *testing.T) {
	t.Helper()
	if s.gone {
		return
	}
	s.gone = true
	_ = unix.Kill(s.PID, unix.SIGKILL)
	s.Close()
	for {
		if _, err := unix.Wait4(s.PID, nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	_ = s.out.Close()
	if s.terminal >= 0 {
		_ = unix.Close(s.terminal)
	}
}

// run lets a container's program run to its end and answers its output.
func (b *box) run() (string, error) {
	b.Helper()
	s, err := b.create()
	if err == nil {
		err = s.Execute()
	}
	if err != nil {
		s.end(b.T)
		return "", err
	}
	output, err := io.ReadAll(s.out)
	b.check(err)
	s.end(b.T)
	return strings.TrimSpace(string(output)), nil
}

func (b *box) mustRun() string {
	b.Helper()
	output, err := b.run()
	if err != nil {
		b.Fatalf("the container does not run: %v", err)
	}
	return output
}

// refuses proves that the container cannot be made, with a reason that holds the
// given words.
func (b *box) refuses(words string) {
	b.Helper()
	output, err := b.run()
	if err == nil {
		b.Errorf("the container ran and said %q; want an error with %q", output, words)
	} else if !strings.Contains(err.Error(), words) {
		b.Errorf("error %q does not say %q", err, words)
	}
}
