package oci

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

// docker starts Debian's dockerd on folders and a bridge of its own.
func docker(t *testing.T) *engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	for _, name := range []string{"dockerd", "containerd", "docker"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s: install docker.io", name)
		}
	}
	dir, err := os.MkdirTemp("", "davit-docker-")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	host := "unix://" + dir + "/sock"
	daemon := exec.Command("dockerd", "--data-root", dir+"/root", "--exec-root", dir+"/run", "--pidfile", dir+"/pid", "--host", host,
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "overlay2", "--cgroup-parent", "/davit-oci-docker",
		"--add-runtime", "davit="+program(t), "--default-runtime", "davit")
	daemon.Stdout, daemon.Stderr = log, log
	// Nothing of it survives a test that is killed.
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	e := &engine{t, dir, []string{"docker", "--host", host}}
	t.Cleanup(func() {
		for _, id := range strings.Fields(e.run("ps", "--all", "--quiet").out) {
			e.run("rm", "--force", id)
		}
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
		if t.Failed() {
			body, _ := os.ReadFile(log.Name())
			t.Logf("dockerd said: %s", body[max(0, len(body)-4000):])
		}
		_ = run(exec.Command("umount", "--recursive", dir+"/run/netns"))
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		for _, left := range cgroups("davit-oci-docker") {
			_ = os.Remove(left)
		}
	})
	deadline := time.Now().Add(private.Patience(30 * time.Second))
	for e.run("version").code != 0 {
		if time.Now().After(deadline) {
			t.Fatal("dockerd does not come up")
		}
		time.Sleep(50 * time.Millisecond)
	}
	e.must("import", imageTar(t), image)
	return e
}

func TestDocker(t *testing.T) {
	e := docker(t)
	if got := e.must("run", "--rm", image, "echo", "hello"); got != "hello\n" {
		t.Errorf("run: %q", got)
	}
	e.ends(3, "run", "--rm", image, "sh", "-c", "exit 3")
	e.ends(127, "run", "--rm", image, "nothing")
	e.ends(126, "run", "--rm", image, "/etc")

	trap := `trap "echo bye; exit 5" TERM; echo ready; while :; do sleep 0.05; done`
	e.must("run", "--detach", "--name", "one", "--memory", "50m", "--pids-limit", "40", image, "sh", "-c", trap)
	eventually(t, "the program is ready", func() bool { return e.must("logs", "one") == "ready\n" })
	if got := e.ends(4, "exec", "--user", "1000:1001", "--env", "A=b", "--workdir", "/tmp", "one", "sh", "-c", "id -u; id -g; echo $A; pwd; exit 4"); got.out != "1000\n1001\nb\n/tmp\n" {
		t.Errorf("exec: %q", got.out)
	}
	// Docker 20.10 has 126 here, with runc, too; later ones 127.
	if got := e.run("exec", "one", "nothing"); got.code != 126 && got.code != 127 || !strings.Contains(got.out+got.err, "executable file not found in $PATH") {
		t.Errorf("exec of a missing program: %+v", got)
	}
	if got := e.must("stats", "--no-stream", "--format", "{{.MemUsage}}", "one"); !strings.Contains(got, "50MiB") {
		t.Errorf("stats: %q", got)
	}
	e.must("update", "--memory", "60m", "--memory-swap", "60m", "one")
	if got := e.must("stats", "--no-stream", "--format", "{{.MemUsage}}", "one"); !strings.Contains(got, "60MiB") {
		t.Errorf("stats after update: %q", got)
	}
	e.must("pause", "one")
	if got := e.must("inspect", "--format", "{{.State.Status}}", "one"); got != "paused\n" {
		t.Errorf("after pause: %q", got)
	}
	e.must("unpause", "one")
	if got := e.must("top", "one"); !strings.Contains(got, "sh -c") {
		t.Errorf("top: %q", got)
	}
	e.must("stop", "--time", "20", "one")
	if got := e.must("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "one"); got != "exited 5\n" {
		t.Errorf("after stop: %q", got)
	}
	e.must("start", "one")
	e.must("kill", "--signal", "KILL", "one")
	if got := e.must("wait", "one"); got != "137\n" {
		t.Errorf("wait after kill: %q", got)
	}
	e.must("rm", "one")
}

// The docker client wants a terminal of its own for -it.
func TestDockerTerminal(t *testing.T) {
	e := docker(t)
	for _, args := range [][]string{
		{"run", "--rm", "--interactive", "--tty", image, "sh"},
		{"exec", "--interactive", "--tty", "term", "sh"},
	} {
		if args[0] == "exec" {
			e.must("run", "--detach", "--name", "term", image, "sleep", "100000")
		}
		master, slave, err := openTerminal()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(e.client[0], append(e.client[1:len(e.client):len(e.client)], args...)...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		slave.Close()
		said := make(chan []byte, 1)
		go func() {
			var all bytes.Buffer
			_, _ = io.Copy(&all, master) // ends with EIO
			said <- all.Bytes()
		}()
		if _, err := master.Write([]byte("tty; until stty size 2>/dev/null | grep '33 101'; do sleep 0.05; done; exit 9\n")); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(private.Patience(30*time.Second), func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if got := <-said; cmd.ProcessState.ExitCode() != 9 || !bytes.Contains(got, []byte("/dev/pts/0")) || !bytes.Contains(got, []byte("\n33 101\r\n")) {
			t.Errorf("%v: exit code %d, said %.2000q", args, cmd.ProcessState.ExitCode(), got)
		}
		master.Close()
	}
}
