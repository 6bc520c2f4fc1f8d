package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-engine/davit/test/private"
)

// TestTheExampleDriver builds the volume driver of the plugin author's guide,
// installs it beside the others, and keeps a container's data in it.
func TestTheExampleDriver(t *testing.T) {
	bin, err := private.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(filepath.Dir(bin), "examples", "volume-minimal")
	if _, err := os.Stat(source); errors.Is(err, os.ErrNotExist) {
		t.Skip("the sources are not here: this is another machine than they were built on")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "davit-volume-minimal"), ".")
	build.Dir = source
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	write(t, filepath.Join(dir, "davit-volume-minimal.json"), read(t, filepath.Join(source, "davit-volume-minimal.json")))
	e := ownEngine(t, private.Options{Plugins: []string{dir}})
	c := newClient(t, "docker", e)
	c.equal(c.ok("volume", "create", "-d", "minimal", "photos"), "photos")
	c.ok("run", "--rm", "-v", "photos:/photos", "busybox", "sh", "-c", "echo sunset > /photos/one")
	c.equal(c.ok("run", "--rm", "-v", "photos:/photos:ro", "busybox", "cat", "/photos/one"), "sunset")
	place := c.ok("volume", "inspect", "-f", "{{.Driver}} {{.Mountpoint}}", "photos")
	c.contains(place, "minimal "+filepath.Join(e.Root, "drivers", "volume-minimal"))
	c.background("user", "-v", "photos:/photos", "busybox", "sleep", "600")
	kill(t, plugin(t, e, "volume-minimal").PID)
	// The new process has the old one's volumes and knows who uses them.
	c.fails(1, "volume is in use", "volume", "rm", "photos")
	c.equal(c.ok("exec", c.own("user"), "cat", "/photos/one"), "sunset")
	c.ok("rm", "-f", c.own("user"))
	c.ok("volume", "rm", "photos")
}

// TestDriversInPython gives a container a volume and a network of drivers in Python,
// which are killed under it.
func TestDriversInPython(t *testing.T) {
	bin, err := private.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	examples := filepath.Join(filepath.Dir(bin), "examples")
	if _, err := os.Stat(examples); errors.Is(err, os.ErrNotExist) {
		t.Skip("the sources are not here: this is another machine than they were built on")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"volume-python", "network-python"} {
		command(t, "make", "-C", filepath.Join(examples, name), "OUT="+dir)
	}
	e := ownEngine(t, private.Options{Plugins: []string{dir}})
	c := newClient(t, "docker", e)
	c.ok("volume", "create", "-d", "python", "photos")
	c.ok("network", "create", "-d", "python", "--subnet", "10.97.97.0/24", "lab")
	t.Cleanup(func() { c.run("network", "rm", "lab") })
	web := c.own("web")
	c.background("web", "--network", "lab", "-v", "photos:/photos", "busybox",
		"sh", "-c", "echo sunset > /photos/index.html; exec httpd -f -p 80 -h /photos")
	ask := func() {
		t.Helper()
		c.equal(c.ok("run", "--rm", "--network", "lab", "-v", "photos:/photos:ro", "busybox",
			"sh", "-c", "cat /photos/index.html; wget -q -O - http://"+web+"/; ip -4 addr show eth0 | grep -o 10.97.97"), "sunset\nsunset\n10.97.97")
	}
	ask()
	c.equal(c.ok("inspect", "-f", "{{(index .NetworkSettings.Networks \"lab\").Gateway}}", web), "10.97.97.1")
	for _, name := range []string{"volume-python", "network-python"} {
		kill(t, plugin(t, e, name).PID)
	}
	ask()
	// A script is upgraded, and gone back to, as any other program is.
	davit, script := newClient(t, "davit", e), filepath.Join(dir, "davit-volume-python")
	first := read(t, script)
	install(t, script, "\n")
	c.contains(davit.ok("plugin", "upgrade", "volume-python"), "is now version 1.0.0")
	put := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(script+".new", []byte(text), 0o755), os.Rename(script+".new", script)); err != nil {
			t.Fatal(err)
		}
	}
	put(strings.Replace(first, "self.root = setup.root", "raise ValueError('this one is broken')", 1))
	davit.fails(1, "this one is broken", "plugin", "upgrade", "volume-python")
	ask()
	put(first)
	c.fails(1, "volume is in use", "volume", "rm", "photos")
	c.fails(1, "active endpoints", "network", "rm", "lab")
	c.fails(1, "this driver has no IPv6", "network", "create", "-d", "python", "--ipv6", "six")
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	ask()
	c.ok("restart", "-t", "0", web)
	eventually(t, "the server", func() error {
		if r := c.run("run", "--rm", "--network", "lab", "busybox", "wget", "-q", "-O", "-", "http://"+web+"/"); r.out != "sunset\n" {
			return errors.New(r.err)
		}
		return nil
	})
	c.ok("rm", "-f", web)
	c.ok("volume", "rm", "photos")
	c.ok("network", "rm", "lab")
	if left := command(t, "ip", "-o", "link", "show", "type", "bridge"); strings.Contains(left, " pb") {
		t.Errorf("a bridge is left: %s", left)
	}
}

// TestBrokenRequests sends what no client would.
func TestBrokenRequests(t *testing.T) {
	t.Parallel()
	ask := func(method, path, contentType, body string) (int, string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, "http://davit"+path, bytes.NewBufferString(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		resp, err := engine.HTTP().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	const json = "application/json"
	for _, c := range []struct {
		method, path, kind, body string
		status                   int
		text                     string
	}{
		{"POST", "/v1.45/containers/create", json, `{"Image": "busybox", `, 400, "unexpected EOF"},
		{"POST", "/v1.45/containers/create", json, `{"Image": 7}`, 400, "cannot unmarshal"},
		{"POST", "/v1.45/containers/create", json, ``, 400, ""},
		{"POST", "/v1.45/containers/create", "text/plain", `{"Image": "busybox"}`, 400, ""},
		{"POST", "/v1.45/containers/create", json, `{"Image": "busybox", "HostConfig": {"Memory": "much"}}`, 400, "cannot unmarshal"},
		{"POST", "/v1.45/containers/create", json, `{"Image": "busybox", "HostConfig": {"PortBindings": {"x/tcp": [{}]}}}`, 400, "port"},
		{"POST", "/v1.45/networks/create", json, `[]`, 400, ""},
		{"GET", "/v1.45/containers/json?filters=nonsense", json, "", 400, "invalid filter"},
		{"GET", "/v1.45/containers/json?filters=%7B%22nonsense%22%3A%5B%22x%22%5D%7D", json, "", 400, "invalid filter"},
		{"GET", "/v1.45/containers/nobody/json", json, "", 404, "No such container: nobody"},
		{"GET", "/v1.99/info", json, "", 400, "is too new"},
		{"GET", "/v1.12/info", json, "", 400, "is too old"},
		{"POST", "/v1.45/build", "application/x-tar", "", 501, ""},
		{"POST", "/v1.45/swarm/init", json, "{}", 501, ""},
		{"GET", "/v1.45/nonsense", json, "", 404, "page not found"},
	} {
		status, text := ask(c.method, c.path, c.kind, c.body)
		if status != c.status || !strings.Contains(text, c.text) || !strings.Contains(text, `"message"`) {
			t.Errorf("%s %s %s: %d %s, want %d with %q", c.method, c.path, c.body, status, text, c.status, c.text)
		}
	}
	if out := newClient(t, "davit", engine).ok("run", "--rm", "busybox", "echo", "fine"); out != "fine" {
		t.Error(out)
	}
}
