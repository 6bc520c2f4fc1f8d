package sandbox_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// A mount over /proc, or into it, whatever way its target is written.
func TestCVE_2019_16884_NothingIsMountedOverProc(t *testing.T) {
	for name, c := range map[string]struct{ target, words string }{
		"over it":             {"/proc", "is not of type proc"},
		"into it":             {"/proc/self/attr", "is inside /proc"},
		"by dots":             {"/bin/../proc/sys", "is inside /proc"},
		"by a link":           {"/data/sys", "is inside /proc"},
		"over it by a link":   {"/data", "is not of type proc"},
		"a file not emulated": {"/proc/version", "is inside /proc"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.link("proc", "data")
			source := t.TempDir()
			if strings.HasSuffix(c.target, "version") {
				source = "/etc/hostname"
			}
			b.config.Container.Mounts = append(b.config.Container.Mounts, sandbox.Mount{Type: "bind", Source: source, Target: c.target})
			b.refuses(c.words)
		})
	}
	t.Run("emulated files may", func(t *testing.T) {
		b := newBox(t)
		b.file("uptime", "42.00 1.00\n")
		b.config.Container.Mounts = append(b.config.Container.Mounts, sandbox.Mount{Type: "bind", Source: b.root + "/uptime", Target: "/proc/uptime"})
		b.command("cat /proc/uptime")
		if got := b.mustRun(); got != "42.00 1.00" {
			t.Errorf("/proc/uptime is %q", got)
		}
	})
	t.Run("the host's proc may", func(t *testing.T) {
		b := newBox(t)
		b.config.Container.Mounts = append(b.config.Container.Mounts, sandbox.Mount{Type: "bind", Source: "/proc", Target: "/proc"})
		b.mustRun()
	})
}

// With /proc or /sys a link the masked paths would be elsewhere (also
// CVE-2023-28642).
func TestCVE_2023_27561_ProcAndSysAreNoLinks(t *testing.T) {
	for _, name := range []string{"proc", "sys"} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.dir("elsewhere/sub")
			b.link("elsewhere", name)
			b.refuses("must be mounted on ordinary directory")
		})
	}
	t.Run("a link on the way", func(t *testing.T) {
		b := newBox(t)
		b.dir("elsewhere")
		b.link("elsewhere", "chroot")
		b.config.Container.Mounts = append(b.config.Container.Mounts, sandbox.Mount{Type: "proc", Target: "/chroot/proc"})
		b.refuses("must be mounted on ordinary directory")
	})
}

// Files are masked by the null device of the host: the container's may be a
// link to what an attacker wants to write, or missing.
func TestCVE_2025_31133_MasksAreNotTheContainersNull(t *testing.T) {
	for name, spoil := range map[string]func(*box, string){
		"a link":  func(b *box, dev string) { b.check(os.Symlink("/proc/sys/kernel/hostname", dev+"/null")) },
		"a file":  func(b *box, dev string) { b.check(os.WriteFile(dev+"/null", []byte("secret"), 0o666)) },
		"missing": func(*box, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			dev := t.TempDir()
			b.check(os.Mkdir(dev+"/pts", 0o755))
			spoil(b, dev)
			c := b.config.Container
			c.Mounts[1] = sandbox.Mount{Type: "bind", Source: dev, Target: "/dev"}
			c.Devices = nil
			c.Masked = []string{"/proc/timer_list", "/proc/keys", "/proc/fs", "/proc/irq", "/proc/nosuch"}
			b.command("stat -c %F-%t-%T /proc/timer_list /proc/keys; cat /proc/timer_list /proc/keys; ls /proc/fs /proc/irq")
			want := "character special file-1-3\ncharacter special file-1-3\n/proc/fs:\n\n/proc/irq:"
			if got := b.mustRun(); got != want {
				t.Errorf("masked paths show\n%s", got)
			}
		})
	}
}

// A masked or write-protected path that is swapped for a link between the look
// and the mount would leave what it named open.
func TestCVE_2023_28642_MaskedPathsAreNotSwapped(t *testing.T) {
	b := newBox(t)
	shared := t.TempDir()
	b.check(os.Mkdir(shared+"/secret", 0o755))
	c := b.config.Container
	c.Mounts = append(c.Mounts, sandbox.Mount{Type: "bind", Source: shared, Target: "/shared"})
	c.ReadOnlyIn = []string{"/shared/secret"}
	stop := swap(t, shared+"/secret", "../bin")
	defer stop()
	made := 0
	for start := time.Now(); racing(start, made); {
		s, err := b.create()
		if err == nil {
			made++
			// What was found was protected, be it the directory or where the link led.
			protected := 0
			for _, point := range mountPoints(t, s.PID) {
				want := shared + "/secret"
				switch {
				case point.path == "/bin":
					want = b.root + "/bin"
				case !strings.HasPrefix(point.path, "/shared/"):
					continue
				}
				protected++
				if !strings.HasSuffix(want, strings.TrimSuffix(point.root, ".link")) {
					t.Fatalf("%s shows %s, want %s", point.path, point.root, want)
				}
			}
			if protected != 1 {
				t.Fatalf("%d paths are write-protected, want 1:\n%s", protected, mountInfo(t, s.PID))
			}
		}
		s.end(t)
	}
}

// The terminal itself is mounted at /dev/console, not what a name leads to.
func TestCVE_2025_52565_ConsoleIsTheTerminal(t *testing.T) {
	t.Run("a link", func(t *testing.T) {
		b := newBox(t)
		dev := t.TempDir()
		b.check(os.Mkdir(dev+"/pts", 0o755))
		b.check(os.Symlink("/proc/sys/kernel/hostname", dev+"/console"))
		b.config.Container.Mounts[1] = sandbox.Mount{Type: "bind", Source: dev, Target: "/dev"}
		b.config.Process.Terminal = true
		b.refuses("/dev/console")
	})
	t.Run("false terminals", func(t *testing.T) {
		b := newBox(t)
		dev := t.TempDir()
		b.check(os.Mkdir(dev+"/pts", 0o755))
		b.check(unix.Mkfifo(dev+"/pts/ptmx", 0o666))
		c := b.config.Container
		c.Mounts[1] = sandbox.Mount{Type: "bind", Source: dev, Target: "/dev"}
		c.Mounts = append(c.Mounts[:2], c.Mounts[3:]...) // no devpts
		b.config.Process.Terminal = true
		b.refuses("needs a devpts")
	})
	t.Run("the terminal", func(t *testing.T) {
		b := newBox(t)
		b.config.Process.Terminal = true
		s, err := b.create()
		b.check(err)
		for _, point := range mountPoints(t, s.PID) {
			if point.path == "/dev/console" {
				if point.kind != "devpts" || point.root != "/0" {
					t.Errorf("/dev/console is %s of a %s", point.root, point.kind)
				}
				return
			}
		}
		t.Errorf("no /dev/console in\n%s", mountInfo(t, s.PID))
	})
}

// Sysctls go to the kernel although the container has files in their place.
func TestCVE_2025_52881_WritesReachTheKernel(t *testing.T) {
	for name, spoil := range map[string]func(*box){
		"no proc": func(b *box) { b.config.Container.Mounts = b.config.Container.Mounts[1:] },
		"its own proc elsewhere": func(b *box) {
			b.config.Container.Mounts[0] = sandbox.Mount{Type: "proc", Target: "/other"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.dir("proc/sys/kernel")
			b.file("proc/sys/kernel/domainname", "untouched")
			b.config.Container.Sysctls = map[string]string{"kernel/domainname": "real"}
			spoil(b)
			b.command("cat /proc/sys/kernel/domainname; dnsdomainname >/dev/null 2>&1; cat /other/sys/kernel/domainname 2>/dev/null")
			s, err := b.create()
			b.check(err)
			if got, err := os.ReadFile(b.root + "/proc/sys/kernel/domainname"); err != nil || string(got) != "untouched" {
				t.Errorf("the container's file holds %q, %v", got, err)
			}
			if got := domainname(t, s.PID); got != "real" {
				t.Errorf("the container's domain name is %q", got)
			}
		})
	}
	t.Run("the OOM score of an exec", func(t *testing.T) {
		b := newBox(t)
		b.config.Container.Mounts = b.config.Container.Mounts[1:]
		b.dir("proc/self")
		b.file("proc/self/oom_score_adj", "untouched")
		init, err := b.create()
		b.check(err)
		score := 123
		s := b.exec(init, func(p *sandbox.Process) { p.OOMScoreAdj = &score })
		if got, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", s.PID)); err != nil || strings.TrimSpace(string(got)) != "123" {
			t.Errorf("the score is %q, %v", got, err)
		}
		if got, err := os.ReadFile(b.root + "/proc/self/oom_score_adj"); err != nil || string(got) != "untouched" {
			t.Errorf("the container's file holds %q, %v", got, err)
		}
	})
}

// An image's working directory leads out of the container: by a descriptor that
// somebody left open, or by a process of the host.
func TestCVE_2024_21626_WorkingDirectoryIsInside(t *testing.T) {
	t.Run("a descriptor", func(t *testing.T) {
		fd := leak(t)
		b := newBox(t)
		b.config.Process.Cwd = "/proc/self/fd/" + strconv.Itoa(fd)
		b.refuses("failed")
	})
	t.Run("a process of the host", func(t *testing.T) {
		b := newBox(t)
		b.flags &^= unix.CLONE_NEWPID
		b.config.Process.Cwd = fmt.Sprintf("/proc/%d/root", os.Getpid())
		b.refuses("failed")
	})
	t.Run("made on the host", func(t *testing.T) {
		outside := t.TempDir()
		b := newBox(t)
		b.flags &^= unix.CLONE_NEWPID
		b.config.Process.Cwd = fmt.Sprintf("/proc/%d/root%s/made", os.Getpid(), outside)
		b.refuses("failed")
		if _, err := os.Lstat(outside + "/made"); err == nil {
			t.Error("the working directory was made on the host")
		}
	})
	t.Run("an exec's", func(t *testing.T) {
		fd := leak(t)
		b := newBox(t)
		init, err := b.create()
		b.check(err)
		_, err = b.tryExec(init, func(p *sandbox.Process) { p.Cwd = "/proc/self/fd/" + strconv.Itoa(fd) })
		if err == nil || !strings.Contains(err.Error(), "failed") {
			t.Errorf("the exec's working directory: %v", err)
		}
	})
}

// Programs get their three standard streams and nothing else.
func TestCVE_2024_21626_NoDescriptorsAreLeft(t *testing.T) {
	fd := leak(t)
	b := newBox(t)
	b.command("for f in /proc/self/fd/*; do readlink $f; done") // a readlink each: no descriptor of the shell's own
	output := b.mustRun()
	if lines := strings.Split(output, "\n"); len(lines) > 4 || strings.Contains(output, "/leak") {
		t.Errorf("descriptor %d was left open, the program has\n%s", fd, output)
	}
	b.command("sleep 100")
	s, err := b.create()
	b.check(err)
	b.check(s.Execute())
	exec := b.exec(s, func(p *sandbox.Process) { p.Args = []string{"/bin/busybox", "sleep", "100"} })
	b.check(exec.Execute())
	for _, pid := range []int{s.PID, exec.PID} {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		b.check(err)
		for _, entry := range entries {
			if n, _ := strconv.Atoi(entry.Name()); n > 2 {
				target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, n))
				t.Errorf("process %d has descriptor %d: %s", pid, n, target)
			}
		}
	}
}

// The place of a mount is swapped for a link while it is mounted: the mount must
// be in the container, wherever there, and nothing be made outside of it
// (CVE-2024-45310).
func TestCVE_2021_30465_MountTargetsAreNotSwapped(t *testing.T) {
	outside := t.TempDir()
	b := newBox(t)
	b.check(os.Mkdir(outside+"/b", 0o755))
	shared := t.TempDir()
	b.check(os.Mkdir(shared+"/a", 0o755))
	c := b.config.Container
	c.Mounts = append(c.Mounts,
		sandbox.Mount{Type: "bind", Source: shared, Target: "/shared"},
		sandbox.Mount{Type: "tmpfs", Source: "marker", Target: "/shared/a/b"},
		sandbox.Mount{Type: "bind", Source: "/etc/hostname", Target: "/shared/a/file"})
	stop := swap(t, shared+"/a", strings.Repeat("../", 20)+outside)
	defer stop()
	made := 0
	for start := time.Now(); racing(start, made); {
		s, err := b.create()
		if err == nil {
			made++
			if info := mountInfo(t, s.PID); strings.Count(info, " tmpfs marker ") != 1 {
				t.Fatalf("the mount is not in the container:\n%s", info)
			}
		}
		s.end(t)
		if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
			t.Fatalf("outside of the container are %v, %v", entries, err)
		}
	}
	if made == 0 {
		t.Error("no container could be made: the race was never run")
	}
}

// A directory on the way to a part of a volume is swapped for a link by another
// user of the volume (CVE-2017-1002101 and CVE-2021-25741 of Kubernetes).
func TestCVE_2021_25741_PartsOfVolumesStayInside(t *testing.T) {
	outside := t.TempDir()
	b := newBox(t)
	volume := t.TempDir()
	for _, dir := range []string{outside + "/part", volume + "/a", volume + "/a/part"} {
		b.check(os.Mkdir(dir, 0o755))
	}
	b.config.Container.Mounts = append(b.config.Container.Mounts, sandbox.Mount{Type: "bind", Source: volume, Subdir: "a/part", Target: "/data"})
	b.mustRun()
	stop := swap(t, volume+"/a", outside)
	defer stop()
	made := 0
	for start := time.Now(); racing(start, made); {
		s, err := b.create()
		if err == nil {
			made++
			for _, point := range mountPoints(t, s.PID) {
				if point.path == "/data" && strings.Contains(point.root, filepath.Base(filepath.Dir(outside))+"/"+filepath.Base(outside)+"/") {
					t.Fatalf("the container has %s", point.root)
				}
			}
		}
		s.end(t)
	}
	if made == 0 {
		t.Error("no container could be made: the race was never run")
	}
}

// Who may trace a stage has the host: a process with its capabilities, but not
// that of tracing, must not. The kernel asks for the tracee's permitted set.
func TestCVE_2016_9962_StagesCannotBeTraced(t *testing.T) {
	if !inChild(t, func() error { return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0) }) {
		return
	}
	b := newBox(t)
	b.command("sleep 100")
	init, err := b.create()
	b.check(err)
	cannotBeTraced(t, init.PID)
	b.check(init.Execute())
	cannotBeTraced(t, b.exec(init, func(*sandbox.Process) {}).PID)
}

func cannotBeTraced(t *testing.T, pid int) {
	t.Helper()
	for _, name := range []string{"root", "cwd", "exe", "fd/0"} {
		if target, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, name)); err == nil {
			t.Errorf("%s of process %d is seen: %s", name, pid, target)
		}
	}
	for _, name := range []string{"root", "exe", "mem"} {
		if fd, err := unix.Open(fmt.Sprintf("/proc/%d/%s", pid, name), unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			_ = unix.Close(fd)
			t.Errorf("%s of process %d can be opened", name, pid)
		}
	}
	if err := unix.PtraceSeize(pid); err == nil {
		t.Errorf("process %d can be traced", pid)
	}
}

// The stage's program is the monitor's own file on the monitor's own mount, which
// the driver made read-only: /proc/PID/exe of a stage leads to no other.
func TestCVE_2019_5736_StagesAreOnTheMonitorsMount(t *testing.T) {
	b := newBox(t)
	b.command("sleep 100")
	init, err := b.create()
	b.check(err)
	mount := func(path string) (st unix.Statx_t) {
		b.check(unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_MNT_ID, &st))
		return st
	}
	own := mount("/proc/self/exe")
	at := mount(fmt.Sprintf("/proc/%d/exe", init.PID))
	if at.Mnt_id != own.Mnt_id || at.Ino != own.Ino {
		t.Errorf("the init's stage is file %d of mount %d, want %d of %d", at.Ino, at.Mnt_id, own.Ino, own.Mnt_id)
	}
	b.check(init.Execute())
	exec := b.exec(init, func(*sandbox.Process) {})
	if at = mount(fmt.Sprintf("/proc/%d/exe", exec.PID)); at.Mnt_id != own.Mnt_id || at.Ino != own.Ino {
		t.Errorf("the exec's stage is file %d of mount %d, want %d of %d", at.Ino, at.Mnt_id, own.Ino, own.Mnt_id)
	}
}

// Inheritable capabilities would come back with programs that have file
// capabilities.
func TestCVE_2022_29162_NothingIsInherited(t *testing.T) {
	if !inChild(t, inheritAll) {
		return
	}
	b := newBox(t)
	const netRaw = 1 << unix.CAP_NET_RAW
	b.config.Process.Caps = &sandbox.Caps{Bounding: netRaw, Effective: netRaw, Permitted: netRaw}
	b.command("grep Cap /proc/self/status")
	want := "CapInh:\t0000000000000000\nCapPrm:\t0000000000002000\nCapEff:\t0000000000002000\nCapBnd:\t0000000000002000\nCapAmb:\t0000000000000000"
	if got := b.mustRun(); got != want {
		t.Errorf("the program has\n%s", got)
	}
}

// A length of 16 bits must not make a harmless filter of a long one.
func TestCVE_2021_43784_LongFiltersAreNotCut(t *testing.T) {
	b := newBox(t)
	program := make([]byte, 8*(1<<16+1))
	for i := 0; i < len(program); i += 8 { // BPF_RET|BPF_K, allow
		program[i], program[i+6], program[i+7] = 0x06, 0xff, 0x7f
	}
	b.config.Seccomp = &sandbox.Seccomp{Program: program}
	b.refuses("instructions")
}

// racing says whether a race goes on: for a moment, and on a slow machine until
// it was run at all.
func racing(start time.Time, made int) bool {
	lasted := time.Since(start)
	return lasted < 500*time.Millisecond || made == 0 && lasted < 20*time.Second
}

// swap makes path a directory and a link by turns, in one atomic step, until it
// is stopped.
func swap(t *testing.T, path, target string) (stop func()) {
	t.Helper()
	other := path + ".link"
	if err := os.Symlink(target, other); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			_ = unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
		}
	})
	return func() { close(done); running.Wait() }
}

// leak opens a directory of the host as careless programs do: execve does not
// close it.
func leak(t *testing.T) int {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "leak")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}
