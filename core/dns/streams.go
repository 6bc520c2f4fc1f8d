package dns

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// connections over TCP that one container may have open; more wait.
	connections = 128
	// writeTimeout ends connections of programs that do not read their answers.
	writeTimeout = 2 * time.Second
)

// streams accepts so many connections at once, and closes them with its context.
type streams struct {
	net.Listener
	ctx  context.Context
	open chan struct{}
}

func (s *streams) Accept() (net.Conn, error) {
	select {
	case s.open <- struct{}{}:
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
	conn, err := s.Listener.Accept()
	if err != nil {
		<-s.open
		return nil, err
	}
	release := sync.OnceFunc(func() { <-s.open })
	unwatch := context.AfterFunc(s.ctx, func() { _ = conn.Close() })
	return &stream{conn, func() { unwatch(); release() }}, nil
}

type stream struct {
	net.Conn
	end func()
}

func (s *stream) Write(b []byte) (int, error) {
	if err := s.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return s.Conn.Write(b)
}

func (s *stream) Close() error {
	s.end()
	return s.Conn.Close()
}
