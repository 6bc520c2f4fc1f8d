package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

// client is a command that speaks Docker's words to an engine.
type client struct {
	*testing.T
	name   string // "docker" or "davit"
	engine *private.Engine
	input  string
	env    []string
	prefix string // makes names of this test its own
}

// both runs a test with the docker client and with davit, side by side.
func both(t *testing.T, test func(c *client)) {
	t.Helper()
	t.Parallel()
	for _, name := range []string{"docker", "davit"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(name); name == "docker" && err != nil {
				t.Fatal("no docker client: run test/setup.sh test")
			}
			test(newClient(t, name, engine))
		})
	}
}

// newClient removes what the test made when it ends.
func newClient(t *testing.T, name string, e *private.Engine) *client {
	t.Helper()
	prefix := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	return &client{T: t, name: name, engine: e, prefix: prefix}
}

// own makes a name that no other test uses.
func (c *client) own(name string) string { return c.prefix + "-" + name }

// result is what a command said.
type result struct {
	out, err string
	code     int
}

// limit bounds every command: a hang is a failure of its own.
var limit = private.Patience(2 * time.Minute)

func (c *client) run(args ...string) result {
	c.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := c.engine.Command(ctx, c.name, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if c.env != nil {
		cmd.Env = append(cmd.Environ(), c.env...)
	}
	if c.input != "" {
		cmd.Stdin = strings.NewReader(c.input)
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.Fatalf("%s %q: %v", c.name, args, err)
	}
	if ctx.Err() != nil {
		c.Fatalf("%s %q hangs\n%s%s", c.name, args, out.String(), errOut.String())
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// ok runs a command that must succeed, and answers its output.
func (c *client) ok(args ...string) string {
	c.Helper()
	r := c.run(args...)
	if r.code != 0 {
		c.Fatalf("%s %q: exit code %d\n%s%s", c.name, args, r.code, r.out, r.err)
	}
	return strings.TrimSpace(r.out)
}

// fails runs a command that must end with the code and say the text.
func (c *client) fails(code int, text string, args ...string) {
	c.Helper()
	r := c.run(args...)
	if r.code != code || !strings.Contains(r.err+r.out, text) {
		c.Errorf("%s %q: exit code %d (want %d), want the text %q in\n%s%s", c.name, args, r.code, code, text, r.out, r.err)
	}
}

// with gives the next commands an input.
func (c *client) with(input string) *client {
	other := *c
	other.input = input
	return &other
}

// background starts a container of busybox that is removed with the test.
func (c *client) background(name string, args ...string) string {
	c.Helper()
	full := c.own(name)
	c.Cleanup(func() { c.run("rm", "-fv", full) })
	return c.ok(append([]string{"run", "-d", "--name", full}, args...)...)
}

// equal compares; want is what the user expects to read.
func (c *client) equal(got, want string) {
	c.Helper()
	if got != want {
		c.Errorf("got %q, want %q", got, want)
	}
}

func (c *client) contains(got, want string) {
	c.Helper()
	if !strings.Contains(got, want) {
		c.Errorf("%q is not in\n%s", want, got)
	}
}

// eventually waits for a condition, with a bound.
func eventually(t *testing.T, what string, fn func() error) {
	t.Helper()
	deadline := time.Now().Add(private.Patience(30 * time.Second))
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// freePort is a port that nothing listens on just now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// fetch gets a page from a port of this host.
func fetch(t *testing.T, port int) string {
	t.Helper()
	var page string
	eventually(t, fmt.Sprintf("fetching from port %d", port), func() error {
		web := http.Client{Timeout: private.Patience(2 * time.Second), Transport: &http.Transport{DisableKeepAlives: true}}
		response, err := web.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		page = string(body)
		return err
	})
	return page
}
