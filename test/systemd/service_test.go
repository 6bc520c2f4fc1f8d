package systemd

import (
	"archive/tar"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// archive makes an image's archive of busybox.
func archive(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	rootfs(t, filepath.Join(dir, "rootfs"))
	name := filepath.Join(dir, "image.tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(filepath.Join(dir, "rootfs"))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestService is the engine as a service, with scopes for its containers.
func TestService(t *testing.T) {
	config := "/etc/davit/davit.toml"
	body, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^cgroup_driver = .*$`).ReplaceAllString(string(body), `cgroup_driver = "systemd"`)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "systemctl", "daemon-reload")
	must(t, "systemctl", "restart", "davitd")
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := output(t, "journalctl", "--no-pager", "-u", "davitd")
			t.Log(out)
		}
	})
	must(t, "davit", "import", archive(t), "busybox")
	if out := must(t, "docker", "-H", "unix:///run/davit.sock", "info", "--format", "{{.CgroupDriver}}"); out != "systemd" {
		t.Errorf("docker info says that the cgroup driver is %q", out)
	}
	if out := must(t, "davit", "doctor"); unified() && !strings.Contains(out, "systemd is recommended") {
		t.Errorf("davit doctor says %s", out)
	}
	if out, err := output(t, "davit", "run", "--cgroup-parent", "/x", "busybox", "true"); err == nil || !strings.Contains(out, `cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`) {
		t.Errorf("a parent that is no slice: %q, %v", out, err)
	}

	id := must(t, "davit", "run", "-d", "--name", "box", "-m", "64m", "--pids-limit", "55", "--cpus", "0.5", "busybox", "sleep", "100000")
	unit := "davit-" + id + ".scope"
	memory := "MemoryMax"
	if !unified() {
		memory = "MemoryLimit"
	}
	expect(t, "at first", unit, map[string]string{memory: "67108864", "TasksMax": "55", "CPUQuotaPerSecUSec": "500ms", "Slice": "system.slice"})
	pid := must(t, "davit", "inspect", "--format", "{{.State.Pid}}", "box")
	running := func(when string) {
		t.Helper()
		if now := must(t, "davit", "inspect", "--format", "{{.State.Status}} {{.State.Pid}}", "box"); now != "running "+pid {
			t.Errorf("%s the container is %q, want it running as %s", when, now, pid)
		}
		if out := must(t, "davit", "exec", "box", "echo", "alive"); out != "alive" {
			t.Errorf("%s an exec says %q", when, out)
		}
	}
	running("at first")
	// The monitor is where neither its container's limits nor the service's are.
	monitors := must(t, "systemctl", "show", "--property=ControlGroup", "--value", "davit-monitors.scope")
	if monitors != "/system.slice/davit-monitors.scope" || property(t, "davit-monitors.scope", "ActiveState") != "active" {
		t.Errorf("the monitors are in %q", monitors)
	}
	if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil {
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if parent, err := os.ReadFile("/proc/" + fields[1] + "/cgroup"); err != nil || !strings.Contains(string(parent), "/davit-monitors.scope\n") {
			t.Errorf("the container's monitor is in %s, %v", parent, err)
		}
	}

	must(t, "systemctl", "daemon-reload")
	running("after a reload")
	must(t, "systemctl", "restart", "davitd")
	running("after a restart of the service")
	must(t, "systemctl", "kill", "--kill-whom=main", "--signal=KILL", "davitd")
	eventually(t, "the service is there again", func() bool {
		_, err := output(t, "davit", "version")
		return err == nil && property(t, "davitd", "ActiveState") == "active"
	})
	running("after kill -9 of the engine")
	must(t, "davit", "update", "--pids-limit", "66", "box")
	expect(t, "after an update", unit, map[string]string{"TasksMax": "66", memory: "67108864"})
	must(t, "systemctl", "stop", "davitd")
	if _, err := os.Stat("/proc/" + pid); err != nil {
		t.Errorf("stopping the service ended the container: %v", err)
	}
	must(t, "systemctl", "start", "davitd")
	running("after stop and start of the service")

	// A restart of the container uses the name of its unit again.
	must(t, "davit", "restart", "-t", "0", "box")
	if again := must(t, "davit", "inspect", "--format", "{{.State.Pid}}", "box"); again == pid {
		t.Error("the container was not restarted")
	}
	expect(t, "after a restart of the container", unit, map[string]string{"TasksMax": "66", "ActiveState": "active"})
	must(t, "davit", "rm", "-f", "box")
	gone(t, unit)

	must(t, "systemctl", "stop", "davitd")
	if unified() { // hierarchies of v1 that are not systemd's keep an empty group
		gone(t, "davit-monitors.scope")
	}
}

// TestOOM: that the kernel killed a container for want of memory is known though
// systemd removes its cgroup at once.
func TestOOM(t *testing.T) {
	if !unified() {
		t.Skip("cgroup v1 counts only in the group itself, which may be gone")
	}
	must(t, "systemctl", "start", "davitd")
	must(t, "davit", "import", archive(t), "busybox")
	for range 5 {
		out, err := output(t, "davit", "run", "--name", "big", "-m", "16m", "--memory-swap", "16m", "busybox", "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=60")
		if err == nil {
			t.Fatalf("a container of 16 MiB took 60: %s", out)
		}
		if state := must(t, "davit", "inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "big"); state != "true 137" {
			t.Errorf("OOMKilled and exit code are %q", state)
		}
		must(t, "davit", "rm", "big")
	}
	must(t, "systemctl", "stop", "davitd")
}
