package runtimegrpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/davit-engine/davit/sdk/errcode"
	runtimev1 "github.com/davit-engine/davit/sdk/proto/davit/runtime/v1"
	"github.com/davit-engine/davit/sdk/runtime"
)

// Client is a runtime driver at the other end of a connection. It is always a
// [runtime.Checkpointer], whose methods are ErrNotImplemented where the driver is
// none.
type Client struct{ rpc runtimev1.RuntimeClient }

var (
	_ runtime.Driver       = (*Client)(nil)
	_ runtime.Checkpointer = (*Client)(nil)
)

// NewClient answers the driver served over cc.
func NewClient(cc grpc.ClientConnInterface) *Client {
	return &Client{rpc: runtimev1.NewRuntimeClient(errcode.Conn(cc))}
}

// Create implements [runtime.Driver].
func (c *Client) Create(ctx context.Context, r runtime.Create) (runtime.Process, error) {
	resp, err := c.rpc.Create(ctx, createToProto(r))
	return processFromProto(resp.GetProcess()), err
}

// Checkpoint implements [runtime.Checkpointer].
func (c *Client) Checkpoint(ctx context.Context, r runtime.Checkpoint) error {
	_, err := c.rpc.Checkpoint(ctx, &runtimev1.CheckpointRequest{
		Id: r.ID, Image: r.Image, LeaveRunning: r.LeaveRunning, Connections: connectionsToProto(r.Connections),
	})
	return err
}

// Restore implements [runtime.Checkpointer].
func (c *Client) Restore(ctx context.Context, r runtime.Restore) (runtime.Process, error) {
	resp, err := c.rpc.Restore(ctx, &runtimev1.RestoreRequest{
		Create: createToProto(r.Create), Image: r.Image, Connections: connectionsToProto(r.Connections),
	})
	return processFromProto(resp.GetProcess()), err
}

// Start implements [runtime.Driver].
func (c *Client) Start(ctx context.Context, id, execID string) error {
	_, err := c.rpc.Start(ctx, &runtimev1.StartRequest{Id: id, ExecId: execID})
	return err
}

// Exec implements [runtime.Driver].
func (c *Client) Exec(ctx context.Context, r runtime.Exec) (runtime.Process, error) {
	resp, err := c.rpc.Exec(ctx, &runtimev1.ExecRequest{
		Id: r.ID, ExecId: r.ExecID, Process: r.Process, Io: ioToProto(r.IO),
	})
	return processFromProto(resp.GetProcess()), err
}

// Signal implements [runtime.Driver].
func (c *Client) Signal(ctx context.Context, id, execID string, signal int, all bool) error {
	_, err := c.rpc.Signal(ctx, &runtimev1.SignalRequest{Id: id, ExecId: execID, Signal: int32(signal), All: all})
	return err
}

// Wait implements [runtime.Driver].
func (c *Client) Wait(ctx context.Context, id, execID string) (runtime.Exit, error) {
	r, err := c.rpc.Wait(ctx, &runtimev1.WaitRequest{Id: id, ExecId: execID})
	if err != nil {
		return runtime.Exit{}, err
	}
	if exit := exitFromProto(r.GetExit()); exit != nil {
		return *exit, nil
	}
	return runtime.Exit{}, nil
}

// Resize implements [runtime.Driver].
func (c *Client) Resize(ctx context.Context, id, execID string, width, height uint16) error {
	_, err := c.rpc.Resize(ctx, &runtimev1.ResizeRequest{
		Id: id, ExecId: execID, Width: uint32(width), Height: uint32(height),
	})
	return err
}

// CloseStdin implements [runtime.Driver].
func (c *Client) CloseStdin(ctx context.Context, id, execID string) error {
	_, err := c.rpc.CloseStdin(ctx, &runtimev1.CloseStdinRequest{Id: id, ExecId: execID})
	return err
}

// Pause implements [runtime.Driver].
func (c *Client) Pause(ctx context.Context, id string) error {
	_, err := c.rpc.Pause(ctx, &runtimev1.PauseRequest{Id: id})
	return err
}

// Resume implements [runtime.Driver].
func (c *Client) Resume(ctx context.Context, id string) error {
	_, err := c.rpc.Resume(ctx, &runtimev1.ResumeRequest{Id: id})
	return err
}

// Update implements [runtime.Driver].
func (c *Client) Update(ctx context.Context, id string, resources json.RawMessage) error {
	_, err := c.rpc.Update(ctx, &runtimev1.UpdateRequest{Id: id, Resources: resources})
	return err
}

// Stats implements [runtime.Driver].
func (c *Client) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	r, err := c.rpc.Stats(ctx, &runtimev1.StatsRequest{Id: id})
	if err != nil {
		return runtime.Stats{}, err
	}
	return statsFromProto(r), nil
}

// Processes implements [runtime.Driver].
func (c *Client) Processes(ctx context.Context, id string) ([]int, error) {
	r, err := c.rpc.Processes(ctx, &runtimev1.ProcessesRequest{Id: id})
	if err != nil {
		return nil, err
	}
	pids := make([]int, len(r.GetPids()))
	for i, pid := range r.GetPids() {
		pids[i] = int(pid)
	}
	return pids, nil
}

// Delete implements [runtime.Driver].
func (c *Client) Delete(ctx context.Context, id, execID string, force bool) (*runtime.Exit, error) {
	r, err := c.rpc.Delete(ctx, &runtimev1.DeleteRequest{Id: id, ExecId: execID, Force: force})
	return exitFromProto(r.GetExit()), err
}

// List implements [runtime.Driver].
func (c *Client) List(ctx context.Context) ([]runtime.State, error) {
	in, err := c.rpc.List(ctx, &runtimev1.ListRequest{})
	if err != nil {
		return nil, err
	}
	var out []runtime.State
	for {
		r, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, stateFromProto(r.GetState()))
	}
}

// Adopt implements [runtime.Driver].
func (c *Client) Adopt(ctx context.Context, id string) (runtime.State, error) {
	r, err := c.rpc.Adopt(ctx, &runtimev1.AdoptRequest{Id: id})
	if err != nil {
		return runtime.State{}, err
	}
	return stateFromProto(r.GetState()), nil
}

// Events implements [runtime.Driver]. It returns nil if the driver ends the
// stream and ErrUnavailable if the driver dies; the caller asks again.
func (c *Client) Events(ctx context.Context, fn func(runtime.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := c.rpc.Events(ctx, &runtimev1.EventsRequest{})
	if err != nil {
		return err
	}
	for {
		r, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(eventFromProto(r)); err != nil {
			return err
		}
	}
}
