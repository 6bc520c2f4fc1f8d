package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/davit-engine/davit/sdk/errcode"
	"github.com/davit-engine/davit/sdk/network/networkgrpc"
	pluginv1 "github.com/davit-engine/davit/sdk/proto/davit/plugin/v1"
	"github.com/davit-engine/davit/sdk/runtime/runtimegrpc"
	"github.com/davit-engine/davit/sdk/storage/storagegrpc"
	"github.com/davit-engine/davit/sdk/volume/volumegrpc"
)

// Serve runs the plugin until the engine ends it or dies. It does not return
// before that, and exits the process with a message if it was not the engine
// that started it.
func Serve(p Plugin) {
	handshake := Handshake()
	if os.Getenv(handshake.MagicCookieKey) != handshake.MagicCookieValue {
		fmt.Fprintf(os.Stderr, "%s %s is a driver plugin of davit and does nothing by itself.\n"+
			"Put it with its manifest into a plugin directory of davitd (default\n"+
			"/usr/local/lib/davit/plugins) and restart davitd, which starts it.\n", p.Name, p.Version)
		os.Exit(2)
	}

	// A line logged after the engine's death must not kill the process in the
	// middle of something. Notify, not Ignore: an ignored signal would stay
	// ignored in every process that the driver starts, containers included.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	log := hclog.New(&hclog.LoggerOptions{
		Level:      hclog.LevelFromString(os.Getenv(EnvLogLevel)),
		Output:     os.Stderr,
		JSONFormat: true,
	})
	if err := exitWithParent(log); err != nil {
		log.Error("watching the engine's process", "error", err)
		os.Exit(1)
	}

	s := &server{plugin: p, log: log}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: handshake,
		Plugins:         goplugin.PluginSet{"davit": &services{server: s}},
		GRPCServer:      s.newGRPC,
		// go-plugin's own lines are about its internals.
		Logger: log.With("component", "go-plugin").ResetNamed("go-plugin"),
	})
}

// exitWithParent ends the process when the engine has died, however it died.
func exitWithParent(log hclog.Logger) error {
	parent := os.Getppid()
	if v := os.Getenv(EnvParent); v != "" {
		pid, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("reading %s=%q: %w", EnvParent, v, err)
		}
		parent = pid
	}
	fd, err := unix.PidfdOpen(parent, 0)
	if errors.Is(err, unix.ESRCH) {
		os.Exit(0)
	}
	if err != nil {
		return fmt.Errorf("opening pidfd of process %d: %w", parent, err)
	}
	// The pid may have been reused before the pidfd was opened; our own parent
	// cannot have been, so it decides.
	if os.Getenv(EnvParent) != "" && os.Getppid() != parent {
		os.Exit(0)
	}
	go func() {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if n > 0 {
				os.Exit(0)
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				log.Error("waiting for the engine's end", "error", err)
				os.Exit(1)
			}
		}
	}()
	return nil
}

func (s *server) newGRPC(opts []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts,
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxSendMsgSize(MaxMessage),
		// The engine pings often; that must not count as abuse.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(errcode.UnaryServer, s.guardUnary),
		grpc.ChainStreamInterceptor(errcode.StreamServer, s.guardStream),
	)...)
}

// services registers everything a plugin serves on go-plugin's server.
type services struct {
	goplugin.NetRPCUnsupportedPlugin
	server *server
}

// GRPCServer implements go-plugin's GRPCPlugin.
func (s *services) GRPCServer(_ *goplugin.GRPCBroker, g *grpc.Server) error {
	s.server.register(g)
	return nil
}

// GRPCClient implements go-plugin's GRPCPlugin; a plugin is nobody's client.
func (s *services) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("a plugin does not call plugins")
}

func (s *server) register(g grpc.ServiceRegistrar) {
	pluginv1.RegisterIdentityServer(g, s)
	if s.plugin.Storage != nil {
		storagegrpc.Register(g, s.plugin.Storage)
	}
	if s.plugin.Network != nil {
		networkgrpc.Register(g, s.plugin.Network)
	}
	if s.plugin.Runtime != nil {
		runtimegrpc.Register(g, s.plugin.Runtime)
	}
	if s.plugin.Volume != nil {
		volumegrpc.Register(g, s.plugin.Volume)
	}
}
