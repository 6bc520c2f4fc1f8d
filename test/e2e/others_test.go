package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

// tool is a program of another project that reads and writes images.
func tool(t *testing.T, name string) func(args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("no %s: run test/setup.sh test", name)
	}
	return func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		var errOut bytes.Buffer
		cmd.Stderr = &errOut
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, errOut.String())
		}
		return strings.TrimSpace(string(out))
	}
}

// dockerDaemon starts Debian's dockerd on folders of its own, for images alone, and
// answers its client and its socket.
func dockerDaemon(t *testing.T) (docker func(args ...string) string, socket string) {
	t.Helper()
	for _, name := range []string{"dockerd", "docker", "containerd"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s: run test/setup.sh test", name)
		}
	}
	dir, err := os.MkdirTemp("", "dockerd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("umount", "--recursive", dir+"/run/netns").Run()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	socket = dir + "/docker.sock"
	host := "unix://" + socket
	daemon := exec.Command("dockerd", "--data-root", dir+"/root", "--exec-root", dir+"/run", "--pidfile", dir+"/pid", "--host", host,
		"--storage-driver", "vfs", "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
	var said bytes.Buffer
	daemon.Stdout, daemon.Stderr = &said, &said
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // nothing of it survives a test that is killed
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Signal(os.Interrupt)
		ended := make(chan error, 1)
		go func() { ended <- daemon.Wait() }()
		select {
		case <-ended:
		case <-time.After(private.Patience(20 * time.Second)):
			_ = daemon.Process.Kill()
			<-ended
		}
	})
	run := tool(t, "docker")
	docker = func(args ...string) string { t.Helper(); return run(append([]string{"--host", host}, args...)...) }
	eventually(t, "dockerd", func() error {
		if err := exec.Command("docker", "--host", host, "version").Run(); err != nil {
			return fmt.Errorf("%w\n%s", err, said.String())
		}
		return nil
	})
	return docker, socket
}

// ask speaks to an engine's API.
func ask(t *testing.T, e *private.Engine, method, path, body string) (status int, answer string) {
	t.Helper()
	return askSocket(t, e.Socket, method, path, body)
}

func askSocket(t *testing.T, socket, method, path, body string) (status int, answer string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, method, "http://davit"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// alone is an engine for one test, without images.
func alone(t *testing.T) *private.Engine {
	t.Helper()
	e, err := private.New(private.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.CleanUp(); err != nil {
			t.Error(err)
		}
	})
	return e
}
