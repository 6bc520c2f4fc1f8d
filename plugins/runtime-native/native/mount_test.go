package native_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// mountOptions is a script that prints the per-mount options of a path.
func mountOptions(paths ...string) string {
	script := ""
	for _, path := range paths {
		script += "busybox awk '$5 == \"" + path + "\" {o = $6} END {print o}' /proc/self/mountinfo\n"
	}
	return script
}

func TestMountFlags(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]string{
		"ro,nosuid,nodev,noexec":           "ro,nosuid,nodev,noexec,relatime",
		"ro,rw,noexec,exec":                "rw,relatime", // the last one wins
		"noatime,nodiratime":               "rw,noatime,nodiratime",
		"strictatime":                      "rw",
		"noatime,relatime":                 "rw,relatime",
		"nosymfollow":                      "rw,relatime,nosymfollow",
		"defaults,silent,loud,iversion":    "rw,relatime",
		"norelatime,nostrictatime,atime":   "rw,relatime",
		"diratime,symfollow,suid,dev,exec": "rw,relatime",
	} {
		b := newBox(t, mountOptions("/flags"))
		b.mount("tmpfs", "tmpfs", "/flags", strings.Split(options, ",")...)
		if got, _ := b.run(); got != want {
			t.Errorf("%s became %s, want %s", options, got, want)
		}
	}
}

func TestFilesystemOptions(t *testing.T) {
	t.Parallel()
	b := newBox(t, `busybox stat -c '%a %u %g' /data; busybox awk '$2 == "/data" {print $4}' /proc/mounts`)
	b.mount("tmpfs", "tmpfs", "data", "size=64k", "mode=1750", "uid=5", "gid=6", "sync", "dirsync", "lazytime", "nomand", "async")
	out, _ := b.run()
	for _, want := range []string{"1750 5 6", "size=64k", "dirsync", "lazytime"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q does not have %q", out, want)
		}
	}

	b = newBox(t, "")
	b.mount("tmpfs", "tmpfs", "/data", "no-such-option")
	b.fails("tmpfs on /data", "no-such-option")

	// What is bound has its options already; runc ignores these, too.
	b = newBox(t, "echo started")
	b.mount("bind", "/", "/data", "bind", "size=1k")
	b.prints("started")
	b = newBox(t, "")
	b.mount("bind", "/", "/data", "bind", "no-such-option")
	b.fails("no-such-option", "/data", "bind mount")
}

func TestBindsOfEveryKind(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox cat /a/file /b; test -S /c && test -c /d && echo kinds")
	dir := filepath.Join(b.dir, "source")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	b.mount("bind", dir, "/a", "bind")
	b.mount("none", filepath.Join(dir, "file"), "/b", "bind", "ro")
	b.mount("", filepath.Join(dir, "s"), "/c", "rbind")
	b.mount("bind", "/dev/null", "/d", "bind")
	b.prints("text\ntext\nkinds")
}

func TestRecursiveAttributes(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]string{
		"rbind,ro":      "ro,relatime rw,relatime",
		"rbind,rro":     "ro,relatime ro,relatime",
		"rbind,rro,rrw": "rw,relatime rw,relatime",
		"rbind,rnosuid,rnodev,rnoexec,rnoatime,rnodiratime,rnosymfollow": "rw,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow rw,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow",
		"rbind,rstrictatime": "rw rw",
		"bind":               "rw,relatime",
	} {
		b := newBox(t, mountOptions("/r", "/r/below"))
		b.hostMount("tmpfs", "tree", 0, "")
		b.hostMount("tmpfs", "tree/below", 0, "")
		b.mount("bind", filepath.Join(b.dir, "tree"), "/r", strings.Split(options, ",")...)
		got, _ := b.run()
		if got := strings.Join(strings.Fields(got), " "); got != want {
			t.Errorf("%s became %s, want %s", options, got, want)
		}
	}
}

func TestRemount(t *testing.T) {
	t.Parallel()
	b := newBox(t, mountOptions("/data", "/bound")+`busybox awk '$2 == "/data" {print $4}' /proc/mounts`)
	b.mount("tmpfs", "tmpfs", "/data", "nosuid", "size=64k")
	b.mount("tmpfs", "tmpfs", "/data", "remount", "noexec", "size=128k")
	source := b.hostMount("tmpfs", "source", unix.MS_NODEV|unix.MS_NOATIME, "")
	b.mount("bind", source, "/bound", "bind")
	b.mount("none", "", "/bound", "bind", "remount", "ro")
	out, _ := b.run()
	lines := strings.Split(out, "\n")
	// What a remount does not name stays: nosuid here, nodev and noatime of the host.
	if len(lines) != 3 || lines[0] != "rw,nosuid,noexec,relatime" || lines[1] != "ro,nodev,noatime" || !strings.Contains(lines[2], "size=128k") {
		t.Errorf("after the remounts: %q", lines)
	}
}

func TestCopyUp(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox readlink /bin/sh; test -x /bin/busybox && echo there; "+mountOptions("/bin"))
	b.mount("tmpfs", "tmpfs", "/bin", "tmpcopyup", "ro")
	b.prints("busybox\nthere\nro,relatime")
}

func TestPropagationOfABind(t *testing.T) {
	t.Parallel()
	for option, want := range map[string]string{
		"rshared": "shared", "rslave": "master", "rprivate": "", "runbindable": "unbindable", "slave": "master", "unbindable": "unbindable",
	} {
		b := newBox(t, `busybox awk '$5 == "/p" {print $7}' /proc/self/mountinfo`)
		dir := b.hostMount("tmpfs", "peers", 0, "")
		if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
			t.Fatal(err)
		}
		b.mount("bind", dir, "/p", "rbind", option)
		if option == "rshared" {
			b.spec.Linux.RootfsPropagation = "shared"
		}
		got, _ := b.run()
		if kind, _, _ := strings.Cut(strings.TrimPrefix(got, "-"), ":"); kind != want {
			t.Errorf("%s: the mount is %q, want %q", option, got, want)
		}
	}
}

// TestASharedBindReachesTheHost mounts inside a container below a shared bind:
// the host sees it; and sees nothing of the container's own mounts.
func TestASharedBindReachesTheHost(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox mkdir /p/inner && busybox mount -t tmpfs inner /p/inner && busybox sleep 600")
	dir := b.hostMount("tmpfs", "peers", 0, "")
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	b.mount("bind", dir, "/p", "rbind", "rshared")
	b.spec.Linux.RootfsPropagation = "shared"
	b.start()
	waitFor(t, "the container's mount on the host", func() bool {
		body, err := os.ReadFile("/proc/self/mountinfo")
		return err == nil && strings.Contains(string(body), " "+dir+"/inner ")
	})
	body, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(body), filepath.Join(lab.run, b.id)) {
		t.Errorf("the container's root filesystem is mounted on the host:\n%s", body)
	}
	b.remove()
	if err := unix.Unmount(dir+"/inner", unix.MNT_DETACH); err != nil {
		t.Error(err)
	}
}

func TestRootfsPropagation(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{"": "-", "private": "-", "shared": "shared", "rshared": "shared", "unbindable": "unbindable", "slave": "-", "rslave": "-"} {
		b := newBox(t, `busybox awk '$5 == "/" {print $7}' /proc/self/mountinfo`)
		b.spec.Linux.RootfsPropagation = value
		got, _ := b.run()
		if kind, _, _ := strings.Cut(got, ":"); kind != want {
			t.Errorf("rootfsPropagation %q: the root is %q, want %q", value, got, want)
		}
	}
	b := newBox(t, "")
	b.spec.Linux.RootfsPropagation = "public"
	b.fails("linux.rootfsPropagation", "public")
}

func TestKernelFilesystems(t *testing.T) {
	t.Parallel()
	b := newBox(t, mountOptions("/proc", "/sys", "/dev/mqueue", "/sys/fs/cgroup")+"busybox ls /sys/fs/cgroup | busybox grep -c .; busybox mkdir /sys/fs/cgroup/new 2>/dev/null || echo read-only")
	b.spec.Mounts[0].Options = append(b.spec.Mounts[0].Options, "hidepid=2")
	b.mount("mqueue", "mqueue", "/dev/mqueue", "nosuid", "noexec", "nodev")
	b.mount("cgroup", "cgroup", "/sys/fs/cgroup", "ro", "nosuid", "noexec", "nodev")
	out, _ := b.run()
	lines := strings.Split(out, "\n")
	want := []string{"rw,nosuid,nodev,noexec,relatime", "ro,nosuid,nodev,noexec,relatime", "rw,nosuid,nodev,noexec,relatime", "ro,nosuid,nodev,noexec,relatime"}
	if len(lines) != 6 || strings.Join(lines[:4], " ") != strings.Join(want, " ") || lines[4] == "0" || lines[5] != "read-only" {
		t.Errorf("got %q", lines)
	}

	b = newBox(t, `d=/sys/fs/cgroup; test -e $d/pids && d=$d/pids; busybox mkdir $d/new && busybox rmdir $d/new && echo writable`)
	b.mount("cgroup", "cgroup", "/sys/fs/cgroup", "nosuid", "noexec", "nodev")
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	b.prints("writable")
}

func TestMaskedAndReadOnlyPaths(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox wc -c </etc/secret; busybox ls /hidden; echo x 2>/dev/null >/fixed/file || echo fixed; echo 1 2>/dev/null >/proc/sys/kernel/domainname || echo proc; busybox ls /none 2>/dev/null || echo absent")
	for name, text := range map[string]string{"etc/secret": "secret", "hidden/file": "hidden", "fixed/file": ""} {
		path := filepath.Join(b.dir, "upper", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.spec.Linux.MaskedPaths = []string{"/etc/secret", "/hidden", "/none"}
	b.spec.Linux.ReadonlyPaths = []string{"/fixed", "/proc/sys", "/none"}
	b.prints("0\nfixed\nproc\nabsent")
}

func TestReadOnlyRoot(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox touch /x 2>/dev/null || echo read-only; busybox touch /out/x && echo mounts are not")
	b.spec.Root.Readonly = true
	b.prints("read-only\nmounts are not")
}

// TestTheHostsDev has the host's /dev as a volume: nothing may be made there.
func TestTheHostsDev(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox ls /dev")
	dev := b.hostMount("tmpfs", "dev", 0, "")
	for i := range b.spec.Mounts {
		if b.spec.Mounts[i].Destination == "/dev" {
			b.spec.Mounts[i] = specs.Mount{Destination: "/dev", Type: "bind", Source: dev, Options: []string{"rbind"}}
		}
	}
	b.spec.Mounts = append(b.spec.Mounts[:2], b.spec.Mounts[3:]...) // no devpts
	b.prints("")
}
