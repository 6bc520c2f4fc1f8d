package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin/runner"
	"github.com/moby/sys/capability"

	sdk "github.com/davit-engine/davit/sdk/plugin"
)

// process is a plugin's process as go-plugin's runner. It differs from
// go-plugin's own in three things: its end is noticed although children of the
// plugin keep its pipes open, it can be killed at any time, also while go-plugin
// is still waiting for its first words, and it does not inherit what systemd
// gave the engine.
type process struct {
	path   string
	exe    *os.File // what is executed under that name; nil: the file of that name
	level  string   // least log level to send
	bounds []capability.Cap

	mu        sync.Mutex
	env       []string
	socketDir string
	proc      *os.Process // set by Start
	killed    bool        // kill was called; nothing may be started any more
	stdout    *os.File
	stderr    *os.File

	exited chan struct{} // closed when the process has been reaped
	status error         // how it ended; valid after exited
}

func newProcess(path, level string, bounds []capability.Cap) *process {
	return &process{path: path, level: level, bounds: bounds, exited: make(chan struct{})}
}

// runner is go-plugin's RunnerFunc; cmd carries the environment of its handshake.
func (p *process) runner(_ hclog.Logger, cmd *exec.Cmd, socketDir string) (runner.Runner, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.socketDir = socketDir
	for _, v := range os.Environ() {
		if !engineOnly(v) {
			p.env = append(p.env, v)
		}
	}
	p.env = append(p.env, cmd.Env...)
	p.env = append(p.env, sdk.EnvParent+"="+strconv.Itoa(os.Getpid()), sdk.EnvLogLevel+"="+p.level)
	return p, nil
}

// engineOnly says whether a variable is meant for the engine's process alone.
func engineOnly(v string) bool {
	for _, prefix := range []string{"NOTIFY_SOCKET=", "LISTEN_", "WATCHDOG_"} {
		if strings.HasPrefix(v, prefix) {
			return true
		}
	}
	return false
}

// Start implements runner.Runner.
func (p *process) Start(ctx context.Context) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed {
		return errors.New("stopped before it was started")
	}
	var ends []*os.File
	defer func() {
		for _, end := range ends {
			_ = end.Close()
		}
	}()
	stdout, stdoutW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making pipe: %w", err)
	}
	ends = append(ends, stdoutW)
	stderr, stderrW, err := os.Pipe()
	if err != nil {
		return errors.Join(fmt.Errorf("making pipe: %w", err), stdout.Close())
	}
	ends = append(ends, stderrW)

	// The context that go-plugin gives ends with the start.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.path)
	if p.exe != nil {
		// It is inherited, because the interpreter of a script opens it once more.
		cmd.Path, cmd.ExtraFiles = "/proc/self/fd/3", []*os.File{p.exe}
	}
	cmd.Env = p.env
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = stdoutW, stderrW
	// A session of its own: a signal to the engine's terminal is not the plugin's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := startBounded(cmd, p.bounds); err != nil {
		return errors.Join(fmt.Errorf("starting %s: %w", p.path, err), stdout.Close(), stderr.Close())
	}
	p.stdout, p.stderr, p.proc = stdout, stderr, cmd.Process
	go func() {
		p.status = cmd.Wait()
		// What the process wrote last is read; children that hold the pipes open
		// do not make the reader wait for them.
		deadline := time.Now().Add(50 * time.Millisecond)
		_ = stdout.SetReadDeadline(deadline)
		_ = stderr.SetReadDeadline(deadline)
		close(p.exited)
	}()
	return nil
}

// kill ends the process, or keeps it from being started. os.Process signals by
// pidfd, so a reused pid is never hit.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	if p.proc != nil {
		_ = p.proc.Kill() // the only error is that it has ended already
	}
}

// end kills the process, waits until it is gone and closes what belonged to it.
// A process that the kernel cannot end is left behind after a while: it must not
// hold up the engine. It answers whether no process is left.
func (p *process) end() bool {
	p.kill()
	gone := true
	if p.pid() != 0 {
		select {
		case <-p.exited:
		case <-time.After(5 * time.Second):
			gone = false
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.socketDir != "" {
		_ = os.RemoveAll(p.socketDir)
	}
	for _, pipe := range []*os.File{p.stdout, p.stderr} {
		if pipe != nil {
			_ = pipe.Close()
		}
	}
	return gone
}

func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proc == nil {
		return 0
	}
	return p.proc.Pid
}

// ended describes the end of the process, empty while it runs.
func (p *process) ended() string {
	select {
	case <-p.exited:
	default:
		return ""
	}
	if p.status == nil {
		return "the process exited"
	}
	return "the process ended: " + p.status.Error()
}

// Wait implements runner.Runner.
func (p *process) Wait(context.Context) error {
	<-p.exited
	return p.status
}

// Kill implements runner.Runner.
func (p *process) Kill(context.Context) error {
	p.kill()
	return nil
}

// ID implements runner.Runner; empty before Start.
func (p *process) ID() string {
	if pid := p.pid(); pid != 0 {
		return strconv.Itoa(pid)
	}
	return ""
}

// Stdout implements runner.Runner.
func (p *process) Stdout() io.ReadCloser { return p.stdout }

// Stderr implements runner.Runner.
func (p *process) Stderr() io.ReadCloser { return p.stderr }

// Name implements runner.Runner.
func (p *process) Name() string { return p.path }

// Diagnose implements runner.Runner; the host has its own diagnosis.
func (p *process) Diagnose(context.Context) string { return "" }

// PluginToHost implements runner.Runner: both see the same files.
func (p *process) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

// HostToPlugin implements runner.Runner.
func (p *process) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
