package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/test/private"
)

// Each flag is seen from inside the container.
func TestFlagsReachTheContainer(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	both(t, func(c *client) {
		for _, flag := range []struct{ flags, command, want string }{
			{"--oom-score-adj 500", "cat /proc/self/oom_score_adj", "500"},
			{"--ulimit nofile=100:200", "ulimit -Sn; ulimit -Hn", "100\n200"},
			{"--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=12345", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax", "1\n12345"},
			{"--tmpfs /x:exec,size=8m,mode=1770", "cp /bin/busybox /x/true && /x/true; echo $?; stat -c %a /x; df -k /x | awk 'END { print $2 }'", "0\n1770\n8192"},
			{"--tmpfs /x", "cp /bin/busybox /x/true && /x/true 2>/dev/null; echo $?", "126"},
			{"--mount type=tmpfs,dst=/x,tmpfs-mode=1770,tmpfs-size=1m", "stat -c %a /x; df -k /x | awk 'END { print $2 }'", "1770\n1024"},
			{"--shm-size 32m", "df -k /dev/shm | awk 'END { print $2 }'", "32768"},
			{"--security-opt systempaths=unconfined", "grep -c ' /proc/' /proc/mounts", "0"},
			{"--security-opt writable-cgroups=true", "grep ' /sys/fs/cgroup' /proc/mounts | grep -c ' ro,'", "0"},
			{"--security-opt seccomp=unconfined --security-opt no-new-privileges", "awk '/^Seccomp:|NoNewPrivs/ { print $2 }' /proc/self/status", "1\n0"},
			{"--cap-drop ALL --cap-add CHOWN", "awk '/CapBnd|CapEff/ { print $2 }' /proc/self/status", "0000000000000001\n0000000000000001"},
			{"--group-add 55 --group-add staff -u 7:8", "id -u; id -G", "7\n8 50 55"},
			{"--device /dev/kmsg:/dev/note:r --cap-add SYSLOG", "(: < /dev/note) && echo read; (: > /dev/note) 2>/dev/null || echo refused", "read\nrefused"},
			{"--uts host", "hostname", hostname},
			{"--cgroupns private", "grep -vc ':/$' /proc/self/cgroup", "0"},
			{"--read-only --tmpfs /x", "touch /x/y && touch /y 2>/dev/null || echo refused", "refused"},
			{"--cpuset-cpus 0 --cpuset-mems 0", "awk '/_allowed_list/ { print $2 }' /proc/self/status", "0\n0"},
			{"-c 512", "cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu.weight 2>/dev/null | sed 's/^59$/512/'", "512"},
			{"-m 32m --memory-reservation 16m", "cat /sys/fs/cgroup/memory/memory.soft_limit_in_bytes /sys/fs/cgroup/memory.low 2>/dev/null", "16777216"},
			{"--ipc none", "ls /dev/shm 2>/dev/null || echo none", "none"},
			{"--privileged", "ls -d /dev/kmsg; grep -c ' /proc/' /proc/mounts", "/dev/kmsg\n0"},
		} {
			got := c.run(append(append([]string{"run", "--rm"}, strings.Fields(flag.flags)...), "busybox", "sh", "-c", flag.command)...)
			if strings.TrimSpace(got.out) != flag.want {
				c.Errorf("%s: %q (%s), want %q", flag.flags, got.out, got.err, flag.want)
			}
		}
	})
}

func TestFlagsThatCannotBeAreRefused(t *testing.T) {
	both(t, func(c *client) {
		for flags, text := range map[string]string{
			"--storage-opt size=1g":                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
			"--isolation hyperv":                   "invalid --isolation: \"hyperv\" - linux only supports 'default'",
			"--stop-signal NOSUCH":                 "invalid signal: NOSUCH",
			"--ipc nosuch":                         "invalid IPC mode: nosuch",
			"--cpuset-cpus 8000":                   "Requested CPUs are not available - requested 8000, available: ",
			"--cpuset-mems x":                      "Invalid value x for cpuset mems",
			"--tmpfs /x:nosuch":                    "invalid tmpfs option",
			"--uts host --hostname web":            "conflicting options: hostname and the UTS mode",
			"--security-opt nosuch=1":              `invalid --security-opt 2: "nosuch=1"`,
			"--security-opt apparmor=nosuch":       `"nosuch"`,
			"--gpus all":                           `could not select device driver "" with capabilities: [[gpu]]`,
			"--device vendor.example/class=nosuch": "CDI device injection failed: unresolvable CDI devices vendor.example/class=nosuch",
			"--sysctl vm.swappiness=1":             "sysctl 'vm.swappiness",
			"--cap-add NOSUCH":                     "unknown capability",
			"--oom-score-adj 1001":                 "Invalid value 1001, range for oom score adj is [-1000, 1000]",
			"--mount type=volume,src=v,dst=/x,volume-subpath=../up": "subpath must be a relative path within the volume",
			"--mount type=bind,src=/no/such/place,dst=/x":           "bind source path does not exist: /no/such/place",
			"--runtime nosuch": "nosuch",
		} {
			c.fails(125, text, append(append([]string{"run", "--rm"}, strings.Fields(flags)...), "busybox", "true")...)
		}
	})
}

func TestContainersShareWhatTheyMay(t *testing.T) {
	both(t, func(c *client) {
		donor, hidden := c.own("donor"), c.own("hidden")
		c.background("donor", "--ipc", "shareable", "--shm-size", "8m", "busybox", "sh", "-c", "echo shared > /dev/shm/note; exec sleep 600")
		c.background("hidden", "busybox", "sleep", "600")
		for range 2 { // once more after a restart
			eventually(c.T, "the donor's note", func() error {
				r := c.run("run", "--rm", "--ipc", "container:"+donor, "busybox", "sh", "-c", "cat /dev/shm/note; df -k /dev/shm | awk 'END { print $2 }'")
				if r.out != "shared\n8192\n" {
					return fmt.Errorf("%s%s", r.out, r.err)
				}
				return nil
			})
			c.ok("restart", "-t", "0", donor)
		}
		c.fails(125, "non-shareable IPC (hint: use IpcMode:shareable for the donor container)", "run", "--rm", "--ipc", "container:"+hidden, "busybox", "true")
		c.equal(c.ok("inspect", "-f", "{{.HostConfig.IpcMode}}", hidden), "private")
		c.contains(c.ok("run", "--rm", "--pid", "container:"+donor, "busybox", "ps"), "sleep 600")
		c.equal(c.ok("run", "--rm", "--pid", "host", "busybox", "readlink", "/proc/self/ns/pid"), hostNamespace(c, "pid"))
	})
}

// hostNamespace names a namespace of the host.
func hostNamespace(c *client, kind string) string {
	name, err := os.Readlink("/proc/self/ns/" + kind)
	if err != nil {
		c.Fatal(err)
	}
	return name
}

func TestAReadOnlyBindIsReadOnlyBelow(t *testing.T) {
	both(t, func(c *client) {
		dir := c.TempDir()
		test := "touch /x/top 2>/dev/null && echo top; touch /x/sub/y 2>/dev/null && echo below; true"
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
			c.Fatal(err)
		}
		mounted(c.T, filepath.Join(dir, "sub"))
		for mount, want := range map[string]string{
			"type=bind,src=" + dir + ",dst=/x,readonly":                         "",
			"type=bind,src=" + dir + ",dst=/x,readonly,bind-recursive=writable": "below",
			"type=bind,src=" + dir + ",dst=/x":                                  "top\nbelow",
		} {
			c.equal(c.ok("run", "--rm", "--mount", mount, "busybox", "sh", "-c", test), want)
		}
	})
}

// mounted makes a directory a mount of its own until the test ends.
func mounted(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestUpdatesThatContradictAreRefused(t *testing.T) {
	both(t, func(c *client) {
		box := c.own("box")
		c.background("box", "-m", "32m", "--cpus", "0.5", "busybox", "sleep", "600")
		c.fails(1, "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time", "update", "-m", "128m", box)
		c.fails(1, "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set", "update", "--cpu-quota", "50000", box)
		c.ok("update", "-m", "128m", "--memory-swap", "256m", box)
		c.equal(c.ok("exec", box, "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true"), "134217728")
	})
}

func TestDevicesThatVendorsDescribe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	described := `{"cdiVersion": "0.6.0", "kind": "vendor.example/class", "devices": [{"name": "one", "containerEdits": {
		"env": ["GIVEN=yes"], "deviceNodes": [{"path": "/dev/given", "hostPath": "/dev/zero"}], "mounts": [{"hostPath": "/etc", "containerPath": "/given", "options": ["ro", "bind"]}]}}]}`
	if err := os.WriteFile(filepath.Join(dir, "vendor.json"), []byte(described), 0o600); err != nil {
		t.Fatal(err)
	}
	e := ownEngine(t, private.Options{Config: "cdi_spec_dirs = [\"" + dir + "\"]"})
	for _, name := range []string{"docker", "davit"} {
		c := newClient(t, name, e)
		c.equal(c.ok("run", "--rm", "--device", "vendor.example/class=one", "busybox", "sh", "-c", "echo $GIVEN; head -c 3 /dev/given | wc -c; ls -d /given/passwd"), "yes\n3\n/given/passwd")
		c.contains(c.ok("info", "--format", "{{json .}}"), dir)
	}
}
