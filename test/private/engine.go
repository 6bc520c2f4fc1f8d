// Package private starts engines of their own for tests, demo and benchmarks:
// own directories, socket, bridge, nftables table, address pool and cgroup
// parent, so that they run beside a developer's engine, and says what one left
// behind.
package private

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// sequence tells the engines of one process apart.
var sequence atomic.Uint32

// Options say what to start. The zero value works inside the repository.
type Options struct {
	Bin    string    // folder with davit, davitd, plugins/; empty: found above the working directory
	Output io.Writer // the core's log; nil: a file in the engine's folder
	Config string    // more TOML, put before the tables the engine writes
	Tables string    // more TOML tables
	// Plugins are further plugin directories, and StartTimeout how long a plugin
	// may take to start.
	Plugins      []string
	StartTimeout time.Duration

	Dir   string // engine's folder; empty: a new temporary one, removed by Close
	Debug bool
}

// Engine is one private davitd.
type Engine struct {
	Name   string // unique part of bridge, table and cgroup names
	Bin    string
	Dir    string
	Root   string
	Run    string
	Socket string
	Host   string // for DOCKER_HOST
	Bridge string
	Table  string
	Cgroup string // cgroup parent, absolute in each hierarchy

	cfg     string
	log     io.Writer
	logFile *os.File
	ownDir  bool
	cmd     *exec.Cmd
	exited  chan struct{}
}

// BinDir finds the folder that `make build` filled: $DAVIT_BIN, or bin/ beside
// the go.mod above the working directory.
func BinDir() (string, error) {
	if dir := os.Getenv("DAVIT_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			bin := filepath.Join(dir, "bin")
			if _, err := os.Stat(filepath.Join(bin, "davitd")); err != nil {
				return "", fmt.Errorf("%w: run make build first", err)
			}
			return bin, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no bin/ found: set DAVIT_BIN or run inside the repository after make build")
		}
		dir = parent
	}
}

// New prepares an engine without starting it.
func New(o Options) (*Engine, error) {
	bin := o.Bin
	if bin == "" {
		var err error
		if bin, err = BinDir(); err != nil {
			return nil, err
		}
	}
	number := sequence.Add(1)
	name := fmt.Sprintf("dt%x%02x", os.Getpid()&0xffffff, number&0xff)
	e := &Engine{Name: name, Bin: bin, Dir: o.Dir, Bridge: name, Table: "davit-" + name, Cgroup: "/davit-" + name}
	if e.Dir == "" {
		dir, err := os.MkdirTemp("", "davit-"+name+"-")
		if err != nil {
			return nil, err
		}
		e.Dir, e.ownDir = dir, true
	}
	e.Root, e.Run, e.Socket = filepath.Join(e.Dir, "root"), filepath.Join(e.Dir, "run"), filepath.Join(e.Dir, "davit.sock")
	e.Host = "unix://" + e.Socket
	e.cfg = filepath.Join(e.Dir, "davit.toml")
	level := "info"
	if o.Debug {
		level = "debug"
	}
	// A /16 of its own: engines that run at once differ in pid or number.
	second := 16 + (os.Getpid()*7+int(number)*13)%200
	dirs := fmt.Sprintf("%q", filepath.Join(bin, "plugins"))
	for _, dir := range o.Plugins {
		dirs += fmt.Sprintf(", %q", dir)
	}
	timeout := 30 * time.Second
	if o.StartTimeout != 0 {
		timeout = o.StartTimeout
	}
	config := fmt.Sprintf(`root = %q
run = %q
listen = [%q]
log_level = %q
cgroup_parent = %q
%s
[plugins]
dirs = [%s]
start_timeout = %q

[plugins.config.network-bridge]
bridge = %q
table = %q
pools = ["10.%d.0.0/16"]

%s
`, e.Root, e.Run, e.Host, level, e.Cgroup, o.Config, dirs, Patience(timeout).String(), e.Bridge, e.Table, second, o.Tables)
	if err := os.WriteFile(e.cfg, []byte(config), 0o600); err != nil {
		return nil, err
	}
	e.log = o.Output
	return e, nil
}

// Start runs davitd and returns when its API answers and its default drivers are
// ready.
func (e *Engine) Start(ctx context.Context) error {
	out := e.log
	if out == nil {
		if e.logFile == nil {
			f, err := os.OpenFile(e.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				return err
			}
			e.logFile = f
		}
		out = e.logFile
	}
	//nolint:noctx // the engine outlives ctx on purpose; Stop ends it
	cmd := exec.Command(filepath.Join(e.Bin, "davitd"), "--config", e.cfg)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting davitd: %w", err)
	}
	e.cmd, e.exited = cmd, make(chan struct{})
	go func(done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(e.exited)
	return e.waitReady(ctx)
}

// waitReady polls the API until every default driver is ready.
func (e *Engine) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Patience(30*time.Second))
	defer cancel()
	var last error
	for {
		if last = e.ready(ctx); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("davitd is not ready: %w\n%s", last, e.LogTail())
		case <-e.exited:
			return fmt.Errorf("davitd exited at start\n%s", e.LogTail())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (e *Engine) ready(ctx context.Context) error {
	plugins, err := e.Plugins(ctx)
	if err != nil {
		return err
	}
	for _, p := range plugins {
		if p.Default && p.State != "ready" {
			return fmt.Errorf("plugin %s is %s: %s", p.Name, p.State, p.LastError)
		}
	}
	if len(plugins) < 4 {
		return fmt.Errorf("%d plugins found, want 4", len(plugins))
	}
	return nil
}

// PluginStatus is the part of the engine's plugin list that callers look at.
type PluginStatus struct {
	Name, Kind, Driver, State, LastError string
	Default                              bool
	PID, Restarts                        int
}

// Plugins asks the engine for its driver plugins.
func (e *Engine) Plugins(ctx context.Context) ([]PluginStatus, error) {
	var list []PluginStatus
	return list, e.Get(ctx, "/davit/plugins", &list)
}

// Running are the driver plugins that have a process.
func (e *Engine) Running(ctx context.Context) ([]PluginStatus, error) {
	list, err := e.Plugins(ctx)
	return slices.DeleteFunc(list, func(p PluginStatus) bool { return p.PID == 0 }), err
}

// Get decodes the engine's answer to a GET.
func (e *Engine) Get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://davit"+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := e.HTTP().Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", path, resp.Status, body)
	}
	return json.Unmarshal(body, into)
}

// HTTP answers a client whose connections all go to the engine's socket.
func (e *Engine) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", e.Socket)
		},
	}}
}

// PID is the core's process.
func (e *Engine) PID() int { return e.cmd.Process.Pid }

// Kill sends SIGKILL to the core and waits for its end.
func (e *Engine) Kill() error {
	if e.cmd == nil {
		return nil
	}
	_ = e.cmd.Process.Kill()
	<-e.exited
	return nil
}

// Stop sends SIGTERM to the core and waits for its end.
func (e *Engine) Stop(ctx context.Context) error {
	if e.cmd == nil {
		return nil
	}
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.exited:
		return nil
	case <-ctx.Done():
		_ = e.Kill()
		return fmt.Errorf("davitd did not stop: %w", ctx.Err())
	}
}

// Close stops the core. RemoveHostState removes the rest.
func (e *Engine) Close(ctx context.Context) error {
	err := e.Stop(ctx)
	if e.logFile != nil {
		err = errors.Join(err, e.logFile.Close())
		e.logFile = nil
	}
	return err
}

// LogPath is where the core logs when Options.Output was nil.
func (e *Engine) LogPath() string { return filepath.Join(e.Dir, "davitd.log") }

// LogTail is the end of the core's log.
func (e *Engine) LogTail() string {
	b, err := os.ReadFile(e.LogPath())
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) > 60 {
		lines = lines[len(lines)-60:]
	}
	return strings.Join(lines, "\n")
}

// Command runs a client ("davit" from Bin, or any other found in PATH) against
// the engine.
func (e *Engine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if name == "davit" {
		name = filepath.Join(e.Bin, "davit")
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.Host, "DAVIT_HOST="+e.Host)
	return cmd
}
