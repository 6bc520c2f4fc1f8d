package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Place is where sockets are opened: a [Host] or a [Namespace].
type Place interface {
	Do(fn func() error) error
}

// Server answers everybody over TCP and UDP, with "SEEN to NAME": the address that
// the client has here, and the server's name.
type Server struct {
	stream  net.Listener
	packets net.PacketConn
	work    sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// Serve starts a server at a port of all addresses of a place.
func Serve(p Place, name string, port uint16) (*Server, error) {
	s := &Server{conns: map[net.Conn]bool{}}
	at := fmt.Sprintf(":%d", port)
	err := p.Do(func() (err error) {
		var listen net.ListenConfig
		if s.stream, err = listen.Listen(context.Background(), "tcp", at); err != nil {
			return err
		}
		s.packets, err = listen.ListenPacket(context.Background(), "udp", at)
		return err
	})
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("serving at port %d: %w", port, err)
	}
	answer := func(to net.Addr) []byte {
		from, _ := netip.ParseAddrPort(to.String())
		return fmt.Appendf(nil, "%s to %s\n", from.Addr().Unmap().WithZone(""), name)
	}
	s.work.Go(func() {
		for {
			c, err := s.stream.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			s.work.Go(func() { s.talk(c, answer(c.RemoteAddr())) })
		}
	})
	s.work.Go(func() {
		b := make([]byte, 100)
		for {
			_, from, err := s.packets.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = s.packets.WriteTo(answer(from), from)
		}
	})
	return s, nil
}

// talk answers each line until the client leaves.
func (s *Server) talk(c net.Conn, answer []byte) {
	defer func() { _ = c.Close() }()
	b := make([]byte, 1)
	for {
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		if b[0] == '\n' {
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}
}

// Close ends the server and its connections.
func (s *Server) Close() {
	if s.stream != nil {
		_ = s.stream.Close()
	}
	if s.packets != nil {
		_ = s.packets.Close()
	}
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}

// Dial connects to a server from a place. Proto is "tcp" or "udp".
func Dial(p Place, proto string, to netip.AddrPort, limit time.Duration) (net.Conn, error) {
	var c net.Conn
	err := p.Do(func() (err error) {
		dialer := net.Dialer{Timeout: limit}
		c, err = dialer.DialContext(context.Background(), proto, to.String())
		return err
	})
	return c, err
}

// Say asks a server over a connection and answers what it says.
func Say(c net.Conn, limit time.Duration) (string, error) {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "?\n"); err != nil {
		return "", err
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	return strings.TrimSpace(string(b[:n])), err
}

// Ask connects to a server and answers what it says. Otherwise the answer is what went
// wrong: "no answer", "refused", or the error's words.
func Ask(p Place, proto string, to netip.AddrPort, limit time.Duration) string {
	c, err := Dial(p, proto, to, limit)
	said := ""
	if err == nil {
		said, err = Say(c, limit)
		_ = c.Close()
	}
	switch {
	case err == nil:
		return said
	case os.IsTimeout(err):
		return "no answer"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	default:
		return err.Error()
	}
}
