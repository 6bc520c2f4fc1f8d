package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

// Containerd's own client, over its runc shim with another binary.
func TestContainerd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	for _, name := range []string{"containerd", "ctr", "containerd-shim-runc-v2"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s: install containerd", name)
		}
	}
	dir, err := os.MkdirTemp("", "davit-containerd-")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, []byte(`version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("containerd", "--config", config, "--root", dir+"/root", "--state", dir+"/run", "--address", dir+"/sock")
	daemon.Stdout, daemon.Stderr = log, log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	e := &engine{t, dir, []string{"ctr", "--address", dir + "/sock"}}
	t.Cleanup(func() {
		e.run("task", "kill", "--signal", "KILL", "one")
		e.run("task", "delete", "--force", "one")
		e.run("container", "delete", "one")
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
		if t.Failed() {
			body, _ := os.ReadFile(log.Name())
			t.Logf("containerd said: %s", body[max(0, len(body)-3000):])
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	deadline := time.Now().Add(private.Patience(30 * time.Second))
	for e.run("version").code != 0 {
		if time.Now().After(deadline) {
			t.Fatal("containerd does not come up")
		}
		time.Sleep(50 * time.Millisecond)
	}
	root := t.TempDir()
	rootfs(t, root)
	with := []string{"run", "--runc-binary", program(t), "--rootfs"}
	if got := e.must(append(with, "--rm", root, "two", "/bin/echo", "hello")...); got != "hello\n" {
		t.Errorf("run: %q", got)
	}
	e.must(append(with, "--detach", root, "one", "/bin/sleep", "100000")...)
	if got := e.must("task", "exec", "--exec-id", "e", "one", "/bin/echo", "in"); got != "in\n" {
		t.Errorf("exec: %q", got)
	}
	e.must("task", "pause", "one")
	if got := e.must("task", "ls"); !strings.Contains(got, "PAUSED") {
		t.Errorf("after pause: %q", got)
	}
	e.must("task", "resume", "one")
	if got := e.must("task", "metrics", "one"); !strings.Contains(got, "one") {
		t.Errorf("metrics: %q", got)
	}
	e.must("task", "kill", "--signal", "KILL", "one")
	eventually(t, "the task stops", func() bool { return strings.Contains(e.must("task", "ls"), "STOPPED") })
	e.must("task", "delete", "one")
}
