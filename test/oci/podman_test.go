package oci

import (
	"archive/tar"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

const image = "localhost/oci-test:1"

// imageTar packs the static userland for engines to import.
func imageTar(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	rootfs(t, dir)
	f, err := os.Create(filepath.Join(t.TempDir(), "image.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	err = w.AddFS(os.DirFS(dir).(fs.ReadLinkFS))
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// engine is a client of an engine that uses davit-oci.
type engine struct {
	t      *testing.T
	dir    string
	client []string
}

func (e *engine) run(args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), private.Patience(60*time.Second))
	defer cancel()
	cmd := exec.CommandContext(ctx, e.client[0], append(e.client[1:len(e.client):len(e.client)], args...)...)
	cmd.Dir = e.dir // conmon leaves files where it is started
	return run(cmd)
}

func (e *engine) must(args ...string) string {
	e.t.Helper()
	got := e.run(args...)
	if got.code != 0 {
		e.t.Fatalf("%s %s: exit code %d: %s%s", e.client[0], strings.Join(args, " "), got.code, got.out, got.err)
	}
	return got.out
}

// ends runs a command that has to end with a code.
func (e *engine) ends(code int, args ...string) result {
	e.t.Helper()
	got := e.run(args...)
	if got.code != code {
		e.t.Errorf("%s %s: exit code %d, want %d: %s%s", e.client[0], strings.Join(args, " "), got.code, code, got.out, got.err)
	}
	return got
}

func podman(t *testing.T) *engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("no podman: install podman")
	}
	dir, err := os.MkdirTemp("", "davit-podman-") // conmon's sockets need short paths
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t, dir, []string{"podman", "--root", dir + "/root", "--runroot", dir + "/run", "--tmpdir", dir + "/tmp", "--cgroup-manager", "cgroupfs", "--runtime", program(t)}}
	t.Cleanup(func() {
		e.ends(0, "rm", "--all", "--force", "--time", "0")
		_ = run(exec.Command("umount", dir+"/root/overlay"))
		// Podman's own clean-up of a container that has ended is a process that may
		// still be at work.
		eventually(t, "podman's folder is removed", func() bool { return os.RemoveAll(dir) == nil })
	})
	e.must("import", imageTar(t), image)
	return e
}

func TestPodman(t *testing.T) {
	e := podman(t)
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
	e.ends(127, "exec", "one", "nothing")
	if got := e.must("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "one"); !strings.Contains(got, "52.43MB") {
		t.Errorf("stats: %q", got)
	}
	e.must("pause", "one")
	if got := e.must("ps", "--format", "{{.Status}}", "--filter", "status=paused"); got == "" {
		t.Error("the paused container is not listed as paused")
	}
	e.must("unpause", "one")
	if got := e.must("top", "one", "pid", "args"); !strings.Contains(got, "sh -c") {
		t.Errorf("top: %q", got)
	}
	e.must("stop", "--time", "20", "one")
	if got := e.must("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "one"); got != "exited 5\n" {
		t.Errorf("after stop: %q", got)
	}
	if got := e.must("logs", "one"); got != "ready\nbye\n" {
		t.Errorf("logs: %q", got)
	}
	e.must("start", "one")
	e.must("kill", "--signal", "KILL", "one")
	if got := e.must("wait", "one"); got != "137\n" {
		t.Errorf("wait after kill: %q", got)
	}
	e.must("rm", "one")
}

func TestPodmanTerminal(t *testing.T) {
	e := podman(t)
	if got := e.must("run", "--rm", "--tty", image, "sh", "-c", "tty; [ -t 2 ] && echo terminal"); got != "/dev/pts/0\r\nterminal\r\n" {
		t.Errorf("run --tty: %q", got)
	}
	e.must("run", "--detach", "--name", "term", image, "sleep", "100000")
	if got := e.must("exec", "--tty", "term", "tty"); got != "/dev/pts/0\r\n" {
		t.Errorf("exec --tty: %q", got)
	}
}

func TestPodmanLimits(t *testing.T) {
	e := podman(t)
	e.ends(137, "run", "--rm", "--memory", "8m", "--memory-swap", "8m", image, "sh", "-c", "head -c 64m /dev/zero | tail") // one endless line, kept in memory
	got := e.run("run", "--rm", "--pids-limit", "5", image, "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 2 & done; wait")
	if !strings.Contains(got.err, "can't fork") {
		t.Errorf("--pids-limit: %+v", got)
	}
}

// Podman checkpoints through davit-oci, and restores in the same network namespace
// of its own making.
func TestPodmanCheckpoint(t *testing.T) {
	needsCRIU(t)
	e := podman(t)
	e.must("run", "--detach", "--name", "one", image, "sh", "-c", `n=41; echo ready; while [ ! -e /tmp/go ]; do sleep 0.05; done; n=$((n+1)); echo $n; sleep 100000`)
	eventually(t, "the program is ready", func() bool { return e.must("logs", "one") == "ready\n" })
	e.must("container", "checkpoint", "one")
	if got := e.must("inspect", "--format", "{{.State.Status}} {{.State.Checkpointed}}", "one"); got != "exited true\n" {
		t.Errorf("after checkpoint: %q", got)
	}
	e.must("container", "restore", "one")
	e.must("exec", "one", "touch", "/tmp/go")
	eventually(t, "the program goes on", func() bool { return e.must("logs", "one") == "ready\n42\n" })
}
