package native_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// remapped puts a box into a user namespace of its own.
func remapped(b *box) *box {
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = maps, maps
	return b
}

func nsOf(t *testing.T, pid int, kind string) string {
	t.Helper()
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestUserNamespace(t *testing.T) {
	t.Parallel()
	b := remapped(newBox(t, `busybox id -u; busybox awk '{print $1, $2, $3}' /proc/self/uid_map /proc/self/gid_map; busybox cat /proc/self/setgroups
		busybox touch /out/file; busybox stat -c '%u %g' /out/file /dev/null /dev/mine; echo x >/dev/null && busybox head -c 4 /dev/zero | busybox wc -c
		busybox hostname; busybox cat /proc/sys/net/ipv4/ip_forward /proc/self/oom_score_adj; busybox mount -t tmpfs x /tmp && echo mounted; ulimit -Hn; busybox ls /sys/class/net`))
	b.spec.Hostname = "remapped"
	b.spec.Process.User.AdditionalGids = []uint32{7}
	b.spec.Process.OOMScoreAdj = ptr(5)
	b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 1000}}
	b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	mode := os.FileMode(0o600)
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/mine", Type: "c", Major: 1, Minor: 5, FileMode: &mode, UID: ptr(uint32(3)), GID: ptr(uint32(4))}}
	b.prints("0\n0 100000 65536\n0 100000 65536\nallow\n0 0\n0 0\n3 4\n4\nremapped\n1\n5\nmounted\n1000\nlo")
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(b.out, "file"), &st); err != nil || st.Uid != 100000 || st.Gid != 100000 {
		t.Errorf("the container's file belongs to %d:%d on the host, %v", st.Uid, st.Gid, err)
	}
}

func TestExecInAUserNamespace(t *testing.T) {
	t.Parallel()
	b := remapped(newBox(t, "busybox sleep 600"))
	p := b.start()
	out := b.exec("busybox id -u; busybox readlink /proc/self/ns/user; busybox readlink /proc/self/ns/pid; busybox readlink /proc/self/ns/mnt; busybox cat /proc/self/oom_score_adj; busybox ps | busybox grep -c '[s]leep'",
		func(p *specs.Process) { p.User.UID = 5; p.OOMScoreAdj = ptr(7) })
	want := strings.Join([]string{"5", nsOf(t, p.PID, "user"), nsOf(t, p.PID, "pid"), nsOf(t, p.PID, "mnt"), "7", "1"}, "\n")
	if out != want {
		t.Errorf("the exec printed %q, want %q", out, want)
	}
}

func TestATerminalInAUserNamespace(t *testing.T) {
	t.Parallel()
	b := remapped(newBox(t, "busybox stty size; test -c /dev/console && busybox tty; echo x >/dev/stdout"))
	b.spec.Process.Terminal = true
	b.spec.Process.ConsoleSize = &specs.Box{Width: 70, Height: 20}
	b.prints("20 70\n/dev/pts/0\nx")
}

func TestMasksInAUserNamespace(t *testing.T) {
	t.Parallel()
	b := remapped(newBox(t, "busybox wc -c </proc/meminfo; echo x 2>/dev/null >/proc/sys/kernel/domainname || echo fixed; busybox touch /x 2>/dev/null || echo read-only"))
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = []string{"/proc/meminfo"}, []string{"/proc/sys"}
	b.spec.Root.Readonly = true
	b.prints("0\nfixed\nread-only")
}

// TestTheSysOfAnothersNetwork joins a network that is not the user namespace's:
// its sysfs cannot be mounted, the host's is bound instead; its sysctls are set
// from outside.
func TestTheSysOfAnothersNetwork(t *testing.T) {
	t.Parallel()
	first := newBox(t, "busybox sleep 600")
	p := first.start()
	b := remapped(newBox(t, mountOptions("/sys")+"busybox cat /proc/sys/net/ipv4/ip_forward"))
	b.join(specs.NetworkNamespace, p.PID, "net")
	b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	b.prints("ro,nosuid,nodev,noexec,relatime\n1")
}

// join has the box share a namespace of a process.
func (b *box) join(kind specs.LinuxNamespaceType, pid int, name string) {
	path := fmt.Sprintf("/proc/%d/ns/%s", pid, name)
	for i := range b.spec.Linux.Namespaces {
		if b.spec.Linux.Namespaces[i].Type == kind {
			b.spec.Linux.Namespaces[i].Path = path
			return
		}
	}
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
}

func TestJoiningEachNamespace(t *testing.T) {
	t.Parallel()
	first := newBox(t, "busybox sleep 600")
	first.spec.Linux.Namespaces = append(first.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace}, specs.LinuxNamespace{Type: specs.TimeNamespace})
	owner := remapped(newBox(t, "busybox sleep 600"))
	p, remappedPID := first.start(), owner.start().PID
	for kind, name := range map[specs.LinuxNamespaceType]string{
		specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
		specs.CgroupNamespace: "cgroup", specs.TimeNamespace: "time", specs.UserNamespace: "user", specs.MountNamespace: "mnt",
	} {
		pid := p.PID
		if kind == specs.UserNamespace {
			pid = remappedPID
		}
		b := newBox(t, "busybox sleep 600")
		b.join(kind, pid, name)
		if kind == specs.MountNamespace { // one that has the host's files
			pid = os.Getpid()
			b.join(kind, privateMounts(t), name)
		}
		started := b.start()
		if kind == specs.MountNamespace {
			if nsOf(t, started.PID, name) == nsOf(t, pid, name) {
				t.Errorf("the container has the host's %s namespace", kind)
			}
		} else if got, want := nsOf(t, started.PID, name), nsOf(t, pid, name); got != want {
			t.Errorf("the container has %s, want %s", got, want)
		}
		if out := b.exec("busybox readlink /proc/self/ns/"+name, nil); out != nsOf(t, started.PID, name) && kind != specs.PIDNamespace {
			t.Errorf("the exec has %s, want %s", out, nsOf(t, started.PID, name))
		}
		b.remove()
	}
	b := newBox(t, "")
	b.join(specs.IPCNamespace, p.PID, "uts")
	b.fails("joining namespace", "invalid argument")
}

func TestTimeNamespace(t *testing.T) {
	t.Parallel()
	script := "busybox awk '{print ($1 > 86400000)}' /proc/uptime; busybox awk '{print $1, $2, $3}' /proc/self/timens_offsets"
	for name, b := range map[string]*box{"own": newBox(t, script+"; busybox sleep 600"), "remapped": remapped(newBox(t, script+"; busybox sleep 600"))} {
		b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 86400000}, "monotonic": {Secs: 50, Nanosecs: 7}}
		b.start()
		want := "1\nmonotonic 50 7\nboottime 86400000 0"
		waitFor(t, "the offsets", func() bool { return strings.Count(b.output(), "\n") >= 2 })
		if got := b.output(); got != want {
			t.Errorf("%s: the container printed %q, want %q", name, got, want)
		}
		if got := b.exec(script, nil); got != want {
			t.Errorf("%s: the exec printed %q, want %q", name, got, want)
		}
	}
}

func TestIDMappedBinds(t *testing.T) {
	t.Parallel()
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5000, Size: 1000}}
	for name, test := range map[string]struct {
		box     *box
		own     []specs.LinuxIDMapping
		options []string
		want    string
	}{
		"its own map":         {newBox(t, ""), maps, []string{"rbind", "idmap"}, "5000 5001\n65534 65534"},
		"recursively":         {newBox(t, ""), maps, []string{"rbind", "ridmap"}, "5000 5001\n5000 5000"},
		"the container's map": {remapped(newBox(t, "")), nil, []string{"bind", "idmap"}, "0 1"},
	} {
		b := test.box
		source := b.hostMount("bind", "source", 0, "") // not tmpfs, which maps only from Linux 6.3 on
		file := filepath.Join(source, "file")
		err := os.WriteFile(file, nil, 0o644)
		if err == nil {
			err = os.Chown(file, 0, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
		b.hostMount("bind", "source/below", 0, "")
		paths := "/m/file /m/below"
		if test.own == nil {
			paths = "/m/file"
		}
		b.spec.Process.Args[2] = "busybox stat -c '%u %g' " + paths
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/m", Type: "bind", Source: source, Options: test.options, UIDMappings: test.own, GIDMappings: test.own})
		if err := os.Mkdir(filepath.Join(b.dir, "upper/m"), 0o755); err != nil {
			t.Fatal(err)
		}
		want := test.want
		if name == "its own map" {
			want = "5000 5001\n0 0" // what is mounted below is not mapped
		}
		if got, _ := b.run(); got != want {
			t.Errorf("%s: owners are %q, want %q", name, got, want)
		}
	}

	b := newBox(t, "")
	b.mount("bind", "/", "/m", "bind", "idmap")
	b.fails("mount of /m: option idmap needs mappings")
}

func TestNamespacesThatMakeNoSense(t *testing.T) {
	t.Parallel()
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 10}}
	for want, change := range map[string]func(*specs.Linux){
		"pid is there twice": func(l *specs.Linux) {
			l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace})
		},
		`linux.namespaces "moon"`: func(l *specs.Linux) { l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: "moon"}) },
		"must map container ID 0": func(l *specs.Linux) {
			l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		},
		"need a user namespace":          func(l *specs.Linux) { l.UIDMappings = maps },
		"timeOffsets need a new time":    func(l *specs.Linux) { l.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {}} },
		`path "x" of the ipc namespace`:  func(l *specs.Linux) { l.Namespaces[3].Path = "x" },
		"opening namespace /no/such/one": func(l *specs.Linux) { l.Namespaces[3].Path = "/no/such/one" },
		`clock "realtime" is neither`: func(l *specs.Linux) {
			l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			l.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {}}
		},
		"0 IDs from 0 on cannot be mapped": func(l *specs.Linux) {
			l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			l.UIDMappings = []specs.LinuxIDMapping{{}}
		},
	} {
		b := newBox(t, "")
		change(b.spec.Linux)
		b.fails(want)
	}
}

// TestIDMappedRootFilesystem has files of root in all layers: they are the
// container's root's inside, and stay root's on disk.
func TestIDMappedRootFilesystem(t *testing.T) {
	t.Parallel()
	b := remapped(newBox(t, `busybox stat -c '%u %g' / /bin/busybox /etc /note; echo more >>/note; busybox cat /note; busybox touch /new; busybox chown 5:6 /new; busybox rm /bin/sh; busybox mkdir /dir`))
	if err := os.WriteFile(filepath.Join(b.dir, "upper/note"), []byte("note\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.rootfs[0].Options = append(b.rootfs[0].Options, "idmap")
	b.prints("0 0\n0 0\n0 0\n0 0\nnote\nmore")
	for name, want := range map[string][2]uint32{"new": {5, 6}, "dir": {0, 0}, "note": {0, 0}, "bin/sh": {0, 0}} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(b.dir, "upper", name), &st); err != nil || st.Uid != want[0] || st.Gid != want[1] {
			t.Errorf("%s belongs to %d:%d on disk, %v; want %v", name, st.Uid, st.Gid, err, want)
		}
	}
}

// TestAUserNamespaceThatDeniesGroups joins one made without privileges.
func TestAUserNamespaceThatDeniesGroups(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox cat /proc/self/setgroups; busybox id -u")
	one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	holder, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "600"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: one, GidMappings: one, GidMappingsEnableSetgroups: false,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(holder, unix.SIGKILL) })
	b.join(specs.UserNamespace, holder, "user")
	b.spec.Process.User.AdditionalGids = []uint32{0}
	b.prints("deny\n0")

	b = newBox(t, "")
	b.join(specs.UserNamespace, holder, "user")
	b.spec.Process.User.AdditionalGids = []uint32{0, 7}
	b.fails("setting additional groups")
}
