package supervise

import (
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/davit-engine/davit/sdk/monitor"
)

// FuzzServe connects to a server whose container has ended and says whatever may
// be said. The connection is answered or closed, and the server goes on.
func FuzzServe(f *testing.F) {
	for _, body := range []string{`{"op":"status"}`, `{"op":"wait"}`, `{"op":"signal","signal":9}`, `{"op":"attach","stdin":true,"stdout":true}`, `{"op":"exec","exec":"x","streams":{}}`, `{"op":"resize","width":1}`, `{"op":"forget","exec":"../x"}`, `{"op":"start"}`, `{`, `[]`} {
		f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		s := endedServer(t)
		socket := filepath.Join(t.TempDir(), monitor.SocketName)
		listener, err := monitor.Listen(socket)
		if err != nil {
			t.Fatal(err)
		}
		accepting := make(chan struct{})
		go func() {
			defer close(accepting)
			s.accept(listener)
		}()
		defer func() {
			_ = listener.Close()
			<-accepting
			s.connections.Wait()
		}()
		for _, words := range [][]byte{said, append(binary.BigEndian.AppendUint32(nil, 15), `{"op":"status"}`...)} {
			conn, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(words)
			_ = conn.(*net.UnixConn).CloseWrite()
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			answer, err := io.ReadAll(conn)
			_ = conn.Close()
			if err != nil && len(answer) == 0 {
				t.Fatalf("%q is not answered: %v", words, err)
			}
		}
	})
}

// endedServer has a container that has ended, so that no request starts or
// signals anything.
func endedServer(t *testing.T) *server {
	t.Helper()
	streams, ends, err := newStreams(monitor.Streams{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ends.close()
	streams.end(time.Second)
	p := &process{streams: streams, state: monitor.StateExited, started: true, ended: make(chan struct{}), drained: make(chan struct{})}
	close(p.ended)
	close(p.drained)
	return &server{init: p, execs: map[string]*process{}, idle: time.NewTimer(time.Hour)}
}
