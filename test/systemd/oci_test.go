package systemd

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

// rootfs makes a root filesystem of busybox.
func rootfs(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"bin", "dev", "proc", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(program)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "bin/busybox"), body, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, applet := range []string{"sh", "sleep", "cat", "echo", "mknod", "dd", "true", "touch", "id"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
}

// bundle makes a bundle of busybox.
func bundle(t *testing.T, change func(*specs.Spec)) string {
	t.Helper()
	dir := t.TempDir()
	rootfs(t, filepath.Join(dir, "rootfs"))
	must(t, "davit-oci", "spec", "--bundle", dir)
	name := filepath.Join(dir, "config.json")
	body, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(body, &spec); err != nil {
		t.Fatal(err)
	}
	spec.Process.Terminal = false
	spec.Root.Readonly = false
	change(&spec)
	if body, err = json.Marshal(spec); err == nil {
		err = os.WriteFile(name, body, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func oci(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, "davit-oci", append([]string{"--systemd-cgroup"}, args...)...)
}

// The limits of a scope are the same for systemd and the kernel, from its start over
// an update and a reload of systemd's configuration to its end.
func TestOCI(t *testing.T) {
	const unit = "box-one.scope"
	dir := bundle(t, func(s *specs.Spec) {
		s.Process.Args = []string{"sleep", "100000"}
		s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_MKNOD")
		s.Process.Capabilities.Effective = append(s.Process.Capabilities.Effective, "CAP_MKNOD")
		s.Process.Capabilities.Permitted = append(s.Process.Capabilities.Permitted, "CAP_MKNOD")
		s.Linux.CgroupsPath = "system.slice:box:one"
		s.Annotations = map[string]string{"org.systemd.property.TimeoutStopSec": "11"}
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(64 << 20))}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(55))}
		s.Linux.Resources.CPU = &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(35000)), Period: ptr(uint64(100000)), Cpus: "0"}
	})
	oci(t, "run", "--detach", "--bundle", dir, "one")
	t.Cleanup(func() { _, _ = output(t, "davit-oci", "--systemd-cgroup", "delete", "--force", "one") })
	memory, shares, quota := "MemoryMax", "CPUWeight", "cpu.max"
	weight, exact := "59", "35000 100000"
	if !unified() {
		memory, shares, weight, quota, exact = "MemoryLimit", "CPUShares", "512", "cpu.cfs_quota_us", "35000"
	}
	known := map[string]string{
		"ActiveState": "active", "Slice": "system.slice", "Delegate": "yes", "TimeoutStopUSec": "11s", "DefaultDependencies": "no",
		memory: "67108864", "TasksMax": "55", shares: weight, "CPUQuotaPerSecUSec": "350ms",
	}
	if unified() {
		known["AllowedCPUs"] = "0"
	}
	kernel := func(when, limit string) {
		t.Helper()
		if got := file(t, unit, "pids.max"); got != limit {
			t.Errorf("%s pids.max is %s, want %s", when, got, limit)
		}
		if got := file(t, unit, quota); got != exact {
			t.Errorf("%s %s is %q, want %q", when, quota, got, exact)
		}
		name := "memory.max"
		if !unified() {
			name = "memory.limit_in_bytes"
		}
		if got := file(t, unit, name); got != "67108864" {
			t.Errorf("%s %s is %s", when, name, got)
		}
	}
	// The device of /dev/kmsg may be made but not opened, that of /dev/null may be.
	devices := func(when string) {
		t.Helper()
		out := oci(t, "exec", "one", "sh", "-c", "[ -e /tmp/kmsg ] || mknod /tmp/kmsg c 1 11; cat /tmp/kmsg 2>&1 | busybox head -c 200; echo x >/dev/null && echo fine")
		if !strings.Contains(out, "Operation not permitted") || !strings.Contains(out, "fine") {
			t.Errorf("%s devices are as %q says", when, out)
		}
	}
	expect(t, "at first", unit, known)
	kernel("at first", "55")
	devices("at first")
	if out := oci(t, "exec", "one", "cat", "/proc/self/cgroup"); strings.Contains(out, "..") {
		t.Errorf("an exec is in %q", out)
	}

	must(t, "systemctl", "daemon-reload")
	expect(t, "after a reload", unit, known)
	kernel("after a reload", "55")
	devices("after a reload")

	oci(t, "update", "--pids-limit", "66", "one")
	known["TasksMax"] = "66"
	expect(t, "after an update", unit, known)
	kernel("after an update", "66")
	must(t, "systemctl", "daemon-reload")
	expect(t, "after an update and a reload", unit, known)
	kernel("after an update and a reload", "66")
	devices("after an update and a reload")

	oci(t, "pause", "one")
	oci(t, "resume", "one")
	oci(t, "delete", "--force", "one")
	gone(t, unit)
}

// One that fails for systemd, and one that ends by itself, leave nothing.
func TestOCIEnds(t *testing.T) {
	dir := bundle(t, func(s *specs.Spec) {
		s.Process.Args = []string{"echo", "hello"}
		s.Linux.CgroupsPath = "system.slice:box:two"
	})
	for range 3 { // the name is free each time
		if out := oci(t, "run", "--bundle", dir, "two"); out != "hello" {
			t.Errorf("run said %q", out)
		}
		gone(t, "box-two.scope")
	}
	bad := bundle(t, func(s *specs.Spec) {
		s.Process.Args = []string{"echo"}
		s.Linux.CgroupsPath = "system.slice:box:bad"
		s.Annotations = map[string]string{"org.systemd.property.NoSuchThing": "1"}
	})
	if out, err := output(t, "davit-oci", "--systemd-cgroup", "run", "--bundle", bad, "bad"); err == nil || !strings.Contains(out, "NoSuchThing") {
		t.Errorf("an unknown property: %q, %v", out, err)
	}
	gone(t, "box-bad.scope")
}

// Podman asks for scopes by itself where systemd runs.
func TestPodman(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("no podman in this guest")
	}
	dir := filepath.Join(t.TempDir(), "rootfs")
	rootfs(t, dir)
	program, err := exec.LookPath("davit-oci")
	if err != nil {
		t.Fatal(err)
	}
	podman := func(args ...string) []string {
		return append([]string{"--runtime", program, "--cgroup-manager", "systemd", "--events-backend", "file", "--storage-driver", "vfs"}, args...)
	}
	id := must(t, "podman", podman("run", "-d", "--net", "none", "--pids-limit", "99", "--rootfs", dir, "sleep", "1000")...)
	id = id[strings.LastIndexByte(id, '\n')+1:]
	t.Cleanup(func() { _, _ = output(t, "podman", podman("rm", "-f", "-t", "0", id)...) })
	unit := "libpod-" + id + ".scope"
	expect(t, "under podman", unit, map[string]string{"TasksMax": "99", "Slice": "machine.slice", "Delegate": "yes"})
	if out := must(t, "podman", podman("exec", id, "echo", "hi")...); out != "hi" {
		t.Errorf("podman exec: %q", out)
	}
	must(t, "podman", podman("rm", "-f", "-t", "0", id)...)
	gone(t, unit)
}
