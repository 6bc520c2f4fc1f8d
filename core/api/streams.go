package api

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

const (
	rawStream         = "application/vnd.docker.raw-stream"
	multiplexedStream = "application/vnd.docker.multiplexed-stream"
)

func (s *server) streamRoutes() {
	s.handle("GET /containers/{name}/logs", s.containerLogs)
	s.handle("POST /containers/{name}/attach", s.containerAttach)
	s.handle("GET /containers/{name}/stats", s.containerStats)
	s.handle("GET /containers/{name}/export", s.containerExport)
	s.handle("GET /containers/{name}/archive", s.archiveGet)
	s.handle("PUT /containers/{name}/archive", s.archivePut)
	s.handle("POST /exec/{id}/start", s.execStart)
}

func streamType(terminal bool) string {
	if terminal {
		return rawStream
	}
	return multiplexedStream
}

func (s *server) containerLogs(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	o := LogsOptions{Stdout: flag(q, "stdout"), Stderr: flag(q, "stderr"), Follow: flag(q, "follow"), Timestamps: flag(q, "timestamps"), Details: flag(q, "details"), Tail: -1}
	var err error
	if o.Since, err = moment(q, "since"); err != nil {
		return err
	}
	if o.Until, err = moment(q, "until"); err != nil {
		return err
	}
	if tail := q.Get("tail"); tail != "" && tail != "all" {
		if o.Tail, err = number(q, "tail", -1); err != nil {
			o.Tail = -1 // Docker shows all for what is no number
		}
	}
	logs, err := s.Backend.ContainerLogs(r.Context(), r.PathValue("name"), o)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", streamType(logs.Terminal()))
	w.WriteHeader(http.StatusOK)
	out := flusher{w}
	out.flush()
	err = logs.Copy(r.Context(), out)
	if errors.Is(err, context.Canceled) {
		return nil // the client left
	}
	return err
}

// flusher sends what is written at once.
type flusher struct{ w http.ResponseWriter }

func (f flusher) flush() {
	if sender, ok := f.w.(http.Flusher); ok {
		sender.Flush()
	}
}

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	f.flush()
	return n, err
}

func (s *server) containerAttach(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	session, err := s.Backend.ContainerAttach(r.Context(), r.PathValue("name"), AttachOptions{
		Stdin: flag(q, "stdin"), Stdout: flag(q, "stdout"), Stderr: flag(q, "stderr"),
		Logs: flag(q, "logs"), Stream: flag(q, "stream"), DetachKeys: q.Get("detachKeys"),
	})
	if err != nil {
		return err
	}
	return s.hijack(w, r, session, flag(q, "stdin"))
}

func (s *server) execStart(w http.ResponseWriter, r *http.Request) error {
	var req container.ExecStartRequest
	if err := readJSON(r, &req, true); err != nil {
		return err
	}
	session, err := s.Backend.ExecStart(r.Context(), r.PathValue("id"), req)
	if err != nil {
		return err
	}
	if session == nil {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	return s.hijack(w, r, session, true)
}

// hijack takes the connection over for a session. A client that asked for an
// upgrade gets one; others get a plain answer, and the connection all the same.
func (s *server) hijack(w http.ResponseWriter, r *http.Request, session Session, stdin bool) error {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = session.Close()
		return fmt.Errorf("taking over the connection: %w", err)
	}
	if tracked, ok := w.(*response); ok {
		tracked.begun = true
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Time{})
	kind := rawStream
	if !before(r, "1.42") {
		kind = streamType(session.Terminal())
	}
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + kind + "\r\n\r\n"
	if r.Header.Get("Upgrade") != "" {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + kind + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: " + maxVersion + "\r\n\r\n"
	}
	if _, err := io.WriteString(conn, head); err != nil {
		_ = session.Close()
		return nil
	}
	// The request's context ends with the handler; the session is the handler.
	ctx := r.Context()
	var in io.Reader
	if stdin {
		in = unbuffered(buffered.Reader, conn)
	}
	out := &afterHead{Conn: conn}
	if err := session.Run(ctx, in, out); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
		s.Log.Debug("attached session ended", "path", r.URL.Path, "error", err)
		writeStreamError(out, session.Terminal(), err)
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	return nil
}

// unbuffered reads what the HTTP server had already read, and then the
// connection itself.
func unbuffered(buffered *bufio.Reader, conn net.Conn) io.Reader {
	if n := buffered.Buffered(); n > 0 {
		return io.MultiReader(io.LimitReader(buffered, int64(n)), conn)
	}
	return conn
}

// writeStreamError tells an attached client why there is no output: on stderr,
// or on the terminal.
func writeStreamError(w io.Writer, terminal bool, err error) {
	text := err.Error() + "\r\n"
	if !terminal {
		size := len(text)
		text = string([]byte{2, 0, 0, 0, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}) + text
	}
	_, _ = io.WriteString(w, text)
}

func (s *server) containerStats(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	streaming := q.Get("stream") == "" || flag(q, "stream")
	oneShot := flag(q, "one-shot")
	if streaming && oneShot {
		return invalid("cannot have stream=true and one-shot=true")
	}
	name := r.PathValue("name")
	first, err := s.Backend.ContainerStats(r.Context(), name)
	if err != nil {
		return err
	}
	out := stream{w}
	if oneShot {
		return out.send(first)
	}
	previous := first
	if streaming {
		if err := out.send(first); err != nil {
			return err
		}
	}
	ticker := time.NewTicker(statsPause)
	defer ticker.Stop()
	for {
		select {
		case <-r.Context().Done():
			return nil
		case <-ticker.C:
		}
		stats, err := s.Backend.ContainerStats(r.Context(), name)
		if err != nil {
			if errdefs.IsNotFound(err) {
				return nil // removed meanwhile: the stream just ends
			}
			return err
		}
		stats.PreRead, stats.PreCPUStats = previous.Read, previous.CPUStats
		if err := out.send(stats); err != nil || !streaming {
			return err
		}
		previous = stats
	}
}

func (s *server) containerExport(w http.ResponseWriter, r *http.Request) error {
	content, err := s.Backend.ContainerExport(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	w.Header().Set("Content-Type", "application/x-tar")
	_, err = io.Copy(w, content)
	return err
}

func archivePath(r *http.Request) (string, error) {
	path := r.URL.Query().Get("path")
	if path == "" {
		return "", invalid("bad parameter: 'path' cannot be empty")
	}
	return path, nil
}

// archiveGet serves HEAD, too: the description of the path alone.
func (s *server) archiveGet(w http.ResponseWriter, r *http.Request) error {
	path, err := archivePath(r)
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		stat, err := s.Backend.ContainerStatPath(r.Context(), r.PathValue("name"), path)
		if err != nil {
			return err
		}
		return setPathStat(w, stat)
	}
	content, stat, err := s.Backend.ContainerArchive(r.Context(), r.PathValue("name"), path)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	if err := setPathStat(w, stat); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	_, err = io.Copy(w, content)
	return err
}

func setPathStat(w http.ResponseWriter, stat container.PathStat) error {
	body, err := json.Marshal(stat)
	if err != nil {
		return err
	}
	w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(body))
	return nil
}

func (s *server) archivePut(w http.ResponseWriter, r *http.Request) error {
	path, err := archivePath(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	err = s.Backend.ContainerExtract(r.Context(), r.PathValue("name"), path, ExtractOptions{NoOverwriteDirNonDir: flag(q, "noOverwriteDirNonDir"), CopyUIDGID: flag(q, "copyUIDGID")}, r.Body)
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
