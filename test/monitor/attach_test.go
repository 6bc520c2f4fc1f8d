package monitor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/davit-engine/davit/core/logs"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/test/private"
)

// frames reads output until its end, by stream number.
func frames(r io.Reader) (map[byte][]byte, error) {
	got := map[byte][]byte{}
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return got, err
		}
		p := make([]byte, binary.BigEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(r, p); err != nil {
			return got, err
		}
		got[head[0]] = append(got[head[0]], p...)
	}
}

// TestEveryClientGetsEveryByte sends random bytes through a process whose input
// ends with the client that sends them, and reads them with three clients.
func TestEveryClientGetsEveryByte(t *testing.T) {
	m := start(t, options{args: []string{"/bin/sh", "-c", "tee /dev/stderr"}, streams: monitor.Streams{Stdin: true, StdinOnce: true}})
	data := make([]byte, 3<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)
	streams := []*monitor.Stream{
		m.attach(monitor.AttachOptions{Stdin: true, Stdout: true, Stderr: true}),
		m.attach(monitor.AttachOptions{Stdout: true}),
		m.attach(monitor.AttachOptions{Stderr: true}),
	}
	m.run()
	var group sync.WaitGroup
	for i, wanted := range [][]byte{{1, 2}, {1}, {2}} {
		group.Go(func() {
			got, err := frames(streams[i])
			if err != nil || len(got) != len(wanted) {
				t.Errorf("client %d: %d streams, %v", i, len(got), err)
			}
			for _, number := range wanted {
				if !bytes.Equal(got[number], data) {
					t.Errorf("client %d: stream %d has %d bytes", i, number, len(got[number]))
				}
			}
		})
	}
	if _, err := streams[0].Write(data); err != nil {
		t.Fatal(err)
	}
	if err := streams[0].CloseWrite(); err != nil {
		t.Fatal(err)
	}
	group.Wait()
}

// TestInputEndsWithItsClient lets a client with standard input vanish without a
// word; the process sees the end all the same, but only with StdinOnce.
func TestInputEndsWithItsClient(t *testing.T) {
	for _, once := range []bool{true, false} {
		m := start(t, options{args: []string{"/bin/sh", "-c", "cat >/dev/null; exit 7"}, streams: monitor.Streams{Stdin: true, StdinOnce: once}})
		stream := m.attach(monitor.AttachOptions{Stdin: true, Stdout: true})
		m.run()
		if _, err := stream.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_ = stream.Close()
		if once {
			eventually(t, func() error { return m.recorded(7) })
			continue
		}
		second := m.attach(monitor.AttachOptions{Stdin: true, Stdout: true}) // the process is still there
		m.call(monitor.Request{Op: monitor.OpCloseStdin})
		if _, err := frames(second); err != nil {
			t.Error(err)
		}
		eventually(t, func() error { return m.recorded(7) })
	}
}

// TestAClientThatDoesNotReadHoldsNobodyUp attaches one that reads nothing. The
// process ends and the other client gets everything; the first finds all it can
// have without a gap, and a word on why there is no more.
func TestAClientThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	const size = 24 << 20
	m := start(t, options{
		args:    []string{"/bin/sh", "-c", "seq -w 1 10000000 | head -c " + strconv.Itoa(size)},
		streams: monitor.Streams{Patience: 200},
	})
	asleep, reader := m.attach(monitor.AttachOptions{Stdout: true}), m.attach(monitor.AttachOptions{Stdout: true})
	m.run()
	got, err := frames(reader)
	if err != nil || len(got[1]) != size {
		t.Fatalf("the client that reads has %d bytes, %v", len(got[1]), err)
	}
	eventually(t, func() error { return m.recorded(0) })
	rest, err := frames(asleep)
	if err != nil || len(rest[1]) < 1<<20 || !bytes.HasPrefix(got[1], rest[1]) {
		t.Errorf("the client that slept has %d bytes, %v", len(rest[1]), err)
	}
	if !strings.Contains(string(rest[3]), "too slowly") {
		t.Errorf("it was told %q", rest[3])
	}
}

// TestASlowClientLosesNothing reads slowly, but it reads.
func TestASlowClientLosesNothing(t *testing.T) {
	const size = 12 << 20
	m := start(t, options{args: []string{"/bin/sh", "-c", "head -c " + strconv.Itoa(size) + " /dev/zero"}, streams: monitor.Streams{Patience: 60000}})
	stream := m.attach(monitor.AttachOptions{Stdout: true})
	m.run()
	got, err := frames(reluctant{stream})
	if err != nil || len(got[1]) != size || len(got) != 1 {
		t.Errorf("%d bytes, %q, %v", len(got[1]), got[3], err)
	}
}

// TestTheOnlyClientGetsEveryByte reads output that nobody else gets, which the
// monitor passes on unread, in bursts and with pauses.
func TestTheOnlyClientGetsEveryByte(t *testing.T) {
	const lines = 500000
	m := start(t, options{args: []string{"/bin/sh", "-c", "seq 1 250000; sleep 0.6; seq 250001 500000; echo end >&2"}, streams: monitor.Streams{Patience: 20000}})
	stream := m.attach(monitor.AttachOptions{Stdout: true, Stderr: true})
	m.run()
	got, err := frames(stream)
	var want bytes.Buffer
	for i := 1; i <= lines; i++ {
		want.WriteString(strconv.Itoa(i) + "\n")
	}
	if err != nil || !bytes.Equal(got[1], want.Bytes()) || string(got[2]) != "end\n" || len(got) != 2 {
		t.Errorf("%d bytes of %d, %q, %q, %v", len(got[1]), want.Len(), got[2], got[3], err)
	}
}

// TestTheOnlyClientStopsReading is detached between two frames, and the process
// ends.
func TestTheOnlyClientStopsReading(t *testing.T) {
	const size = 24 << 20
	m := start(t, options{args: []string{"/bin/sh", "-c", "seq -w 1 10000000 | head -c " + strconv.Itoa(size)}, streams: monitor.Streams{Patience: 200}})
	stream := m.attach(monitor.AttachOptions{Stdout: true})
	m.run()
	eventually(t, func() error { return m.recorded(0) })
	got, err := frames(stream)
	var want bytes.Buffer
	for i := 1; want.Len() < len(got[1]); i++ {
		_, _ = fmt.Fprintf(&want, "%08d\n", i)
	}
	if err != nil || len(got[1]) < 1<<20 || len(got[1]) >= size || !bytes.HasPrefix(want.Bytes(), got[1]) {
		t.Errorf("the client has %d bytes, %v", len(got[1]), err)
	}
	if !strings.Contains(string(got[3]), "too slowly") {
		t.Errorf("it was told %q", got[3])
	}
}

type reluctant struct{ io.Reader }

func (r reluctant) Read(p []byte) (int, error) {
	time.Sleep(5 * time.Millisecond)
	return r.Reader.Read(p)
}

// TestRotationUnderLoad writes lines as fast as the monitor takes them, into
// files that are rotated many times a second, and follows the log meanwhile.
func TestRotationUnderLoad(t *testing.T) {
	t.Run("plain", func(t *testing.T) {
		log := rotatedUnderLoad(t, &monitor.Log{Path: filepath.Join(t.TempDir(), "log"), MaxSize: 128 << 10, MaxFile: 1000})
		if packed, err := filepath.Glob(log + ".*.gz"); err != nil || len(packed) != 0 {
			t.Errorf("compressed without being told to: %s, %v", packed, err)
		}
	})
	t.Run("compressed", func(t *testing.T) {
		bin, err := private.BinDir()
		if err != nil {
			t.Fatal(err)
		}
		log := rotatedUnderLoad(t, &monitor.Log{Path: filepath.Join(t.TempDir(), "log"), MaxSize: 512 << 10, MaxFile: 1000, Compressor: filepath.Join(bin, "davit-log-compress"), Attributes: []byte(`{"tag":"{x}"}`)})
		// The last may have been left when the container ended.
		packed, err := filepath.Glob(log + ".*.gz")
		if all, _ := filepath.Glob(log + ".*"); err != nil || len(packed) < len(all)-1 {
			t.Errorf("compressed are only %s, %v", packed, err)
		}
		if unfinished, _ := filepath.Glob(log + ".*.tmp"); len(unfinished) > 0 {
			t.Errorf("left: %s", unfinished)
		}
	})
}

// rotatedUnderLoad answers the log's path.
func rotatedUnderLoad(t *testing.T, log *monitor.Log) string {
	const lines = 100000
	m := start(t, options{args: []string{"/bin/sh", "-c", "seq 1 " + strconv.Itoa(lines)}, streams: monitor.Streams{Log: log}})
	done := make(chan struct{})
	copied := make(chan error, 1)
	var followed bytes.Buffer
	go func() {
		copied <- logs.Copy(context.Background(), log.Path, logs.Options{Follow: true, Stdout: true, Stderr: true, Tail: -1, Raw: true}, &followed, done)
	}()
	m.run()
	eventually(t, func() error { return m.recorded(0) })
	stream, err := monitor.Attach(context.Background(), m.socket, monitor.AttachOptions{Stdout: true})
	if err == nil { // its end is the end of the output
		_, _ = io.Copy(io.Discard, stream)
	}
	var want strings.Builder
	for i := 1; i <= lines; i++ {
		want.WriteString(strconv.Itoa(i) + "\n")
	}
	var after bytes.Buffer
	eventually(t, func() error {
		after.Reset()
		if err := logs.Copy(context.Background(), log.Path, logs.Options{Stdout: true, Stderr: true, Tail: -1, Raw: true}, &after, nil); err != nil {
			return err
		}
		if after.String() != want.String() {
			return errors.New("the log has " + strconv.Itoa(bytes.Count(after.Bytes(), []byte("\n"))) + " lines")
		}
		return nil
	})
	close(done)
	if err := <-copied; err != nil {
		t.Fatal(err)
	}
	if followed.String() != want.String() {
		t.Errorf("the follower has %d lines", bytes.Count(followed.Bytes(), []byte("\n")))
	}
	if rotated, err := filepath.Glob(log.Path + ".*"); err != nil || len(rotated) < 10 {
		t.Errorf("rotated %d times, %v", len(rotated), err)
	}
	return log.Path
}

// BenchmarkAttached measures output at the monitor's socket, without a log.
func BenchmarkAttached(b *testing.B) {
	const size = 2 << 30
	b.SetBytes(size)
	for b.Loop() {
		m := start(b, options{args: []string{"/bin/dd", "if=/dev/zero", "bs=256k", "count=" + strconv.Itoa(size>>18)}})
		stream := m.attach(monitor.AttachOptions{Stdout: true})
		m.run()
		total, buffer := 0, make([]byte, 1<<20)
		for {
			n, err := stream.Read(buffer)
			total += n
			if err != nil {
				break
			}
		}
		if total < size {
			b.Fatalf("%d bytes", total)
		}
	}
}

// BenchmarkLogged measures lines from a process into its log.
func BenchmarkLogged(b *testing.B) {
	const size = 64 << 20
	b.SetBytes(size)
	for b.Loop() {
		log := &monitor.Log{Path: filepath.Join(b.TempDir(), "log"), MaxSize: 64 << 20, MaxFile: 2}
		m := start(b, options{args: []string{"/bin/sh", "-c", "yes 'a line of a usual length, as programs write them all day long' | head -c " + strconv.Itoa(size)}, streams: monitor.Streams{Log: log}})
		m.run()
		for m.recorded(0) != nil {
			time.Sleep(time.Millisecond)
		}
	}
}
