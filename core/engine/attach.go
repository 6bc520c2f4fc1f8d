package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/term"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/sdk/monitor"
)

// attachments are the clients that attached before their container was started.
type attachments struct {
	mu      sync.Mutex
	waiting map[string][]*session
}

func (a *attachments) add(id string, s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == nil {
		a.waiting = map[string][]*session{}
	}
	a.waiting[id] = append(a.waiting[id], s)
}

func (a *attachments) take(id string) []*session {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.waiting[id]
	delete(a.waiting, id)
	return list
}

func (a *attachments) remove(id string, s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.waiting[id]
	for i := range list {
		if list[i] == s {
			a.waiting[id] = append(list[:i:i], list[i+1:]...)
		}
	}
	if len(a.waiting[id]) == 0 {
		delete(a.waiting, id)
	}
}

// connect joins the waiting clients to the monitor, before the program starts.
func (a *attachments) connect(ctx context.Context, id, socket string) error {
	for _, s := range a.take(id) {
		stream, err := monitor.Attach(ctx, socket, s.options)
		if err != nil {
			s.resolve(nil, err)
			return err
		}
		s.resolve(stream, nil)
	}
	return nil
}

// fail lets waiting clients go: there will be nothing to attach to.
func (a *attachments) fail(id string, err error) {
	for _, s := range a.take(id) {
		s.resolve(nil, err)
	}
}

// session implements backend.Session over a monitor's stream.
type session struct {
	terminal bool
	options  monitor.AttachOptions
	keys     []byte
	// before writes what comes before the live stream (logs). May be nil.
	before func(ctx context.Context, out io.Writer) error
	// start runs once the stream is there and before copying. May be nil.
	start func(ctx context.Context) error
	// abandon is called when a session is closed before its stream came.
	abandon func()

	once   sync.Once
	ready  chan struct{}
	stream *monitor.Stream
	err    error

	detached bool // Run ended by the detach keys
}

func (s *session) resolve(stream *monitor.Stream, err error) {
	resolved := false
	s.once.Do(func() {
		s.stream, s.err, resolved = stream, err, true
		close(s.ready)
	})
	if !resolved && stream != nil {
		_ = stream.Close()
	}
}

// Terminal implements backend.Session.
func (s *session) Terminal() bool { return s.terminal }

// Close implements backend.Session.
func (s *session) Close() error {
	s.resolve(nil, net.ErrClosed)
	if s.abandon != nil {
		s.abandon()
	}
	if s.stream != nil {
		return s.stream.Close()
	}
	return nil
}

// errDetached ends a session whose user typed the detach keys.
var errDetached = errors.New("detached")

// Run implements backend.Session.
func (s *session) Run(ctx context.Context, in io.Reader, out io.Writer) error {
	if s.before != nil {
		if err := s.before(ctx, out); err != nil {
			return err
		}
	}
	defer func() { _ = s.Close() }()
	gone := make(chan error, 1)
	var input func()
	if in != nil && s.options.Stdin {
		input = func() { gone <- s.copyIn(in) }
	} else if in != nil {
		// Nothing is sent, but the connection's end is noticed.
		input = func() {
			_, err := io.Copy(io.Discard, in)
			gone <- err
		}
	}
	select {
	case <-s.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.stream == nil {
		return s.err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(out, s.stream)
		ended <- err
	}()
	if s.start != nil {
		if err := s.start(ctx); err != nil {
			_ = s.stream.Close()
			<-ended //nolint:errcheck // it says only that the stream was closed
			return err
		}
	}
	if input != nil {
		go input()
	}
	for {
		select {
		case err := <-ended:
			return err
		case err := <-gone:
			if errors.Is(err, errDetached) {
				s.detached = true
				_ = s.stream.Close()
				<-ended //nolint:errcheck // it says only that the stream was closed
				return nil
			}
			// The client's input is over; its output is not.
			gone = nil
		case <-ctx.Done():
			_ = s.stream.Close()
			<-ended //nolint:errcheck // it says only that the stream was closed
			return ctx.Err()
		}
	}
}

// copyIn copies a client's input and watches for the detach keys.
func (s *session) copyIn(in io.Reader) error {
	if s.terminal && len(s.keys) > 0 {
		in = term.NewEscapeProxy(in, s.keys)
	}
	_, err := io.Copy(s.stream, in)
	var escaped term.EscapeError
	if errors.As(err, &escaped) {
		return errDetached
	}
	_ = s.stream.CloseWrite()
	return err
}

// defaultKeys are ctrl-p ctrl-q.
var defaultKeys = []byte{16, 17}

func detachKeys(s string) ([]byte, error) {
	if s == "" {
		return defaultKeys, nil
	}
	keys, err := term.ToBytes(s)
	if err != nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid detach keys (%s) provided", s))
	}
	return keys, nil
}

// ContainerAttach connects to a container's streams; before its start the
// session waits for it.
func (e *Engine) ContainerAttach(ctx context.Context, name string, o backend.AttachOptions) (backend.Session, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return nil, err
	}
	keys, err := detachKeys(o.DetachKeys)
	if err != nil {
		return nil, err
	}
	r := c.Record()
	if r.Status == container.Paused {
		return nil, errdefs.ErrConflict.WithMessage(fmt.Sprintf("container %s is paused, unpause the container before attach", r.ID))
	}
	if r.Status == container.Restarting {
		return nil, errdefs.ErrConflict.WithMessage(fmt.Sprintf("container %s is restarting, wait until the container is running", r.ID))
	}
	s := &session{
		terminal: r.Config.Tty, keys: keys, ready: make(chan struct{}),
		options: monitor.AttachOptions{Stdin: o.Stdin && r.Config.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr},
	}
	if o.Logs {
		s.before = func(ctx context.Context, out io.Writer) error {
			logs, err := e.ContainerLogs(ctx, r.ID, backend.LogsOptions{Stdout: o.Stdout, Stderr: o.Stderr, Tail: -1})
			if err != nil {
				return err
			}
			return logs.Copy(ctx, out)
		}
	}
	switch {
	case !o.Stream:
		s.resolve(nil, nil)
	case r.Status.Alive():
		stream, err := monitor.Attach(ctx, r.Socket, s.options)
		if err != nil {
			return nil, fmt.Errorf("attaching to container %s: %w", r.Name, err)
		}
		s.resolve(stream, nil)
	default:
		e.attaching.add(r.ID, s)
		s.abandon = func() { e.attaching.remove(r.ID, s) }
	}
	e.containerEvent(r, events.ActionAttach, nil)
	return s, nil
}

// ContainerResize sets the size of a container's terminal.
func (e *Engine) ContainerResize(ctx context.Context, name string, width, height uint16) error {
	c, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	r := c.Record()
	if !r.Status.Alive() {
		return notRunning(r)
	}
	driver, err := e.Drivers.Runtime(r.RuntimeDriver)
	if err != nil {
		return err
	}
	if err := driver.Resize(ctx, r.ID, "", width, height); err != nil {
		return fmt.Errorf("resizing the terminal of container %s: %w", r.Name, err)
	}
	e.containerEvent(r, events.ActionResize, map[string]string{"width": fmt.Sprint(width), "height": fmt.Sprint(height)})
	return nil
}
