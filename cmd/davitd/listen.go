package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/moby/sys/user"

	"github.com/davit-engine/davit/config"
)

// server serves the API on its sockets.
type server struct {
	http      *http.Server
	listeners []net.Listener
}

// listen opens all sockets: those it is given by systemd, the others with mode
// 0660 and the configured group.
func listen(ctx context.Context, c config.Config, handler http.Handler, log *slog.Logger) (_ *server, err error) {
	s := &server{http: &http.Server{
		Handler: handler, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		// Streams that would go on for ever end with the engine.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeListeners())
		}
	}()
	for _, address := range c.Listen {
		scheme, path, _ := strings.Cut(address, "://")
		if scheme == "fd" {
			given, err := activation.Listeners()
			if err != nil || len(given) == 0 {
				return nil, errors.Join(errors.New("listen fd://: systemd handed over no sockets"), err)
			}
			s.listeners = append(s.listeners, given...)
			continue
		}
		l, err := listenUnix(ctx, path, c.Group, log)
		if err != nil {
			return nil, err
		}
		s.listeners = append(s.listeners, l)
	}
	return s, nil
}

func listenUnix(ctx context.Context, path, group string, log *slog.Logger) (net.Listener, error) {
	dialer := net.Dialer{Timeout: time.Second}
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("another engine serves %s", path)
	}
	// A socket that nobody answers on was left by a crash.
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	var l net.Listener
	err := umask(0o177, func() (err error) { l, err = (&net.ListenConfig{}).Listen(ctx, "unix", path); return err })
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	gid := 0
	if found, err := user.LookupGroup(group); err == nil {
		gid = found.Gid
	} else if group != "" {
		log.Debug("the socket is root's alone: there is no such group", "group", group)
	}
	if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o660)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// serve answers requests until ctx ends or a socket fails.
func (s *server) serve(ctx context.Context) error {
	failed := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		go func() { failed <- s.http.Serve(l) }() // ends with close
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("serving the API: %w", err)
	}
}

// close gives requests a moment to end.
func (s *server) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(s.http.Close(), s.closeListeners())
	}
	return s.closeListeners()
}

func (s *server) closeListeners() error {
	var failed error
	for _, l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
