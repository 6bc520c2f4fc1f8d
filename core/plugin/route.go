package plugin

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davit-engine/davit/sdk/errcode"
	runtimev1 "github.com/davit-engine/davit/sdk/proto/davit/runtime/v1"
)

// route is a connection to whatever process a plugin has at the time of a call.
// Calls wait while the plugin is restarted, and are repeated once if their
// connection broke: every RPC is idempotent by contract.
type route struct{ plugin *supervised }

var _ grpc.ClientConnInterface = route{}

// deathNotice is how long a call with a broken connection waits for the
// supervisor to find out; it watches the same connection.
const deathNotice = time.Second

// Invoke implements grpc.ClientConnInterface.
func (r route) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	// Wait lasts as long as its container, over any number of restarts and also
	// while the driver cannot work: it must not be taken for the container's end.
	endless := lasts(method)
	if !endless {
		var cancel context.CancelFunc
		ctx, cancel = r.bounded(ctx)
		defer cancel()
	}
	for repeated := false; ; repeated = true {
		inst, leave, err := r.plugin.enter(ctx, endless, method)
		if err != nil {
			return err
		}
		err = inst.conn.Invoke(ctx, method, args, reply, opts...)
		leave()
		if !inst.lost(ctx, err) {
			return err
		}
		if repeated && !endless {
			return r.plugin.died()
		}
	}
}

// NewStream implements grpc.ClientConnInterface. The contracts have streams from
// the plugin only; such a stream is opened anew if it breaks before its first
// message.
func (r route) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s := &stream{plugin: r.plugin}
	s.open = func() (err error) {
		waiting, cancel := r.bounded(ctx)
		defer cancel()
		var leave func()
		if s.inst, leave, err = r.plugin.enter(waiting, false, method); err != nil {
			return err
		}
		if s.ClientStream, err = s.inst.conn.NewStream(ctx, desc, method, opts...); err != nil {
			leave()
			return err
		}
		// A stream ends with its last message, or because nobody reads it any more.
		s.leave = sync.OnceFunc(leave)
		context.AfterFunc(s.Context(), s.leave)
		return nil
	}
	err := s.open()
	if err != nil && s.inst != nil && s.inst.lost(ctx, err) {
		s.fixed = true
		err = s.open()
	}
	if err != nil {
		return nil, err
	}
	s.fixed = s.fixed || desc.ClientStreams
	return s, nil
}

// lasts says whether a call lasts as long as a container or an engine. An upgrade
// does not wait for its end: it goes on with the next process.
func lasts(method string) bool {
	return method == runtimev1.Runtime_Wait_FullMethodName || method == runtimev1.Runtime_Events_FullMethodName
}

func (r route) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, r.plugin.options.CallTimeout)
}

// lost says whether a call failed because its instance has died.
func (i *instance) lost(ctx context.Context, err error) bool {
	if !errcode.Broken(err) {
		// Close cancels calls whose process was given up.
		select {
		case <-i.dead:
			return status.Code(err) == codes.Canceled && ctx.Err() == nil
		default:
			return false
		}
	}
	timer := time.NewTimer(deathNotice)
	defer timer.Stop()
	select {
	case <-i.dead:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// stream is a stream from the plugin. Like all of them it is used by one
// goroutine.
type stream struct {
	grpc.ClientStream
	plugin  *supervised
	open    func() error // opens it to the present process
	inst    *instance
	leave   func()
	request any
	fixed   bool // nothing may be repeated any more
}

// SendMsg implements grpc.ClientStream.
func (s *stream) SendMsg(m any) error {
	s.request = m
	return s.ClientStream.SendMsg(m)
}

// RecvMsg implements grpc.ClientStream.
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		s.leave()
	}
	lost := err != nil && s.inst.lost(s.Context(), err)
	if lost && s.fixed {
		return s.plugin.died()
	}
	if s.fixed = true; !lost {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	if err := s.ClientStream.SendMsg(s.request); err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if err = s.ClientStream.RecvMsg(m); err != nil {
		s.leave()
	}
	return err
}
