package api

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTheStreamDoesNotArriveWithTheHead reads as Docker's SDK for Python does:
// the head through a buffer that is then thrown away.
func TestTheStreamDoesNotArriveWithTheHead(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	b := fake{attach: func(string, AttachOptions) (Session, error) { return says("output", true), nil }}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: handlerOf(b)}}
	server.Start()
	t.Cleanup(server.Close)
	conn, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST /containers/web/attach?stdout=1&stream=1 HTTP/1.1\r\nHost: davit\r\n"+upgrade+"Content-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// A client that is slow to come back: everything that could arrive has arrived.
	time.Sleep(100 * time.Millisecond)
	head := bufio.NewReader(conn)
	response, err := http.ReadResponse(head, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answer %v, %v", response, err)
	}
	if n := head.Buffered(); n != 0 {
		t.Fatalf("%d bytes of the stream came with the head", n)
	}
	out, err := io.ReadAll(conn)
	if err != nil || strings.TrimSpace(string(out)) != "output" {
		t.Errorf("the stream was %q, %v", out, err)
	}
}

func TestAClientThatReadsNothingIsNotWaitedForLong(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("head")); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	awaitReader(conn, 50*time.Millisecond)
	if passed := time.Since(begin); passed < 50*time.Millisecond {
		t.Errorf("the unread head was not noticed: waited %s", passed)
	}
}
