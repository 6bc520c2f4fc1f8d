package conformance

import (
	"bufio"
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

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/davit-engine/davit/sdk/errcode"
	"github.com/davit-engine/davit/sdk/plugin"
	pluginv1 "github.com/davit-engine/davit/sdk/proto/davit/plugin/v1"
)

// startTimeout is how long a plugin may take from its launch until it is
// configured. The engine has more patience, for machines that are busy.
const startTimeout = 10 * time.Second

// plug is one life of a plugin.
type plug struct {
	proc     *os.Process
	conn     *grpc.ClientConn
	info     *pluginv1.InfoResponse
	features []string // of the service it is judged for

	said    *tail
	exited  chan struct{}
	readers sync.WaitGroup
	pipes   []*os.File
	sockets string
}

// service is the full name of a kind's service.
func (k Kind) service() string {
	return fmt.Sprintf("davit.%s.v1.%s%s", k, strings.ToUpper(string(k[:1])), k[1:])
}

// Start starts a plugin that works in the directories root and run and answers the
// connection to it. The function ends its process.
func Start(ctx context.Context, o Options, root, run string) (grpc.ClientConnInterface, func(), error) {
	p, err := launch(ctx, o, root, run)
	if err != nil {
		return nil, nil, err
	}
	return p.conn, func() { p.stop(context.WithoutCancel(ctx)) }, nil
}

// launch starts a plugin, shakes hands with it and configures it. It does by the
// letter of plugin.proto what the engine leaves to go-plugin.
func launch(ctx context.Context, o Options, root, run string) (p *plug, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p, line, err := spawn(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.kill()
			if last := p.said.last(); last != "" {
				err = fmt.Errorf("%w (it said: %s)", err, last)
			}
		}
	}()
	address, err := parseHandshake(line)
	if err != nil {
		return nil, err
	}
	p.conn, err = grpc.NewClient("unix://"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(plugin.MaxMessage), grpc.MaxCallSendMsgSize(plugin.MaxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
		grpc.WithIdleTimeout(0))
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", address, err)
	}
	identity := pluginv1.NewIdentityClient(errcode.Conn(p.conn))
	if p.info, err = identity.Info(ctx, &pluginv1.InfoRequest{}); err != nil {
		return nil, fmt.Errorf("asking what it serves: %w", err)
	}
	served := false
	for _, s := range p.info.GetServices() {
		if s.GetName() == o.Kind.service() {
			served, p.features = true, s.GetFeatures()
		}
	}
	if !served {
		return nil, fmt.Errorf("it serves %v, and not %s", p.info.GetServices(), o.Kind.service())
	}
	settings, err := structpb.NewStruct(o.Config)
	if err != nil {
		return nil, fmt.Errorf("encoding its configuration: %w", err)
	}
	_, err = identity.Configure(ctx, &pluginv1.ConfigureRequest{EngineId: "kit", Root: root, Run: run, Config: settings})
	if err != nil {
		return nil, fmt.Errorf("configuring it: %w", err)
	}
	return p, nil
}

// environment is what the engine gives a plugin whose parent is pid.
func environment(sockets string, pid int) []string {
	h := plugin.Handshake()
	return append(os.Environ(),
		h.MagicCookieKey+"="+h.MagicCookieValue,
		"PLUGIN_PROTOCOL_VERSIONS="+strconv.Itoa(plugin.ProtocolVersion),
		"PLUGIN_UNIX_SOCKET_DIR="+sockets,
		plugin.EnvParent+"="+strconv.Itoa(pid),
		plugin.EnvLogLevel+"=info")
}

// spawn starts a plugin's process and answers the first line that it prints.
func spawn(ctx context.Context, o Options) (*plug, string, error) {
	sockets, err := os.MkdirTemp("", "davit-kit") // a socket's path is short
	if err != nil {
		return nil, "", err
	}
	p := &plug{exited: make(chan struct{}), sockets: sockets, said: &tail{log: o.Log}}
	stdout, stdoutW, err := os.Pipe()
	if err != nil {
		return nil, "", errors.Join(err, os.RemoveAll(sockets))
	}
	stderr, stderrW, err := os.Pipe()
	if err != nil {
		return nil, "", errors.Join(err, stdout.Close(), stdoutW.Close(), os.RemoveAll(sockets))
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), o.Path)
	cmd.Env, cmd.Dir = environment(sockets, os.Getpid()), "/"
	cmd.Stdout, cmd.Stderr = stdoutW, stderrW
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	start := cmd.Start
	if o.host != nil {
		start = func() error { return o.host.Do(cmd.Start) }
	}
	err = errors.Join(start(), stdoutW.Close(), stderrW.Close())
	if err != nil {
		return nil, "", errors.Join(err, stdout.Close(), stderr.Close(), os.RemoveAll(sockets))
	}
	p.proc, p.pipes = cmd.Process, []*os.File{stdout, stderr}
	first := make(chan string, 1)
	p.readers.Go(func() { p.said.read(stderr) })
	p.readers.Go(func() {
		in := bufio.NewReader(stdout)
		line, _ := in.ReadString('\n')
		first <- strings.TrimSuffix(line, "\n")
		_, _ = io.Copy(io.Discard, in)
	})
	p.readers.Go(func() {
		_ = cmd.Wait()
		// Children that keep the pipes open are not waited for.
		for _, pipe := range p.pipes {
			_ = pipe.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		}
		close(p.exited)
	})
	select {
	case line := <-first:
		if line != "" {
			return p, line, nil
		}
		err = errors.New("it ended without a line on standard output")
	case <-ctx.Done():
		err = fmt.Errorf("it printed no line within %s", startTimeout)
	}
	p.kill()
	if last := p.said.last(); last != "" {
		err = fmt.Errorf("%w (it said: %s)", err, last)
	}
	return nil, "", err
}

// parseHandshake answers the socket in the line that a plugin prints first.
func parseHandshake(line string) (string, error) {
	fields := strings.Split(strings.TrimSpace(line), "|")
	version := strconv.Itoa(plugin.ProtocolVersion)
	if len(fields) < 5 || fields[0] != "1" || fields[1] != version || fields[2] != "unix" || fields[3] == "" || fields[4] != "grpc" {
		return "", fmt.Errorf("its first line is %q, and should be 1|%s|unix|<socket path>|grpc|", line, version)
	}
	return fields[3], nil
}

func (p *plug) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// wait says whether the process ends within a time.
func (p *plug) wait(limit time.Duration) bool {
	select {
	case <-p.exited:
		return true
	case <-time.After(limit):
		return false
	}
}

// kill ends the process with SIGKILL, also a stopped one, and frees what was for it.
func (p *plug) kill() {
	_ = p.proc.Kill() // the only error is that it has ended
	<-p.exited
	p.readers.Wait()
	if p.conn != nil {
		_ = p.conn.Close()
	}
	for _, pipe := range p.pipes {
		_ = pipe.Close()
	}
	_ = os.RemoveAll(p.sockets)
}

// stop ends the process as the engine does, and says whether it did not have to be
// killed.
func (p *plug) stop(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, _ = pluginv1.NewIdentityClient(p.conn).Shutdown(ctx, &pluginv1.ShutdownRequest{})
	// The answer may be lost with the process.
	_ = p.conn.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	ended := p.wait(3 * time.Second)
	p.kill()
	return ended
}

// tail passes on what a plugin logs and remembers the last line.
type tail struct {
	log  func(string)
	mu   sync.Mutex
	line string
}

func (t *tail) read(from io.Reader) {
	in := bufio.NewReader(from)
	for {
		line, err := in.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" {
			t.mu.Lock()
			t.line = line
			t.mu.Unlock()
			if t.log != nil {
				t.log(line)
			}
		}
		if err != nil {
			return
		}
	}
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.line
}
