package errcode

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
)

// Conn makes every call over cc return decoded errors.
func Conn(cc grpc.ClientConnInterface) grpc.ClientConnInterface { return conn{cc} }

type conn struct{ cc grpc.ClientConnInterface }

func (c conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return Decode(c.cc.Invoke(ctx, method, args, reply, opts...))
}

func (c conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.cc.NewStream(ctx, desc, method, opts...)
	if err != nil {
		return nil, Decode(err)
	}
	return stream{s}, nil
}

type stream struct{ grpc.ClientStream }

func (s stream) SendMsg(m any) error { return decodeStream(s.ClientStream.SendMsg(m)) }
func (s stream) RecvMsg(m any) error { return decodeStream(s.ClientStream.RecvMsg(m)) }

// decodeStream leaves io.EOF alone: it is how a stream says that it ended well.
func decodeStream(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return Decode(err)
}

// UnaryServer is the interceptor that encodes what handlers return.
func UnaryServer(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, Encode(err)
}

// StreamServer is UnaryServer for streams.
func StreamServer(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return Encode(handler(srv, ss))
}
