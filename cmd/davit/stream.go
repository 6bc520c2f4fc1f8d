package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
	"github.com/moby/term"
	"golang.org/x/sys/unix"
)

// streams connects this process's standard streams with a container's.
type streams struct {
	*app
	tty        bool
	stdin      bool
	detachKeys string
	out, err   io.Writer // nil: not attached
}

// errDetached says that the user left with the detach keys.
var errDetached = errors.New("detached")

// raw puts the terminal into raw mode; the answer restores it.
func (s *streams) raw() (restore func(), err error) {
	fd := s.in.Fd()
	if !s.tty || !s.stdin || !term.IsTerminal(fd) {
		return func() {}, nil
	}
	state, err := term.SetRawTerminal(fd)
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { _ = term.RestoreTerminal(fd, state) }), nil
}

// copy moves bytes until the container's output ends or the user detaches.
func (s *streams) copy(conn client.HijackedResponse) error {
	restore, err := s.raw()
	if err != nil {
		return err
	}
	defer restore()
	output := make(chan error, 1)
	go func() { output <- s.receive(conn.Reader) }()
	input := make(chan error, 1)
	if s.stdin {
		go func() { input <- s.send(conn) }()
	}
	select {
	case err := <-output:
		return err
	case err := <-input:
		var escaped term.EscapeError
		if errors.As(err, &escaped) {
			return errDetached
		}
		return <-output
	}
}

func (s *streams) receive(from io.Reader) error {
	out, errOut := s.out, s.err
	if out == nil {
		out = io.Discard
	}
	if errOut == nil {
		errOut = io.Discard
	}
	var err error
	if s.tty {
		_, err = io.Copy(out, from)
	} else {
		_, err = stdcopy.StdCopy(out, errOut, from)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

func (s *streams) send(conn client.HijackedResponse) error {
	var from io.Reader = s.in
	if s.tty && term.IsTerminal(s.in.Fd()) {
		keys := []byte{16, 17} // ctrl-p ctrl-q
		if s.detachKeys != "" {
			parsed, err := term.ToBytes(s.detachKeys)
			if err != nil {
				return err
			}
			keys = parsed
		}
		from = term.NewEscapeProxy(s.in, keys)
	}
	_, err := io.Copy(conn.Conn, from)
	var escaped term.EscapeError
	if errors.As(err, &escaped) {
		return err
	}
	return conn.CloseWrite()
}

// followSize tells the container its terminal's size, now and after changes,
// until ctx ends.
func (s *streams) followSize(ctx context.Context, resize func(ctx context.Context, height, width uint) error) {
	if !s.tty || !term.IsTerminal(s.in.Fd()) {
		return
	}
	update := func() {
		if size, err := term.GetWinsize(s.in.Fd()); err == nil && size.Height > 0 {
			_ = resize(ctx, uint(size.Height), uint(size.Width)) // it may have just ended
		}
	}
	update()
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	go func() {
		defer signal.Stop(changed)
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				update()
			}
		}
	}()
}

// forwardSignals passes what this process is sent on to the container, until ctx
// ends.
func (s *streams) forwardSignals(ctx context.Context, api *client.Client, id string) {
	if s.tty {
		return // the terminal's keys reach it as bytes
	}
	received := make(chan os.Signal, 16)
	signal.Notify(received, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	go func() {
		defer signal.Stop(received)
		for {
			select {
			case <-ctx.Done():
				return
			case got := <-received:
				number, ok := got.(unix.Signal)
				if !ok {
					continue
				}
				_, _ = api.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: strings.TrimPrefix(unix.SignalName(number), "SIG")})
			}
		}
	}()
}

// terminalSize is the size to create a terminal with; zero without one.
func (s *streams) terminalSize() (height, width uint) {
	if !s.tty || !term.IsTerminal(s.in.Fd()) {
		return 0, 0
	}
	size, err := term.GetWinsize(s.in.Fd())
	if err != nil {
		return 0, 0
	}
	return uint(size.Height), uint(size.Width)
}

// checkTerminal refuses a terminal whose input is none, as Docker does.
func (a *app) checkTerminal(stdin, tty bool) error {
	if stdin && tty && !term.IsTerminal(a.in.Fd()) {
		return &status{1, "the input device is not a TTY"}
	}
	return nil
}
