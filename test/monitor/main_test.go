// Package monitor tests the real davit-monitor with real processes: its memory,
// its speed and what it survives. Its processes run on the host's own
// filesystem, without a container around them: the stage is told to set nothing
// up.
package monitor

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
	"github.com/davit-engine/davit/sdk/monitor/supervise"
	"github.com/davit-engine/davit/test/private"
)

// instance is a running monitor.
type instance struct {
	t      testing.TB
	dir    string
	socket string
	cmd    *os.Process
	pid    int // of the process it watches over
}

// options of a monitor under test.
type options struct {
	streams monitor.Streams
	args    []string
	dir     string // the monitor's; empty: a new one
	score   int    // OOM score of the process
}

// start starts the real monitor program with a created process.
func start(t testing.TB, o options) *instance {
	t.Helper()
	bin, err := private.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	m := &instance{t: t, dir: o.dir}
	if m.dir == "" {
		m.dir = t.TempDir()
	}
	m.socket = filepath.Join(m.dir, monitor.SocketName)
	stage, err := sandbox.Config{Process: sandbox.Process{Args: o.args, Env: []string{"PATH=" + os.Getenv("PATH")}, Cwd: "/", Terminal: o.streams.Terminal, OOMScoreAdj: &o.score}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	config := supervise.Config{ID: "test", Dir: m.dir, Streams: o.streams, Stage: stage}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	control, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer func() { _ = control.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	// As the driver does: a monitor cannot give back the huge pages it starts with.
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	m.cmd, err = os.StartProcess(filepath.Join(bin, "davit-monitor"), []string{"davit-monitor", "test"}, &os.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Files: []*os.File{null, null, null, theirs}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	_ = theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.end)
	var created monitor.Response
	err = monitor.WriteMessage(control, &config)
	if err == nil {
		err = monitor.ReadMessage(control, &created)
	}
	if err != nil || created.Error != nil {
		t.Fatalf("creating: %v %v\n%s", err, created.Error, m.complaints())
	}
	m.pid = created.PID
	return m
}

// end kills what still runs and waits for the monitor.
func (m *instance) end() {
	if m.pid > 0 {
		_ = syscall.Kill(m.pid, syscall.SIGKILL)
	}
	ended := make(chan struct{})
	go func() {
		_, _ = m.cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(private.Patience(60 * time.Second)):
		m.t.Error("the monitor does not end with its process")
		_ = m.cmd.Kill()
		<-ended
	}
}

func (m *instance) complaints() string {
	body, _ := os.ReadFile(filepath.Join(m.dir, supervise.ComplaintsName))
	return string(body)
}

// call performs an operation that must succeed.
func (m *instance) call(request monitor.Request) monitor.Response {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), private.Patience(60*time.Second))
	defer cancel()
	response, err := monitor.Call(ctx, m.socket, request)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", request.Op, err, m.complaints())
	}
	return response
}

func (m *instance) run() { m.t.Helper(); m.call(monitor.Request{Op: monitor.OpStart}) }

// attach connects to the process's streams.
func (m *instance) attach(o monitor.AttachOptions) *monitor.Stream {
	m.t.Helper()
	stream, err := monitor.Attach(context.Background(), m.socket, o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = stream.Close() })
	return stream
}

// privateMemory is what a process has for itself alone, in KiB.
func privateMemory(t testing.TB, pid int) (kib int) {
	t.Helper()
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "Private_Clean:") || strings.HasPrefix(line, "Private_Dirty:") {
			n, err := strconv.Atoi(strings.Fields(line)[1])
			if err != nil {
				t.Fatal(err)
			}
			kib += n
		}
	}
	return kib
}

// entries reads what a monitor logged.
func entries(t testing.TB, paths ...string) (text string) {
	t.Helper()
	var b strings.Builder
	for _, path := range paths {
		body, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(body) {
			var entry struct{ Log string }
			if err := json.Unmarshal(line, &entry); err != nil {
				t.Fatalf("%s: %v in %q", path, err, line)
			}
			b.WriteString(entry.Log)
		}
	}
	return b.String()
}

// readFrames reads size bytes of output from an attached stream.
func readFrames(t testing.TB, r io.Reader, size int) (output []byte) {
	t.Helper()
	var head [8]byte
	for len(output) < size {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			t.Fatalf("after %d bytes: %v", len(output), err)
		}
		begin := len(output)
		output = append(output, make([]byte, binary.BigEndian.Uint32(head[4:]))...)
		if _, err := io.ReadFull(r, output[begin:]); err != nil {
			t.Fatal(err)
		}
	}
	return output
}
