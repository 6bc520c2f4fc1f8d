package monitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Files of a monitor's directory.
const (
	SocketName = "monitor.sock"
	ExitName   = "exit.json"
)

// ExecExitName is the exit file of an exec.
func ExecExitName(execID string) string { return "exec-" + execID + ".json" }

// withShortPath calls fn with a path to socket that fits into a socket address
// (108 bytes), however long the real one is.
func withShortPath(socket string, fn func(path string) error) error {
	dir, err := unix.Open(filepath.Dir(socket), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(socket), Err: err}
	}
	defer func() { _ = unix.Close(dir) }()
	return fn("/proc/self/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(socket))
}

// Listen opens a monitor's socket.
func Listen(socket string) (*net.UnixListener, error) {
	var listener *net.UnixListener
	err := withShortPath(socket, func(path string) (err error) {
		listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, err
	}
	// The short path is gone by the time of Close; the monitor removes the file.
	listener.SetUnlinkOnClose(false)
	return listener, nil
}

// dial connects to a monitor. A monitor that is gone is os.ErrNotExist or
// ECONNREFUSED.
func dial(ctx context.Context, socket string) (*net.UnixConn, error) {
	var conn net.Conn
	err := withShortPath(socket, func(path string) (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", path)
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// exchange sends a request and reads the answer on an open connection, and gives
// up when ctx ends.
func exchange(ctx context.Context, conn *net.UnixConn, request Request) (Response, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var response Response
	err := WriteMessage(conn, &request)
	if err == nil {
		err = ReadMessage(conn, &response)
	}
	if err != nil {
		if ctx.Err() != nil {
			return Response{}, ctx.Err()
		}
		return Response{}, fmt.Errorf("monitor broke off: %w", err)
	}
	if response.Error != nil {
		return Response{}, response.Error
	}
	return response, nil
}

// Call performs one operation that is not attach. Failures of the monitor are
// of type *Failure.
func Call(ctx context.Context, socket string, request Request) (Response, error) {
	conn, err := dial(ctx, socket)
	if err != nil {
		return Response{}, err
	}
	defer func() { _ = conn.Close() }()
	return exchange(ctx, conn, request)
}

// Gone says whether an error of Call or Attach means that no monitor listens any
// more.
func Gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}

// AttachOptions select what is attached.
type AttachOptions struct {
	ExecID                string
	Stdin, Stdout, Stderr bool
}

// Stream is an attached process: Read answers its output as the package
// documentation says, Write is its standard input.
type Stream struct{ conn *net.UnixConn }

// Attach connects to the streams of a created or running process. What the
// process wrote before is in the log, not in the stream; a process that was not
// started yet loses nothing.
func Attach(ctx context.Context, socket string, o AttachOptions) (*Stream, error) {
	conn, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	request := Request{Op: OpAttach, Exec: o.ExecID, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr}
	if _, err := exchange(ctx, conn, request); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &Stream{conn}, nil
}

// Read reads output; io.EOF when the process has ended and all was read.
func (s *Stream) Read(p []byte) (int, error) { return s.conn.Read(p) }

// Write writes standard input.
func (s *Stream) Write(p []byte) (int, error) { return s.conn.Write(p) }

// CloseWrite ends this client's standard input.
func (s *Stream) CloseWrite() error { return s.conn.CloseWrite() }

// Close detaches.
func (s *Stream) Close() error { return s.conn.Close() }

// Conn is the connection beneath, for splicing.
func (s *Stream) Conn() *net.UnixConn { return s.conn }
