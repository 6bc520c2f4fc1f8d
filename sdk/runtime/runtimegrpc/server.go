// Package runtimegrpc carries the runtime contract over gRPC, both ways.
package runtimegrpc

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	runtimev1 "github.com/davit-engine/davit/sdk/proto/davit/runtime/v1"
	"github.com/davit-engine/davit/sdk/runtime"
)

// Service is the full name of the service.
const Service = "davit.runtime.v1.Runtime"

// Register serves a driver.
func Register(s grpc.ServiceRegistrar, d runtime.Driver) {
	runtimev1.RegisterRuntimeServer(s, &server{driver: d})
}

type server struct {
	runtimev1.UnimplementedRuntimeServer
	driver runtime.Driver
}

func (s *server) Create(ctx context.Context, r *runtimev1.CreateRequest) (*runtimev1.CreateResponse, error) {
	p, err := s.driver.Create(ctx, createFromProto(r))
	if err != nil {
		return nil, err
	}
	return &runtimev1.CreateResponse{Process: processToProto(p)}, nil
}

func (s *server) checkpointer() (runtime.Checkpointer, error) {
	c, ok := s.driver.(runtime.Checkpointer)
	if !ok {
		return nil, fmt.Errorf("this runtime driver has no checkpoints: %w", errdefs.ErrNotImplemented)
	}
	return c, nil
}

func (s *server) Checkpoint(ctx context.Context, r *runtimev1.CheckpointRequest) (*runtimev1.CheckpointResponse, error) {
	c, err := s.checkpointer()
	if err != nil {
		return nil, err
	}
	err = c.Checkpoint(ctx, runtime.Checkpoint{
		ID: r.GetId(), Image: r.GetImage(), LeaveRunning: r.GetLeaveRunning(), Connections: connectionsFromProto(r.GetConnections()),
	})
	if err != nil {
		return nil, err
	}
	return &runtimev1.CheckpointResponse{}, nil
}

func (s *server) Restore(ctx context.Context, r *runtimev1.RestoreRequest) (*runtimev1.RestoreResponse, error) {
	c, err := s.checkpointer()
	if err != nil {
		return nil, err
	}
	p, err := c.Restore(ctx, runtime.Restore{
		Create: createFromProto(r.GetCreate()), Image: r.GetImage(), Connections: connectionsFromProto(r.GetConnections()),
	})
	if err != nil {
		return nil, err
	}
	return &runtimev1.RestoreResponse{Process: processToProto(p)}, nil
}

func (s *server) Start(ctx context.Context, r *runtimev1.StartRequest) (*runtimev1.StartResponse, error) {
	if err := s.driver.Start(ctx, r.GetId(), r.GetExecId()); err != nil {
		return nil, err
	}
	return &runtimev1.StartResponse{}, nil
}

func (s *server) Exec(ctx context.Context, r *runtimev1.ExecRequest) (*runtimev1.ExecResponse, error) {
	p, err := s.driver.Exec(ctx, runtime.Exec{
		ID: r.GetId(), ExecID: r.GetExecId(), Process: r.GetProcess(), IO: ioFromProto(r.GetIo()),
	})
	if err != nil {
		return nil, err
	}
	return &runtimev1.ExecResponse{Process: processToProto(p)}, nil
}

func (s *server) Signal(ctx context.Context, r *runtimev1.SignalRequest) (*runtimev1.SignalResponse, error) {
	if err := s.driver.Signal(ctx, r.GetId(), r.GetExecId(), int(r.GetSignal()), r.GetAll()); err != nil {
		return nil, err
	}
	return &runtimev1.SignalResponse{}, nil
}

func (s *server) Wait(ctx context.Context, r *runtimev1.WaitRequest) (*runtimev1.WaitResponse, error) {
	exit, err := s.driver.Wait(ctx, r.GetId(), r.GetExecId())
	if err != nil {
		return nil, err
	}
	return &runtimev1.WaitResponse{Exit: exitToProto(&exit)}, nil
}

func (s *server) Resize(ctx context.Context, r *runtimev1.ResizeRequest) (*runtimev1.ResizeResponse, error) {
	if err := s.driver.Resize(ctx, r.GetId(), r.GetExecId(), size(r.GetWidth()), size(r.GetHeight())); err != nil {
		return nil, err
	}
	return &runtimev1.ResizeResponse{}, nil
}

func (s *server) CloseStdin(ctx context.Context, r *runtimev1.CloseStdinRequest) (*runtimev1.CloseStdinResponse, error) {
	if err := s.driver.CloseStdin(ctx, r.GetId(), r.GetExecId()); err != nil {
		return nil, err
	}
	return &runtimev1.CloseStdinResponse{}, nil
}

func (s *server) Pause(ctx context.Context, r *runtimev1.PauseRequest) (*runtimev1.PauseResponse, error) {
	if err := s.driver.Pause(ctx, r.GetId()); err != nil {
		return nil, err
	}
	return &runtimev1.PauseResponse{}, nil
}

func (s *server) Resume(ctx context.Context, r *runtimev1.ResumeRequest) (*runtimev1.ResumeResponse, error) {
	if err := s.driver.Resume(ctx, r.GetId()); err != nil {
		return nil, err
	}
	return &runtimev1.ResumeResponse{}, nil
}

func (s *server) Update(ctx context.Context, r *runtimev1.UpdateRequest) (*runtimev1.UpdateResponse, error) {
	if err := s.driver.Update(ctx, r.GetId(), r.GetResources()); err != nil {
		return nil, err
	}
	return &runtimev1.UpdateResponse{}, nil
}

func (s *server) Stats(ctx context.Context, r *runtimev1.StatsRequest) (*runtimev1.StatsResponse, error) {
	stats, err := s.driver.Stats(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return statsToProto(stats), nil
}

func (s *server) Processes(ctx context.Context, r *runtimev1.ProcessesRequest) (*runtimev1.ProcessesResponse, error) {
	pids, err := s.driver.Processes(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	out := &runtimev1.ProcessesResponse{Pids: make([]int32, len(pids))}
	for i, pid := range pids {
		out.Pids[i] = int32(pid)
	}
	return out, nil
}

func (s *server) Delete(ctx context.Context, r *runtimev1.DeleteRequest) (*runtimev1.DeleteResponse, error) {
	exit, err := s.driver.Delete(ctx, r.GetId(), r.GetExecId(), r.GetForce())
	if err != nil {
		return nil, err
	}
	return &runtimev1.DeleteResponse{Exit: exitToProto(exit)}, nil
}

func (s *server) List(_ *runtimev1.ListRequest, out grpc.ServerStreamingServer[runtimev1.ListResponse]) error {
	states, err := s.driver.List(out.Context())
	if err != nil {
		return err
	}
	for _, state := range states {
		if err := out.Send(&runtimev1.ListResponse{State: stateToProto(state)}); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) Adopt(ctx context.Context, r *runtimev1.AdoptRequest) (*runtimev1.AdoptResponse, error) {
	state, err := s.driver.Adopt(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return &runtimev1.AdoptResponse{State: stateToProto(state)}, nil
}

func (s *server) Events(_ *runtimev1.EventsRequest, out grpc.ServerStreamingServer[runtimev1.EventsResponse]) error {
	return s.driver.Events(out.Context(), func(e runtime.Event) error {
		return out.Send(eventToProto(e))
	})
}
