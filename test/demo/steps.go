package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/davit-engine/davit/test/private"
)

// Terminal colours; empty when the output is not a terminal.
var red, green, dim, bold, plain = colours()

func colours() (red, green, dim, bold, plain string) {
	if info, err := os.Stdout.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return "", "", "", "", ""
	}
	return "\x1b[31m", "\x1b[32m", "\x1b[2m", "\x1b[1m", "\x1b[0m"
}

const page = "<h1>It works</h1>served by a container whose every layer is a driver\n"

type demo struct {
	engine *private.Engine
	port   int
	pid    int    // of the container
	since  string // its start time, to show that it never stopped
}

func (d *demo) start(ctx context.Context) error {
	begin := time.Now()
	if err := d.engine.Start(ctx); err != nil {
		return err
	}
	fmt.Printf("   davitd is up in %d ms, everything below %s\n", time.Since(begin).Milliseconds(), d.engine.Dir)
	return d.davit(ctx, "plugin", "ls")
}

// image builds the web server, packs it with a page into a root filesystem and
// imports that.
func (d *demo) image(ctx context.Context) error {
	binary := filepath.Join(d.engine.Dir, "web")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./examples/web")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Dir = filepath.Dir(d.engine.Bin)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building examples/web: %w\n%s", err, out)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	root := filepath.Join(d.engine.Dir, "web.tar")
	if err := writeTar(root, map[string][]byte{"web": program, "www/index.html": []byte(page)}); err != nil {
		return err
	}
	if err := d.davit(ctx, "import", "--change", `ENTRYPOINT ["/web"]`, "--change", "EXPOSE 8080", "--message", "demo", root, "demo/web:1"); err != nil {
		return err
	}
	return d.davit(ctx, "images")
}

func writeTar(path string, files map[string][]byte) error {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	dirs := []string{"www/", "data/", "tmp/"}
	for _, dir := range dirs {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, buffer.Bytes(), 0o600)
}

func (d *demo) container(ctx context.Context) error {
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	d.port = port
	begin := time.Now()
	if err := d.davit(ctx, "run", "-d", "--name", "web", "-p", fmt.Sprintf("%d:8080", port), "-v", "demo-data:/data", "-m", "64m", "--restart", "unless-stopped", "demo/web:1"); err != nil {
		return err
	}
	fmt.Printf("   %sstarted in %d ms%s\n", dim, time.Since(begin).Milliseconds(), plain)
	if err := d.davit(ctx, "ps"); err != nil {
		return err
	}
	d.pid, d.since, err = d.containerProcess(ctx)
	return err
}

func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

func (d *demo) page(ctx context.Context) error {
	body, err := d.fetch(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("   GET http://127.0.0.1:%d/ → %s%s%s", d.port, green, body, plain)
	return nil
}

func (d *demo) fetch(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", d.port), http.NoBody)
	if err != nil {
		return "", err
	}
	// Every fetch is a new connection, as from a new client.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var lastErr error
	for ctx.Err() == nil {
		var resp *http.Response
		if resp, lastErr = client.Do(req); lastErr != nil {
			time.Sleep(10 * time.Millisecond) // the server inside may still be starting
			continue
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return "", err
		}
		if string(body) != page {
			return "", fmt.Errorf("the page is not the one we put into the image: %q", body)
		}
		return string(body), nil
	}
	return "", lastErr
}

// processes shows core, drivers, monitor and the container's process.
func (d *demo) processes(ctx context.Context) error {
	plugins, err := d.engine.Running(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("   %-28s pid %d\n", "core (davitd)", d.engine.PID())
	for _, p := range plugins {
		fmt.Printf("   %-28s pid %-8d restarts %d\n", "driver "+p.Name, p.PID, p.Restarts)
	}
	fmt.Printf("   %-28s pid %d\n", "monitor of the container", parentOf(d.pid))
	fmt.Printf("   %-28s pid %d\n", "the container's process", d.pid)
	return nil
}

func (d *demo) killAll(ctx context.Context) error {
	plugins, err := d.engine.Running(ctx)
	if err != nil {
		return err
	}
	for _, p := range plugins {
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
			return fmt.Errorf("killing %s: %w", p.Name, err)
		}
		if err := d.stillServing(ctx, "driver "+p.Name); err != nil {
			return err
		}
	}
	if err := d.engine.Kill(); err != nil {
		return err
	}
	if err := d.stillServing(ctx, "the core"); err != nil {
		return err
	}
	begin := time.Now()
	if err := d.engine.Start(ctx); err != nil {
		return err
	}
	fmt.Printf("   a new core took over in %d ms\n", time.Since(begin).Milliseconds())
	if err := d.stillServing(ctx, "nothing more"); err != nil {
		return err
	}
	pid, since, err := d.containerProcess(ctx)
	if err != nil {
		return err
	}
	if pid != d.pid || since != d.since {
		return fmt.Errorf("the container was restarted: pid %d since %s, was pid %d since %s", pid, since, d.pid, d.since)
	}
	fmt.Printf("   the container never stopped: still pid %d, started %s\n", pid, since)
	return d.davit(ctx, "ps")
}

func (d *demo) stillServing(ctx context.Context, victim string) error {
	begin := time.Now()
	if _, err := d.fetch(ctx); err != nil {
		return fmt.Errorf("after SIGKILL of %s: %w", victim, err)
	}
	fmt.Printf("   killed %-26s → page fetched in %.1f ms\n", victim, float64(time.Since(begin).Microseconds())/1000)
	return nil
}

func (d *demo) cleanUp(ctx context.Context) error {
	for _, args := range [][]string{{"rm", "-f", "web"}, {"volume", "rm", "demo-data"}, {"rmi", "demo/web:1"}} {
		if err := d.davit(ctx, args...); err != nil {
			return err
		}
	}
	left, err := d.engine.SettledLeaks(ctx)
	if err != nil {
		return err
	}
	if err := d.engine.Close(ctx); err != nil {
		return err
	}
	if err := d.engine.RemoveHostState(); err != nil {
		return err
	}
	after, err := d.engine.Leaks()
	if err != nil {
		return err
	}
	if left = append(left, after...); len(left) > 0 {
		return fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
	}
	for _, kind := range []string{"mounts", "network namespaces", "links", "nftables", "cgroups", "processes", "files"} {
		fmt.Printf("   %s✓%s no %s\n", green, plain, kind)
	}
	return nil
}

// sweep removes what a failed demo leaves, as far as it can.
func (d *demo) sweep() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_ = d.engine.Command(ctx, "davit", "rm", "-f", "web").Run()
	_ = d.engine.Close(ctx)
	_ = d.engine.RemoveHostState()
}

// davit runs the client and shows the command and its output.
func (d *demo) davit(ctx context.Context, args ...string) error {
	shown := make([]string, len(args))
	for i, a := range args {
		if shown[i] = a; strings.ContainsAny(a, ` "[`) {
			shown[i] = "'" + a + "'"
		}
	}
	fmt.Printf("   %s$ davit %s%s\n", bold, strings.Join(shown, " "), plain)
	out, err := d.engine.Command(ctx, "davit", args...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		fmt.Print("   ", line)
	}
	if err != nil {
		return fmt.Errorf("davit %s: %w", args[0], err)
	}
	return nil
}

func (d *demo) containerProcess(ctx context.Context) (pid int, since string, err error) {
	out, err := d.engine.Command(ctx, "davit", "inspect", "--format", "{{.State.Pid}} {{.State.StartedAt}}", "web").Output()
	if err != nil {
		return 0, "", fmt.Errorf("davit inspect: %w", err)
	}
	first, since, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	pid, err = strconv.Atoi(first)
	return pid, since, err
}

func parentOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}
