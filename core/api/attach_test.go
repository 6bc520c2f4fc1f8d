package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
)

// session is an attached process made of a function.
type session struct {
	terminal bool
	run      func(in io.Reader, out io.Writer) error
	closed   *bool
}

func (s session) Terminal() bool { return s.terminal }

func (s session) Run(_ context.Context, in io.Reader, out io.Writer) error { return s.run(in, out) }

func (s session) Close() error {
	if s.closed != nil {
		*s.closed = true
	}
	return nil
}

// says is a session that writes a text and ends.
func says(text string, terminal bool) session {
	return session{terminal: terminal, run: func(_ io.Reader, out io.Writer) error {
		_, err := io.WriteString(out, text)
		return err
	}}
}

// post sends a request on a connection of its own, with whatever follows it at
// once, and reads the head of the answer.
func post(t *testing.T, b Backend, target, header, body, follows string) (*net.TCPConn, *bufio.Reader, *http.Response) {
	t.Helper()
	conn, err := net.Dial("tcp", listen(t, b).Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: davit\r\n%sContent-Length: %d\r\n\r\n%s%s", target, header, len(body), body, follows); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn), in, response
}

const upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"

func TestAttachNamesItsFraming(t *testing.T) {
	for name, c := range map[string]struct {
		version  string
		terminal bool
		want     string
	}{
		"frames":                    {"/v1.51", false, "application/vnd.docker.multiplexed-stream"},
		"frames, first version":     {"/v1.42", false, "application/vnd.docker.multiplexed-stream"},
		"frames, no version":        {"", false, "application/vnd.docker.multiplexed-stream"},
		"a terminal":                {"/v1.51", true, "application/vnd.docker.raw-stream"},
		"frames before 1.42":        {"/v1.41", false, "application/vnd.docker.raw-stream"},
		"a terminal before 1.42":    {"/v1.41", true, "application/vnd.docker.raw-stream"},
		"frames, the least version": {"/v1.40", false, "application/vnd.docker.raw-stream"},
	} {
		t.Run(name, func(t *testing.T) {
			b := fake{attach: func(string, AttachOptions) (Session, error) { return says("hello", c.terminal), nil }}
			_, in, response := post(t, b, c.version+"/containers/web/attach?stdout=1&stream=1", upgrade, "", "")
			if response.Status != "101 UPGRADED" || response.Header.Get("Upgrade") != "tcp" || response.Header.Get("Connection") != "Upgrade" {
				t.Errorf("status %q, header %v", response.Status, response.Header)
			}
			if got := response.Header.Get("Content-Type"); got != c.want {
				t.Errorf("content type %q, want %q", got, c.want)
			}
			if out, err := io.ReadAll(in); err != nil || string(out) != "hello" {
				t.Errorf("output %q, %v", out, err)
			}
		})
	}
}

func TestAttachWithoutUpgradeTakesTheConnectionAllTheSame(t *testing.T) {
	b := fake{attach: func(string, AttachOptions) (Session, error) { return says("hello", true), nil }}
	_, _, response := post(t, b, "/v1.51/containers/web/attach?stdout=1&stream=1", "", "", "")
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/vnd.docker.raw-stream" {
		t.Errorf("status %q, header %v", response.Status, response.Header)
	}
	if out, err := io.ReadAll(response.Body); err != nil || string(out) != "hello" {
		t.Errorf("output %q, %v", out, err)
	}
}

// The HTTP server reads ahead: what it has must reach the process first, and the
// end of the input must not end the output.
func TestInputSentWithTheRequestIsNotLost(t *testing.T) {
	b := fake{attach: func(string, AttachOptions) (Session, error) {
		return session{terminal: true, run: func(in io.Reader, out io.Writer) error {
			all, err := io.ReadAll(in)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "read %s", all)
			return err
		}}, nil
	}}
	conn, in, _ := post(t, b, "/containers/web/attach?stdin=1&stdout=1&stream=1", upgrade, "", "early,")
	if _, err := io.WriteString(conn, "late"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(in); err != nil || string(out) != "read early,late" {
		t.Errorf("output %q, %v", out, err)
	}
}

func TestAttachWithoutStdinGetsNone(t *testing.T) {
	options, given := make(chan AttachOptions, 1), make(chan bool, 1)
	b := fake{attach: func(_ string, o AttachOptions) (Session, error) {
		options <- o
		return session{run: func(in io.Reader, _ io.Writer) error { given <- in != nil; return nil }}, nil
	}}
	_, in, _ := post(t, b, "/containers/web/attach?stdin=0&stdout=1&stderr=true&logs=1&stream=1&detachKeys=ctrl-x", upgrade, "", "")
	if _, err := io.ReadAll(in); err != nil {
		t.Fatal(err)
	}
	if <-given {
		t.Error("the process was given an input nobody asked for")
	}
	want := AttachOptions{Stdout: true, Stderr: true, Logs: true, Stream: true, DetachKeys: "ctrl-x"}
	if diff := cmp.Diff(want, <-options); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
}

// After the upgrade there is no status left to tell an error with.
func TestAFailedSessionSaysWhyOnStderr(t *testing.T) {
	for name, c := range map[string]struct {
		terminal bool
		err      error
		want     string
	}{
		"in a frame":        {false, errors.New("boom"), "\x02\x00\x00\x00\x00\x00\x00\x06boom\r\n"},
		"on the terminal":   {true, errors.New("boom"), "boom\r\n"},
		"the client left":   {true, fmt.Errorf("reading: %w", net.ErrClosed), ""},
		"the client's stop": {true, fmt.Errorf("reading: %w", context.Canceled), ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := fake{attach: func(string, AttachOptions) (Session, error) {
				return session{terminal: c.terminal, run: func(io.Reader, io.Writer) error { return c.err }}, nil
			}}
			_, in, _ := post(t, b, "/containers/web/attach?stream=1", upgrade, "", "")
			if out, err := io.ReadAll(in); err != nil || string(out) != c.want {
				t.Errorf("output %q, %v", out, err)
			}
		})
	}
}

func TestAttachToNoContainerIsAnOrdinaryError(t *testing.T) {
	b := fake{attach: func(string, AttachOptions) (Session, error) {
		return nil, errdefs.ErrNotFound.WithMessage("No such container: web")
	}}
	_, _, response := post(t, b, "/containers/web/attach?stream=1", upgrade, "", "")
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusNotFound || string(body) != `{"message":"No such container: web"}`+"\n" {
		t.Errorf("answer %d %q, %v", response.StatusCode, body, err)
	}
}

func TestASessionIsClosedIfTheConnectionCannotBeTaken(t *testing.T) {
	closed := false
	b := fake{attach: func(string, AttachOptions) (Session, error) { return session{closed: &closed}, nil }}
	// A recorder is no connection.
	w := ask(t, b, http.MethodPost, "/containers/web/attach?stream=1", "")
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "taking over the connection") {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
	if !closed {
		t.Error("the session was left open")
	}
}

func TestExecStartReadsItsRequestBeforeTheStream(t *testing.T) {
	got := make(chan container.ExecStartRequest, 1)
	b := fake{exec: func(_ string, req container.ExecStartRequest) (Session, error) {
		got <- req
		return session{terminal: req.Tty, run: func(in io.Reader, out io.Writer) error { _, err := io.Copy(out, in); return err }}, nil
	}}
	conn, in, response := post(t, b, "/v1.51/exec/abc/start", upgrade+"Content-Type: application/json\r\n", `{"Tty":true,"ConsoleSize":[24,80]}`, "typed")
	if response.Status != "101 UPGRADED" || response.Header.Get("Content-Type") != "application/vnd.docker.raw-stream" {
		t.Errorf("status %q, header %v", response.Status, response.Header)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(in); err != nil || string(out) != "typed" {
		t.Errorf("output %q, %v", out, err)
	}
	if diff := cmp.Diff(container.ExecStartRequest{Tty: true, ConsoleSize: &[2]uint{24, 80}}, <-got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestADetachedExecHasNoStream(t *testing.T) {
	b := fake{exec: func(_ string, req container.ExecStartRequest) (Session, error) {
		if !req.Detach {
			t.Error("Detach was lost")
		}
		return nil, nil
	}}
	if w := ask(t, b, http.MethodPost, "/exec/abc/start", `{"Detach":true}`); w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Errorf("answer %d %q", w.Code, w.Body)
	}
}
