package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/davit-engine/davit/sdk/errcode"
	sdk "github.com/davit-engine/davit/sdk/plugin"
	pluginv1 "github.com/davit-engine/davit/sdk/proto/davit/plugin/v1"
)

// permanent marks errors that trying again does not mend: the files or the
// configuration have to change first.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// instance is one life of a plugin: a process and its connection.
type instance struct {
	manifest Manifest
	sum      string   // digest of the executable, hex
	exe      *os.File // the executable as it was, whatever has its name now
	proc     *process
	client   *goplugin.Client
	conn     *grpc.ClientConn
	version  string
	features []string
	setup    *pluginv1.ConfigureRequest
	timeout  time.Duration // for start and for configuration
	out      *lines
	dead     chan struct{} // closed by the supervisor when it has given it up

	// Guarded by the supervisor's mutex.
	calls   int           // under way, but those that last
	drained chan struct{} // no more calls may begin; closed when none is under way
}

// launch starts a process of a plugin and answers it configured.
func launch(ctx context.Context, f found, m Manifest, sum string, o Options) (*instance, error) {
	inst, err := prepare(ctx, f, m, sum, nil, o)
	if err != nil {
		return nil, err
	}
	return inst, inst.configure(ctx)
}

// prepare starts a process of a plugin and asks what it is. It is to be configured
// before it may do anything. If exe is not nil that is executed, under the
// plugin's name, and is the instance's if there is one.
func prepare(ctx context.Context, f found, m Manifest, sum string, exe *os.File, o Options) (_ *instance, err error) {
	config, err := m.Settings(o.Config[m.Name])
	if err != nil {
		return nil, permanent{err}
	}
	settings, err := structpb.NewStruct(config)
	if err != nil {
		return nil, permanent{fmt.Errorf("encoding configuration of %s: %w", m.Name, err)}
	}
	inst := &instance{manifest: m, sum: sum, exe: exe, timeout: o.StartTimeout, out: &lines{log: o.Logger.With("plugin", m.Name)}, dead: make(chan struct{})}
	inst.setup = &pluginv1.ConfigureRequest{
		EngineId: o.EngineID,
		Root:     filepath.Join(o.Root, "drivers", m.Name),
		Run:      filepath.Join(o.Run, "drivers", m.Name),
		Config:   settings,
	}
	for _, dir := range []string{inst.setup.GetRoot(), inst.setup.GetRun()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("making directory of %s: %w", m.Name, err)
		}
	}
	inst.proc = newProcess(f.path, leastLevel(ctx, o.Logger), m.bounds)
	if exe != nil {
		inst.proc.exe = exe
	} else if inst.exe, err = os.Open(f.path); err != nil {
		return nil, fmt.Errorf("reading plugin: %w", err)
	}
	return inst, inst.attempt(ctx, func(ctx context.Context) error { return inst.start(ctx, o) })
}

// configure tells the plugin where it works; then it serves.
func (i *instance) configure(ctx context.Context) error {
	return i.attempt(ctx, func(ctx context.Context) error {
		if _, err := pluginv1.NewIdentityClient(errcode.Conn(i.conn)).Configure(ctx, i.setup); err != nil {
			err = fmt.Errorf("configuring %s: %w", i.manifest.Name, err)
			if errdefs.IsInvalidArgument(err) {
				return permanent{err}
			}
			return err
		}
		return nil
	})
}

// attempt does something that ends with the process if it fails or takes too long.
func (i *instance) attempt(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	// go-plugin cannot be interrupted while it waits for a process; the process's
	// end interrupts it.
	stop := context.AfterFunc(ctx, i.proc.kill)
	err := do(ctx)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	i.end()
	var final permanent
	switch {
	case errors.As(err, &final):
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("%s was not ready within %s and was killed", i.proc.path, i.timeout)
	case ctx.Err() == nil:
		err = fmt.Errorf("starting %s: %w", i.proc.path, err)
	}
	if last := i.out.last(); last != "" {
		err = fmt.Errorf("%w (it said: %s)", err, last)
	}
	return err
}

func (i *instance) start(ctx context.Context, o Options) error {
	i.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  sdk.Handshake(),
		Plugins:          goplugin.PluginSet{"davit": &goplugin.NetRPCUnsupportedPlugin{}},
		RunnerFunc:       i.proc.runner,
		SkipHostEnv:      true, // the runner passes on what is fit for plugins
		StartTimeout:     2 * o.StartTimeout,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         o.AutoMTLS,
		Logger:           hclog.NewNullLogger(), // go-plugin's own lines; the plugin's come by Stderr
		Stderr:           i.out,
		SyncStdout:       i.out,
		SyncStderr:       i.out,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: filepath.Join(o.Run, "plugins")},
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(sdk.MaxMessage), grpc.MaxCallSendMsgSize(sdk.MaxMessage)),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{
				Time: o.Keepalive, Timeout: o.KeepaliveTimeout, PermitWithoutStream: true,
			}),
			// A connection that goes idle would look like one that was lost.
			grpc.WithIdleTimeout(0),
		},
	})
	if _, err := i.client.Start(); err != nil {
		if version, ok := otherVersion(err); ok {
			return permanent{fmt.Errorf("plugin %s speaks protocol version %s, this engine version %d: install the plugin made for this engine: %w",
				i.manifest.Name, version, sdk.ProtocolVersion, errdefs.ErrInvalidArgument)}
		}
		// A process that closes its output before it has said anything is about to
		// end; how it ends tells more than go-plugin's error.
		select {
		case <-i.proc.exited:
			return errors.New(i.proc.ended())
		case <-time.After(100 * time.Millisecond):
			return err
		}
	}
	rpc, err := i.client.Client()
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	grpcClient, ok := rpc.(*goplugin.GRPCClient)
	if !ok {
		return permanent{fmt.Errorf("plugin %s does not speak gRPC: %w", i.manifest.Name, errdefs.ErrInvalidArgument)}
	}
	i.conn = grpcClient.Conn
	return i.introduce(ctx)
}

// introduce asks the plugin who it is.
func (i *instance) introduce(ctx context.Context) error {
	m := i.manifest
	identity := pluginv1.NewIdentityClient(errcode.Conn(i.conn))
	info, err := identity.Info(ctx, &pluginv1.InfoRequest{})
	if err != nil {
		return fmt.Errorf("asking what it serves: %w", err)
	}
	i.version = info.GetVersion()
	served := false
	var services []string
	for _, s := range info.GetServices() {
		services = append(services, s.GetName())
		if s.GetName() == kinds()[m.Kind] {
			served = true
			i.features = slices.Clone(s.GetFeatures())
		}
	}
	if !served {
		return permanent{fmt.Errorf("plugin %s is declared as a %s driver and serves %v instead: %w",
			m.Name, m.Kind, services, errdefs.ErrInvalidArgument)}
	}
	return nil
}

// otherVersion reads the plugin's version out of go-plugin's error, which has no
// type of its own.
func otherVersion(err error) (string, bool) {
	if !strings.Contains(err.Error(), "incompatible API version") {
		return "", false
	}
	_, rest, ok := strings.Cut(err.Error(), "Plugin version: ")
	version, _, _ := strings.Cut(rest, ",")
	return version, ok
}

// levelTrace is where hclog has its level for steps within steps.
const levelTrace = slog.LevelDebug - 4

// leastLevel is what a plugin need not send lines below of.
func leastLevel(ctx context.Context, log *slog.Logger) string {
	for _, l := range []struct {
		level slog.Level
		name  string
	}{{levelTrace, "trace"}, {slog.LevelDebug, "debug"}, {slog.LevelInfo, "info"}, {slog.LevelWarn, "warn"}} {
		if log.Enabled(ctx, l.level) {
			return l.name
		}
	}
	return "error"
}

// watch returns when the instance cannot serve any more, with the reason, or
// with nil when ctx has ended; or when something else is wanted of it.
func (i *instance) watch(ctx context.Context, requests <-chan *upgradeRequest) (*upgradeRequest, error) {
	watching, cancel := context.WithCancel(ctx)
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		// The connection never leaves Ready on its own account. Keepalive makes
		// sure that a stopped process is noticed here.
		if i.conn.GetState() == connectivity.Ready {
			i.conn.WaitForStateChange(watching, connectivity.Ready)
		}
	}()
	defer func() { cancel(); <-lost }()
	select {
	case request := <-requests:
		return request, nil
	case <-i.proc.exited:
	case <-lost:
		if ctx.Err() != nil {
			return nil, nil
		}
		// A dying process loses its connection first.
		select {
		case <-i.proc.exited:
		case <-time.After(50 * time.Millisecond):
			return nil, fmt.Errorf("process %d did not answer and was killed", i.proc.pid())
		}
	case <-ctx.Done():
		return nil, nil
	}
	return nil, errors.New(i.proc.ended())
}

// stop ends the instance in good order: what it is doing may be finished, though
// ctx has ended.
func (i *instance) stop(ctx context.Context) {
	timer := time.AfterFunc(3*time.Second, i.proc.kill)
	defer timer.Stop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	// Whatever it answers, it is ended next.
	_, _ = pluginv1.NewIdentityClient(i.conn).Shutdown(ctx, &pluginv1.ShutdownRequest{})
	i.client.Kill()
	i.end()
}

// end kills the instance's process and frees everything of it.
func (i *instance) end() {
	if i.conn != nil {
		_ = i.conn.Close() // open calls fail, which is meant
	}
	if gone := i.proc.end(); gone && i.client != nil {
		i.client.Kill() // only collects its goroutines now
	}
	_ = i.exe.Close()
}
