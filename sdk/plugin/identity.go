package plugin

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/davit-engine/davit/sdk/footprint"
	"github.com/davit-engine/davit/sdk/network/networkgrpc"
	pluginv1 "github.com/davit-engine/davit/sdk/proto/davit/plugin/v1"
	"github.com/davit-engine/davit/sdk/runtime/runtimegrpc"
	"github.com/davit-engine/davit/sdk/storage/storagegrpc"
	"github.com/davit-engine/davit/sdk/volume/volumegrpc"
)

// settled is how long after its configuration a plugin has finished starting.
const settled = 2 * time.Second

// server serves davit.plugin.v1.Identity and guards the drivers.
type server struct {
	pluginv1.UnimplementedIdentityServer
	plugin Plugin
	log    hclog.Logger

	mu         sync.RWMutex // held while Configure runs, so that drivers never see half of it
	configured bool
}

// Info implements the Identity service.
func (s *server) Info(context.Context, *pluginv1.InfoRequest) (*pluginv1.InfoResponse, error) {
	r := &pluginv1.InfoResponse{Name: s.plugin.Name, Version: s.plugin.Version}
	add := func(service string, served bool, features ...string) {
		if served {
			r.Services = append(r.Services, &pluginv1.Service{Name: service, Features: slices.Concat(s.plugin.Features, features)})
		}
	}
	add(storagegrpc.Service, s.plugin.Storage != nil)
	add(networkgrpc.Service, s.plugin.Network != nil)
	add(runtimegrpc.Service, s.plugin.Runtime != nil)
	add(volumegrpc.Service, s.plugin.Volume != nil, volumegrpc.Features(s.plugin.Volume)...)
	return r, nil
}

// Configure implements the Identity service.
func (s *server) Configure(ctx context.Context, r *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.configured {
		return &pluginv1.ConfigureResponse{}, nil
	}
	if s.plugin.Configure != nil {
		err := s.plugin.Configure(ctx, Setup{
			EngineID: r.GetEngineId(),
			Root:     r.GetRoot(),
			Run:      r.GetRun(),
			Config:   configMap(r.GetConfig().AsMap()),
			Logger:   s.log,
		})
		if err != nil {
			return nil, err
		}
	}
	s.configured = true
	// Idle drivers are small; the engine's first calls come before that.
	time.AfterFunc(settled, func() {
		if err := footprint.Shrink(); err != nil {
			s.log.Debug("giving back memory of the start", "error", err)
		}
	})
	return &pluginv1.ConfigureResponse{}, nil
}

// Health implements the Identity service.
func (s *server) Health(ctx context.Context, _ *pluginv1.HealthRequest) (*pluginv1.HealthResponse, error) {
	if s.plugin.Health == nil {
		return &pluginv1.HealthResponse{Healthy: true}, nil
	}
	r := &pluginv1.HealthResponse{Healthy: true}
	if err := s.plugin.Health(ctx); err != nil {
		r.Healthy, r.Reason = false, err.Error()
	}
	return r, nil
}

// Shutdown implements the Identity service.
func (s *server) Shutdown(ctx context.Context, _ *pluginv1.ShutdownRequest) (*pluginv1.ShutdownResponse, error) {
	if s.plugin.Shutdown != nil {
		if err := s.plugin.Shutdown(ctx); err != nil {
			return nil, err
		}
	}
	return &pluginv1.ShutdownResponse{}, nil
}

// configMap gives the numbers and lists of a JSON-like map the types that
// Setup.Config promises.
func configMap(in map[string]any) map[string]any {
	out := make(map[string]any, len(in))
	for key, value := range in {
		out[key] = configValue(value)
	}
	return out
}

func configValue(value any) any {
	switch v := value.(type) {
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<63 {
			return int64(v)
		}
	case []any:
		list := make([]string, 0, len(v))
		for _, element := range v {
			text, ok := element.(string)
			if !ok {
				return value
			}
			list = append(list, text)
		}
		return list
	}
	return value
}

func (s *server) guardUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	if err := s.allow(info.FullMethod); err != nil {
		return nil, err
	}
	defer s.recovered(info.FullMethod, &err)
	return handler(ctx, req)
}

func (s *server) guardStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	if err := s.allow(info.FullMethod); err != nil {
		return err
	}
	defer s.recovered(info.FullMethod, &err)
	return handler(srv, ss)
}

// allow keeps drivers from being called before they know where they work.
// Services that are not davit's drivers pass.
func (s *server) allow(method string) error {
	if !strings.HasPrefix(method, "/davit.") || strings.HasPrefix(method, "/davit.plugin.") {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.configured {
		return fmt.Errorf("calling %s before Configure: %w", method, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// recovered turns a panic of one call into the error of that call: the others,
// and the process, are not to blame.
func (s *server) recovered(method string, err *error) {
	if cause := recover(); cause != nil {
		s.log.Error("panic in a driver", "method", method, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
		*err = fmt.Errorf("%s of plugin %s panicked: %v: %w", method, s.plugin.Name, cause, errdefs.ErrInternal)
	}
}
