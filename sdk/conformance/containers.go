package conformance

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/sdk/conformance/guest"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/runtime"
)

// newRootfs makes the directory in which the guest's program is.
func (b *bench) newRootfs() error {
	program := b.o.Guest
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return err
		}
	}
	file, err := elf.Open(program)
	if err != nil {
		return fmt.Errorf("the program for containers: %w", err)
	}
	static := !slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if err := file.Close(); err != nil {
		return err
	}
	if !static {
		return fmt.Errorf("%s cannot run in containers: it needs shared libraries; build it with CGO_ENABLED=0: %w", program, errdefs.ErrFailedPrecondition)
	}
	from, err := os.Open(program)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(filepath.Join(b.scratch(), "guest"), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	// Containers' users come by here.
	return errors.Join(err, to.Close(), os.Chmod(b.dir, 0o711), os.Chmod(b.scratch(), 0o711))
}

// cgroup is the parent of containers' cgroups.
func (b *bench) cgroup() string { return "/" + filepath.Base(b.dir) }

// box is a container.
type box struct {
	t    *T
	id   string
	spec specs.Spec
	ask  runtime.Create // but for the spec
	dir  string         // on the machine: out, log and the rest
}

// box describes a container that runs the guest. It is deleted when the check is over.
func (t *T) box(name string, args ...string) *box {
	b := &box{t: t, id: networkID(t.name(name)), dir: filepath.Join(t.scratch(), t.name(name))}
	for _, sub := range []string{"rootfs/proc", "rootfs/dev", "rootfs/sys", "rootfs" + guest.Out, "out"} {
		t.must(os.MkdirAll(filepath.Join(b.dir, sub), 0o755), "making a root filesystem")
	}
	t.must(errors.Join(
		os.Link(filepath.Join(t.scratch(), "guest"), filepath.Join(b.dir, "rootfs/guest")),
		os.WriteFile(filepath.Join(b.dir, "rootfs/data"), []byte("not a program\n"), 0o644),
		os.Chmod(filepath.Join(b.dir, "out"), 0o777),
	), "making a root filesystem")
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_CHROOT"}
	b.spec = specs.Spec{
		Version: "1.0.2", Root: &specs.Root{Path: "rootfs"}, Hostname: "kit",
		Process: &specs.Process{
			Args: append([]string{"/guest"}, args...), Env: []string{"PATH=/", guest.Env + "=1"}, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: guest.Out, Type: "bind", Source: filepath.Join(b.dir, "out"), Options: []string{"rbind", "rprivate"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: t.cgroup() + "/" + b.id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			},
			Resources: &specs.LinuxResources{},
		},
	}
	b.ask = runtime.Create{
		ID: b.id, Rootfs: []mount.Mount{{Type: "bind", Source: filepath.Join(b.dir, "rootfs"), Options: []string{"rbind"}}},
		IO: runtime.IO{Stdout: true, Stderr: true, Log: &runtime.Log{Path: filepath.Join(b.dir, "log"), MaxFile: 1}},
	}
	t.cleanup(func() {
		if err := t.start(t.ctx); err != nil {
			t.errorf("starting the plugin: %v", err)
		} else if _, err := t.runtime().Delete(t.ctx, b.id, "", true); err != nil && !errdefs.IsNotFound(err) {
			t.errorf("deleting container %s in the end: %v", name, err)
		}
	})
	return b
}

// request is what Create is asked.
func (b *box) request() runtime.Create {
	spec, err := json.Marshal(b.spec)
	b.t.must(err, "encoding a spec")
	r := b.ask
	r.Spec = spec
	return r
}

func (b *box) create() runtime.Process {
	p, err := b.t.runtime().Create(b.t.ctx, b.request())
	b.t.must(err, "Create")
	return p
}

// started is a container whose process runs.
func (t *T) started(name string, args ...string) *box {
	b := t.box(name, args...)
	b.create()
	b.start()
	return b
}

func (b *box) start() { b.t.must(b.t.runtime().Start(b.t.ctx, b.id, ""), "Start") }

// ready waits until the guest has said so.
func (b *box) ready() *box {
	b.says("ready", 1)
	return b
}

// says waits until the guest has written a text to its log as many times.
func (b *box) says(text string, times int) {
	said := eventually(func() (string, bool) {
		said := b.output()
		return said, strings.Count(said, text) >= times
	})
	if n := strings.Count(said, text); n != times {
		b.t.fatalf("the container should have said %q %d times, and its log has %q", text, times, said)
	}
}

func (b *box) wait() runtime.Exit {
	exit, err := b.t.runtime().Wait(b.t.ctx, b.id, "")
	b.t.must(err, "Wait")
	return exit
}

// ends wants the process to end with a code.
func (b *box) ends(code int, what string) runtime.Exit {
	exit := b.wait()
	if exit.Code != code {
		b.t.errorf("%s: the exit code is %d, not %d (%s)", what, exit.Code, code, exit.Reason)
	}
	return exit
}

// status is what Adopt says of the container.
func (b *box) status(want runtime.Status, when string) runtime.State {
	state, err := b.t.runtime().Adopt(b.t.ctx, b.id)
	b.t.must(err, "Adopt")
	if state.Status != want || state.ID != b.id {
		b.t.errorf("%s Adopt answers %s of container %s, not %s", when, state.Status, state.ID, want)
	}
	return state
}

func (b *box) signal(number int, all bool) error {
	return b.t.runtime().Signal(b.t.ctx, b.id, "", number, all)
}

func (b *box) delete(force bool) (*runtime.Exit, error) {
	return b.t.runtime().Delete(b.t.ctx, b.id, "", force)
}

// logged are the entries of the log.
func (b *box) logged() (entries []logEntry) {
	body, err := os.ReadFile(b.ask.IO.Log.Path)
	if err != nil && !os.IsNotExist(err) {
		b.t.must(err, "reading the log")
	}
	for line := range strings.Lines(string(body)) {
		var entry logEntry
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			b.t.fatalf("line %q of the log is not in the json-file format: %v", line, err)
		}
		entries = append(entries, entry)
	}
	return entries
}

// logEntry is one of Docker's json-file format.
type logEntry struct{ Log, Stream, Time string }

// output is what the log has.
func (b *box) output() string {
	var all strings.Builder
	for _, entry := range b.logged() {
		all.WriteString(strings.ReplaceAll(entry.Log, "\r\n", "\n"))
	}
	return all.String()
}

// counter reads how far a guest has counted.
func (b *box) counter() string {
	body, err := os.ReadFile(filepath.Join(b.dir, "out", "count"))
	if err != nil {
		return ""
	}
	return string(body)
}

// counts wants the guest to go on counting.
func (b *box) counts(when string) {
	was := b.counter()
	if now := eventually(func() (string, bool) {
		now := b.counter()
		return now, now != was && now != ""
	}); now == was {
		b.t.errorf("%s the container does not go on: it counted to %s", when, now)
	}
}

// exists says whether there is a process.
func exists(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return pid > 0 && err == nil
}

// warmRuntime has the driver run and delete a container.
func (b *bench) warmRuntime(ctx context.Context) error {
	t := &T{bench: b, ctx: ctx, prefix: "warm-", outcome: Pass}
	t.do(func() {
		box := t.started("container", guest.Exit, "0")
		box.wait()
	})
	for _, undo := range slices.Backward(t.undo) {
		t.do(undo)
	}
	return ctx.Err()
}

// cgroupDirs are the directories of the bench in all hierarchies.
func (b *bench) cgroupDirs() ([]string, error) {
	if b.o.Kind != Runtime {
		return nil, nil
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if kind, _, _ := strings.Cut(after, " "); len(fields) > 4 && (kind == "cgroup" || kind == "cgroup2") {
			if dir := fields[4] + b.cgroup(); !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return slices.DeleteFunc(dirs, func(dir string) bool {
		_, err := os.Stat(dir)
		return err != nil
	}), nil
}

// cgroups are the bench's cgroups, parents first.
func (b *bench) cgroups() ([]string, error) {
	tops, err := b.cgroupDirs()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, top := range tops {
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && entry.IsDir() {
				all = append(all, path)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("looking for cgroups: %w", err)
		}
	}
	return all, nil
}

// removeCgroups removes the bench's cgroups, whose last processes may just be ending.
func (b *bench) removeCgroups() error {
	return eventually(func() (error, bool) {
		groups, err := b.cgroups()
		for _, group := range slices.Backward(groups) {
			if gone := os.Remove(group); gone != nil && !os.IsNotExist(gone) {
				err = errors.Join(err, gone)
			}
		}
		return err, err == nil
	})
}

// contained are the processes in the bench's cgroups, or with a root filesystem of
// the bench's.
func (b *bench) contained() []string {
	if b.o.Kind != Runtime {
		return nil
	}
	found := rooted(b.dir)
	groups, _ := b.cgroups()
	for _, group := range groups {
		body, _ := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		for _, pid := range strings.Fields(string(body)) {
			found = append(found, described(pid))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// rooted are the processes to which something in a directory is mounted, and not to
// everybody.
func rooted(dir string) (found []string) {
	own, _ := os.Readlink("/proc/self/ns/mnt")
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range processes {
		if ns, err := os.Readlink(filepath.Join(path, "ns/mnt")); err != nil || ns == own {
			continue
		}
		// A mount names what it shows of its filesystem, which may be mounted anywhere.
		mounts, _ := os.ReadFile(filepath.Join(path, "mountinfo"))
		if strings.Contains(string(mounts), "/"+filepath.Base(dir)+"/") {
			found = append(found, described(filepath.Base(path)))
		}
	}
	return found
}

func described(pid string) string {
	exe, _ := os.Readlink(filepath.Join("/proc", pid, "exe"))
	return pid + " " + exe
}
