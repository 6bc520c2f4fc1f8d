package native_test

import (
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/resctrl"
)

func TestSchedulerAndIOPriority(t *testing.T) {
	t.Parallel()
	// Nice value and policy of proc_pid_stat(5).
	b := newBox(t, "busybox awk '{print $19, $41}' /proc/self/stat; busybox ionice -p $$")
	b.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 11}
	b.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	b.prints("11 3\nbest-effort: prio 6")
}

func TestPersonality(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox cat /proc/self/personality")
	b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	b.prints("00000008")
}

func TestMemoryPolicy(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox head -n1 /proc/self/numa_maps | busybox awk '{print $2}'")
	b.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}
	if _, err := os.Stat("/proc/self/numa_maps"); err != nil {
		b.fails("setting the memory policy")
		return
	}
	b.prints("bind:0")
}

func TestOOMScoreWithoutProc(t *testing.T) {
	t.Parallel()
	b := newBox(t, "exec sleep 600")
	b.spec.Process.Args = []string{"busybox", "sleep", "600"}
	b.spec.Process.OOMScoreAdj = ptr(321)
	b.spec.Mounts = b.spec.Mounts[1:] // the container has no /proc
	p := b.start()
	body, err := os.ReadFile("/proc/" + itoa(p.PID) + "/oom_score_adj")
	if err != nil || strings.TrimSpace(string(body)) != "321" {
		t.Errorf("oom_score_adj is %q, %v", body, err)
	}
}

func TestAmbientCapabilities(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox grep Cap /proc/self/status | busybox awk '{print $2}'")
	c := b.spec.Process.Capabilities
	b.spec.Process.User = specs.User{UID: 1000, GID: 1000}
	chown := []string{"CAP_CHOWN"}
	c.Bounding, c.Effective = []string{"CAP_CHOWN", "CAP_KILL"}, nil
	// A capability that no kernel has is left out, not an error.
	c.Permitted, c.Inheritable, c.Ambient = chown, chown, []string{"CAP_CHOWN", "CAP_OF_TOMORROW"}
	b.prints(strings.Join([]string{"0000000000000001", "0000000000000001", "0000000000000001", "0000000000000021", "0000000000000001"}, "\n"))
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox id; umask; busybox hostname; busybox cat /proc/sys/kernel/domainname; ulimit -n; grep() { busybox grep $@; }; grep NoNewPrivs /proc/self/status")
	b.spec.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 6}, Umask: ptr(uint32(0o27))}
	b.spec.Hostname, b.spec.Domainname = "box", "example.test"
	b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
	b.spec.Process.NoNewPrivileges = true
	b.prints("uid=1000 gid=1001 groups=5,6\n0027\nbox\nexample.test\n100\nNoNewPrivs:\t1")
}

func TestSessionKeyring(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox sleep 600")
	b.start()
	keys := "busybox grep -c '_ses[.]" + b.id + "' /proc/keys"
	if out := b.exec(keys, nil); out != "1" {
		if _, err := os.Stat("/proc/keys"); err != nil {
			t.Skip("the kernel has no keys")
		}
		t.Errorf("the exec sees %s keyrings of the container", out)
	}
}

func TestMonitorsAloneDoWithoutHugePages(t *testing.T) {
	t.Parallel()
	own, err := os.ReadFile("/proc/self/status") // the driver's process, which monitors inherit from
	if err != nil || !strings.Contains(string(own), "THP_enabled:\t0\n") {
		t.Errorf("the driver has huge pages: %v", err)
	}
	look := "busybox grep THP_enabled /proc/self/status"
	b := newBox(t, look)
	b.prints("THP_enabled:\t1")
	b = newBox(t, "busybox sleep 600")
	b.start()
	if out := b.exec(look, nil); out != "THP_enabled:\t1" {
		t.Errorf("an exec has %s", out)
	}
}

func TestReopeningStdout(t *testing.T) {
	t.Parallel()
	b := newBox(t, "echo said >/dev/stdout")
	b.spec.Process.User = specs.User{UID: 1000, GID: 1000}
	b.prints("said")
}

func TestConsole(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox stty size; for l in ptmx fd stdin; do busybox readlink /dev/$l; done; test -c /dev/console; busybox stty size </dev/console")
	b.spec.Process.Terminal = true
	b.spec.Process.ConsoleSize = &specs.Box{Width: 81, Height: 23}
	b.prints("23 81\npts/ptmx\n/proc/self/fd\n/proc/self/fd/0\n23 81")
}

func TestSysctls(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max /proc/sys/kernel/domainname")
	b.spec.Linux.Sysctl = map[string]string{"net/ipv4/ip_forward": "1", "kernel.msgmax": "4242", "fs.mqueue.msg_max": "17", "kernel.domainname": "d"}
	b.prints("1\n4242\n17\nd")

	b = newBox(t, "")
	b.spec.Linux.Sysctl = map[string]string{"vm.swappiness": "1"}
	b.fails(`sysctl "vm.swappiness" is not in a separate kernel namespace`)

	b = newBox(t, "")
	b.spec.Linux.Sysctl = map[string]string{"net.no.such.key": "1"}
	b.fails("sysctl net.no.such.key")
}

func TestDevices(t *testing.T) {
	t.Parallel()
	b := newBox(t, `busybox stat -c '%a %u %g %t:%T %F' /dev/mine /fifo; for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done`)
	mode := os.FileMode(0o640)
	b.spec.Linux.Devices = []specs.LinuxDevice{
		{Path: "/dev/mine", Type: "c", Major: 1, Minor: 5, FileMode: &mode, UID: ptr(uint32(3)), GID: ptr(uint32(4))},
		{Path: "/fifo", Type: "p"},
	}
	b.prints("640 3 4 1:5 character special file\n666 0 0 0:0 fifo")

	b = newBox(t, "")
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/bin/busybox", Type: "c", Major: 1, Minor: 5}}
	b.fails("/bin/busybox", "not the requested device")
}

func TestExecAffinity(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox sleep 600")
	b.start()
	out := b.exec("busybox grep Cpus_allowed_list /proc/self/status", func(p *specs.Process) {
		p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
	})
	if !strings.HasSuffix(out, "\t0") {
		t.Errorf("the exec may run on %q", out)
	}
}

func TestLabelsWithoutTheirKernel(t *testing.T) {
	t.Parallel()
	b := newBox(t, "echo ran")
	b.spec.Process.ApparmorProfile = "unconfined"
	b.prints("ran")
	if _, err := os.Stat("/sys/module/apparmor"); err != nil {
		b = newBox(t, "")
		b.spec.Process.ApparmorProfile = "docker-default"
		b.fails("docker-default", "no AppArmor")
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		b = newBox(t, "")
		b.spec.Process.SelinuxLabel = "system_u:system_r:container_t:s0"
		b.fails("container_t", "no SELinux")
		b = newBox(t, "")
		b.spec.Linux.MountLabel = "system_u:object_r:container_file_t:s0"
		b.fails("container_file_t", "no SELinux")
	}
}

func TestClassesOfServiceWithoutTheirKernel(t *testing.T) {
	t.Parallel()
	if resctrl.Available() {
		t.Skip("the kernel has resctrl")
	}
	b := newBox(t, "")
	b.spec.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "gold"}
	b.fails("linux.intelRdt: no resctrl filesystem is mounted")
}
