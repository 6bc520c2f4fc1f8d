package runtimegrpc

import (
	"math"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/davit-engine/davit/sdk/mount/mountgrpc"
	runtimev1 "github.com/davit-engine/davit/sdk/proto/davit/runtime/v1"
	"github.com/davit-engine/davit/sdk/runtime"
)

func timeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeFromProto(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// size narrows a terminal size; the kernel knows no larger ones.
func size(n uint32) uint16 { return uint16(min(n, math.MaxUint16)) }

func ioToProto(o runtime.IO) *runtimev1.IO {
	p := &runtimev1.IO{
		Terminal: o.Terminal, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, StdinOnce: o.StdinOnce,
		Width: uint32(o.Width), Height: uint32(o.Height),
	}
	if o.Log != nil {
		p.Log = &runtimev1.Log{Path: o.Log.Path, MaxSize: o.Log.MaxSize, MaxFile: int32(o.Log.MaxFile), Attributes: o.Log.Attributes, Compress: o.Log.Compress}
	}
	return p
}

func ioFromProto(p *runtimev1.IO) runtime.IO {
	o := runtime.IO{
		Terminal: p.GetTerminal(), Stdin: p.GetStdin(), Stdout: p.GetStdout(), Stderr: p.GetStderr(),
		StdinOnce: p.GetStdinOnce(), Width: size(p.GetWidth()), Height: size(p.GetHeight()),
	}
	if l := p.GetLog(); l != nil {
		o.Log = &runtime.Log{Path: l.GetPath(), MaxSize: l.GetMaxSize(), MaxFile: int(l.GetMaxFile()), Attributes: l.GetAttributes(), Compress: l.GetCompress()}
	}
	return o
}

func createToProto(c runtime.Create) *runtimev1.CreateRequest {
	return &runtimev1.CreateRequest{Id: c.ID, Spec: c.Spec, Rootfs: mountgrpc.AllToProto(c.Rootfs), Io: ioToProto(c.IO)}
}

func createFromProto(p *runtimev1.CreateRequest) runtime.Create {
	return runtime.Create{
		ID: p.GetId(), Spec: p.GetSpec(), Rootfs: mountgrpc.AllFromProto(p.GetRootfs()), IO: ioFromProto(p.GetIo()),
	}
}

func connectionsToProto(c runtime.Connections) *runtimev1.Connections {
	return &runtimev1.Connections{TcpEstablished: c.TCPEstablished, ExternalUnixSockets: c.ExternalUnixSockets, FileLocks: c.FileLocks}
}

func connectionsFromProto(p *runtimev1.Connections) runtime.Connections {
	return runtime.Connections{TCPEstablished: p.GetTcpEstablished(), ExternalUnixSockets: p.GetExternalUnixSockets(), FileLocks: p.GetFileLocks()}
}

func processToProto(p runtime.Process) *runtimev1.Process {
	return &runtimev1.Process{Pid: int32(p.PID), Socket: p.Socket}
}

func processFromProto(p *runtimev1.Process) runtime.Process {
	return runtime.Process{PID: int(p.GetPid()), Socket: p.GetSocket()}
}

func exitToProto(e *runtime.Exit) *runtimev1.Exit {
	if e == nil {
		return nil
	}
	return &runtimev1.Exit{Code: int32(e.Code), At: timeToProto(e.At), OomKilled: e.OOMKilled, Reason: e.Reason}
}

func exitFromProto(p *runtimev1.Exit) *runtime.Exit {
	if p == nil {
		return nil
	}
	return &runtime.Exit{Code: int(p.GetCode()), At: timeFromProto(p.GetAt()), OOMKilled: p.GetOomKilled(), Reason: p.GetReason()}
}

func statusToProto(s runtime.Status) runtimev1.Status {
	switch s {
	case runtime.StatusCreated:
		return runtimev1.Status_STATUS_CREATED
	case runtime.StatusRunning:
		return runtimev1.Status_STATUS_RUNNING
	case runtime.StatusPaused:
		return runtimev1.Status_STATUS_PAUSED
	case runtime.StatusExited:
		return runtimev1.Status_STATUS_EXITED
	case runtime.StatusGone:
		return runtimev1.Status_STATUS_GONE
	default:
		return runtimev1.Status_STATUS_UNKNOWN
	}
}

// statusFromProto reads what it does not know as unknown, never as gone.
func statusFromProto(s runtimev1.Status) runtime.Status {
	switch s {
	case runtimev1.Status_STATUS_CREATED:
		return runtime.StatusCreated
	case runtimev1.Status_STATUS_RUNNING:
		return runtime.StatusRunning
	case runtimev1.Status_STATUS_PAUSED:
		return runtime.StatusPaused
	case runtimev1.Status_STATUS_EXITED:
		return runtime.StatusExited
	case runtimev1.Status_STATUS_GONE:
		return runtime.StatusGone
	default:
		return runtime.StatusUnknown
	}
}

func stateToProto(s runtime.State) *runtimev1.State {
	return &runtimev1.State{
		Id: s.ID, Status: statusToProto(s.Status), Pid: int32(s.PID), Socket: s.Socket, Exit: exitToProto(s.Exit),
	}
}

func stateFromProto(p *runtimev1.State) runtime.State {
	return runtime.State{
		ID: p.GetId(), Status: statusFromProto(p.GetStatus()), PID: int(p.GetPid()),
		Socket: p.GetSocket(), Exit: exitFromProto(p.GetExit()),
	}
}

func eventToProto(e runtime.Event) *runtimev1.EventsResponse {
	return &runtimev1.EventsResponse{
		Id: e.ID, ExecId: e.ExecID, Type: e.Type, Exit: exitToProto(e.Exit), At: timeToProto(e.At),
	}
}

func eventFromProto(p *runtimev1.EventsResponse) runtime.Event {
	return runtime.Event{
		ID: p.GetId(), ExecID: p.GetExecId(), Type: p.GetType(),
		Exit: exitFromProto(p.GetExit()), At: timeFromProto(p.GetAt()),
	}
}

func statsToProto(s runtime.Stats) *runtimev1.StatsResponse {
	p := &runtimev1.StatsResponse{
		Read: timeToProto(s.Read),
		Cpu: &runtimev1.CPUStats{
			Total: s.CPU.Total, User: s.CPU.User, System: s.CPU.System, PerCpu: s.CPU.PerCPU,
			Periods: s.CPU.Periods, ThrottledPeriods: s.CPU.ThrottledPeriods, ThrottledTime: s.CPU.ThrottledTime,
		},
		Memory: &runtimev1.MemoryStats{
			Usage: s.Memory.Usage, MaxUsage: s.Memory.MaxUsage, Limit: s.Memory.Limit,
			Failures: s.Memory.Failures, Detail: s.Memory.Detail,
		},
		Pids:          &runtimev1.PidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit},
		CgroupVersion: int32(s.Version),
	}
	for _, b := range s.BlkIO {
		p.Blkio = append(p.Blkio, &runtimev1.BlkIOEntry{
			Major: b.Major, Minor: b.Minor, Op: b.Op, Bytes: b.Bytes, Ios: b.IOs,
		})
	}
	return p
}

func statsFromProto(p *runtimev1.StatsResponse) runtime.Stats {
	cpu, mem, pids := p.GetCpu(), p.GetMemory(), p.GetPids()
	s := runtime.Stats{
		Read: timeFromProto(p.GetRead()),
		CPU: runtime.CPUStats{
			Total: cpu.GetTotal(), User: cpu.GetUser(), System: cpu.GetSystem(), PerCPU: cpu.GetPerCpu(),
			Periods: cpu.GetPeriods(), ThrottledPeriods: cpu.GetThrottledPeriods(), ThrottledTime: cpu.GetThrottledTime(),
		},
		Memory: runtime.MemoryStats{
			Usage: mem.GetUsage(), MaxUsage: mem.GetMaxUsage(), Limit: mem.GetLimit(),
			Failures: mem.GetFailures(), Detail: mem.GetDetail(),
		},
		Pids:    runtime.PidsStats{Current: pids.GetCurrent(), Limit: pids.GetLimit()},
		Version: int(p.GetCgroupVersion()),
	}
	for _, b := range p.GetBlkio() {
		s.BlkIO = append(s.BlkIO, runtime.BlkIOEntry{
			Major: b.GetMajor(), Minor: b.GetMinor(), Op: b.GetOp(), Bytes: b.GetBytes(), IOs: b.GetIos(),
		})
	}
	return s
}
