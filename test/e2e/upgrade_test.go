package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

// TestUpgradesUnderLoad replaces the process of each driver by one of another
// executable while a web page is fetched, a connection and an exec talk, a log is
// followed, names are looked up and containers come and go: none of them notices.
func TestUpgradesUnderLoad(t *testing.T) {
	bin, err := private.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "bin")
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", "--reflink=auto", bin, copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e := ownEngine(t, private.Options{Bin: copied})
	c := newClient(t, "docker", e)
	c.ok("network", "create", c.own("net"))
	c.ok("volume", "create", c.own("data"))
	c.Cleanup(func() { c.run("network", "rm", c.own("net")); c.run("volume", "rm", c.own("data")) })

	l := newUpgradeLoad(c)
	work := map[string]*worker{
		"a web page":                  l.page(),
		"a connection":                l.connection(),
		"an exec":                     l.exec(),
		"a log":                       l.log(),
		"names":                       l.names(),
		"containers coming and going": l.containers(),
	}
	ended := make(chan result, 1)
	go func() { ended <- c.run("wait", l.box("waits")) }()

	davit := newClient(t, "davit", e)
	for _, name := range []string{"storage-overlay", "network-bridge", "runtime-native", "volume-local"} {
		davit.equal(davit.ok("plugin", "upgrade", name), name+": up to date")
		install(t, filepath.Join(copied, "plugins", "davit-"+name), "another version of "+name)
		// Everybody has to get on before it, and after it.
		for what, w := range work {
			w.progress(t, "before the upgrade of "+name, what)
		}
		pid := c.plugin(name)
		said := davit.ok("plugin", "upgrade", name)
		t.Log(said)
		if !regexp.MustCompile(`^` + name + `: version \S+ \(\w{12}, process \d+\) is now version \S+ \(\w{12}, process \d+\); calls waited for \S+$`).MatchString(said) {
			t.Errorf("upgrade said %q", said)
		}
		if now := c.plugin(name); now == pid || now == 0 {
			t.Errorf("process %d of %s became %d", pid, name, now)
		}
		for what, w := range work {
			w.progress(t, "after the upgrade of "+name, what)
		}
	}
	davit.fails(1, "No such driver plugin: nosuch", "plugin", "upgrade", "nosuch")
	c.ok("exec", l.box("waits"), "touch", "/end")
	if r := <-ended; strings.TrimSpace(r.out) != "5" {
		t.Errorf("the exit code of 5 is told as %q %q", r.out, r.err)
	}
	for what, w := range work {
		if err := w.finish(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	plugins, err := e.Plugins(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins {
		if p.Restarts != 0 {
			t.Errorf("%s was restarted: %s", p.Name, p.LastError)
		}
	}
}

// install puts another executable in the place of a plugin's, with a mark behind
// it, and its digest into the manifest.
func install(t *testing.T, path, mark string) {
	t.Helper()
	body := append([]byte(read(t, path)), mark...)
	if err := os.WriteFile(path+".new", body, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	manifest := regexp.MustCompile(`"sha256": "\w+"`).ReplaceAllString(read(t, path+".json"), `"sha256": "`+hex.EncodeToString(sum[:])+`"`)
	write(t, path+".json", manifest)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// worker does something over and over.
type worker struct {
	times  atomic.Int64
	cancel context.CancelFunc
	end    chan error
}

// work calls do until it fails or the worker is to finish; then end.
func work(ctx context.Context, do func(n int) error, end func() error) *worker {
	w := &worker{end: make(chan error, 1)}
	ctx, w.cancel = context.WithCancel(ctx)
	go func() {
		var err error
		for n := 1; err == nil && ctx.Err() == nil; n++ {
			if err = do(n); err == nil {
				w.times.Add(1)
			}
		}
		if stopped := end(); err == nil {
			err = stopped
		}
		w.end <- err
	}()
	return w
}

// progress waits until the work was done some times more.
func (w *worker) progress(t *testing.T, when, what string) {
	t.Helper()
	const more = 3
	begin := w.times.Load()
	for deadline := time.Now().Add(private.Patience(30 * time.Second)); w.times.Load() < begin+more; time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-w.end:
			w.end <- err
			t.Fatalf("%s: %s: %v", when, what, err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s does not get on after %d times", when, what, begin)
		}
	}
}

func (w *worker) finish() error {
	w.cancel()
	return <-w.end
}

// upgradeLoad are containers and what is done with them.
type upgradeLoad struct {
	*client
	address map[string]string // of published ports
}

func (l *upgradeLoad) box(name string) string { return l.own(name) }

func newUpgradeLoad(c *client) *upgradeLoad {
	l := &upgradeLoad{client: c, address: map[string]string{}}
	serve := func(name, command string) {
		l.background(name, "--network", c.own("net"), "-v", c.own("data")+":/data", "-p", "127.0.0.1::80", "busybox", "sh", "-c", command)
		l.address[name] = c.ok("port", l.box(name), "80")
	}
	serve("web", "mkdir /www && echo page > /www/index.html && exec httpd -f -p 80 -h /www")
	serve("echo", "exec nc -ll -p 80 -e cat")
	l.background("counts", "busybox", "sh", "-c", "n=0; while [ ! -e /end ]; do n=$((n+1)); echo $n; usleep 5000; done; echo end")
	l.background("looks", "--network", c.own("net"), "busybox", "sh", "-c", "while [ ! -e /end ]; do nslookup "+l.box("web")+" > /tmp/answer 2>&1 && echo found || cat /tmp/answer; done; echo end")
	l.background("waits", "busybox", "sh", "-c", "while [ ! -e /end ]; do usleep 20000; done; exit 5")
	for name, address := range l.address {
		eventually(c.T, name, func() error {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return err
			}
			return conn.Close()
		})
	}
	return l
}

func nothing() error { return nil }

// page fetches a page, each time over a new connection.
func (l *upgradeLoad) page() *worker {
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: private.Patience(20 * time.Second)}
	return work(l.Context(), func(int) error {
		response, err := web.Get("http://" + l.address["web"])
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || string(body) != "page\n" {
			return fmt.Errorf("%q, %w", body, err)
		}
		return nil
	}, nothing)
}

// talk writes numbers and expects them to come back.
func talk(to io.Writer, from io.Reader) func(n int) error {
	lines := bufio.NewScanner(from)
	return func(n int) error {
		if _, err := fmt.Fprintln(to, n); err != nil {
			return err
		}
		if !lines.Scan() || lines.Text() != strconv.Itoa(n) {
			return fmt.Errorf("%d came back as %q, %w", n, lines.Text(), lines.Err())
		}
		time.Sleep(time.Millisecond)
		return nil
	}
}

// connection is one for the whole time.
func (l *upgradeLoad) connection() *worker {
	conn, err := net.Dial("tcp", l.address["echo"])
	if err != nil {
		l.Fatal(err)
	}
	return work(l.Context(), talk(conn, conn), conn.Close)
}

// command starts a client that stays.
func (l *upgradeLoad) command(args ...string) (cmd *exec.Cmd, in io.WriteCloser, out io.Reader) {
	cmd = exec.CommandContext(l.Context(), "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+l.engine.Host)
	in, err := cmd.StdinPipe()
	if err == nil {
		out, err = cmd.StdoutPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		l.Fatal(err)
	}
	return cmd, in, out
}

// exec is one session, whose exit code is seen at the end.
func (l *upgradeLoad) exec() *worker {
	cmd, in, out := l.command("exec", "-i", l.box("web"), "sh", "-c", "while read line; do echo $line; done; exit 9")
	return work(l.Context(), talk(in, out), func() error {
		_ = in.Close()
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 9 {
			return fmt.Errorf("exit code %d, want 9", code)
		}
		return nil
	})
}

// log follows one whose lines are numbered.
func (l *upgradeLoad) log() *worker {
	cmd, _, out := l.command("logs", "-f", l.box("counts"))
	lines := bufio.NewScanner(out)
	last := 0
	next := func(int) error {
		if !lines.Scan() || lines.Text() != strconv.Itoa(last+1) {
			return fmt.Errorf("after %d came %q, %w", last, lines.Text(), lines.Err())
		}
		last++
		return nil
	}
	return work(l.Context(), next, func() error {
		l.run("exec", l.box("counts"), "touch", "/end")
		for lines.Scan() && lines.Text() != "end" {
			if lines.Text() != strconv.Itoa(last+1) {
				return fmt.Errorf("after %d came %q", last, lines.Text())
			}
			last++
		}
		if lines.Text() != "end" {
			return fmt.Errorf("the end is missing after %d, %w", last, lines.Err())
		}
		return cmd.Wait()
	})
}

// names are looked up by a container, which says how it went.
func (l *upgradeLoad) names() *worker {
	cmd, _, out := l.command("logs", "-f", l.box("looks"))
	lines := bufio.NewScanner(out)
	return work(l.Context(), func(int) error {
		if !lines.Scan() || lines.Text() != "found" {
			return fmt.Errorf("%q, %w", lines.Text(), lines.Err())
		}
		return nil
	}, func() error {
		l.run("exec", l.box("looks"), "touch", "/end")
		_, _ = io.Copy(io.Discard, out)
		return cmd.Wait()
	})
}

// containers run with all that drivers give.
func (l *upgradeLoad) containers() *worker {
	return work(l.Context(), func(n int) error {
		r := l.run("run", "--rm", "--network", l.own("net"), "-v", l.own("data")+":/data", "-p", "127.0.0.1::99", "busybox", "sh", "-c", "echo "+strconv.Itoa(n)+" > /data/n && cat /data/n && exit 4")
		if r.code != 4 || r.out != strconv.Itoa(n)+"\n" {
			return fmt.Errorf("exit code %d, %q %q", r.code, r.out, r.err)
		}
		return nil
	}, nothing)
}
