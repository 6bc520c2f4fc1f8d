package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/test/private"
)

// TestSignalsDoNotEndAMonitor sends all that can be caught, and looks at what
// the program inherited.
func TestSignalsDoNotEndAMonitor(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	m := start(t, options{
		args:    []string{"/bin/sh", "-c", "grep -E '^Sig(Ign|Blk)' /proc/self/status; cat /proc/self/oom_score_adj; exec sleep 1000"},
		streams: monitor.Streams{Log: &monitor.Log{Path: log}},
		score:   17,
	})
	m.run()
	for number := syscall.Signal(1); number <= 64; number++ {
		if number == unix.SIGKILL || number == unix.SIGSTOP {
			continue
		}
		if err := m.cmd.Signal(number); err != nil {
			t.Fatalf("signal %d: %v", number, err)
		}
		if response := m.call(monitor.Request{Op: monitor.OpStatus}); response.State != monitor.StateRunning {
			t.Fatalf("after signal %d the process is %s", number, response.State)
		}
	}
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", m.cmd.Pid))
	if err != nil || maySpare(t) && string(body) != "-999\n" {
		t.Errorf("the monitor's OOM score is %q, %v", body, err)
	}
	want := "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n17\n"
	eventually(t, func() error {
		if got := entries(t, log); got != want {
			return fmt.Errorf("the program has %q, want %q", got, want)
		}
		return nil
	})
	m.call(monitor.Request{Op: monitor.OpSignal, Signal: int(unix.SIGTERM)})
	eventually(t, func() error { return m.recorded(128 + int(unix.SIGTERM)) })
}

// maySpare says whether this machine lets root lower OOM scores (CAP_SYS_RESOURCE).
func maySpare(t *testing.T) bool {
	t.Helper()
	var header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		t.Fatal(err)
	}
	return sets[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// TestAMonitorWithoutDescriptors takes all of them away for a while.
func TestAMonitorWithoutDescriptors(t *testing.T) {
	m := start(t, options{args: []string{"/bin/sleep", "1000"}})
	m.run()
	var before unix.Rlimit
	if err := unix.Prlimit(m.cmd.Pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 3, Max: before.Max}
	if err := unix.Prlimit(m.cmd.Pid, unix.RLIMIT_NOFILE, &none, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := monitor.Call(ctx, m.socket, monitor.Request{Op: monitor.OpStatus}); err == nil {
		t.Fatal("a monitor without descriptors answers: the test tests nothing")
	}
	if err := unix.Prlimit(m.cmd.Pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	m.call(monitor.Request{Op: monitor.OpStatus})
	// The end is recorded without any.
	if err := unix.Prlimit(m.cmd.Pid, unix.RLIMIT_NOFILE, &none, nil); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(m.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return m.recorded(128 + int(unix.SIGKILL)) })
}

// TestFullDisks fills the disks of log and exit file: the process goes on, its
// end is recorded, and the log holds whole lines when there is room again.
func TestFullDisks(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("davit-test", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	log := filepath.Join(disk, "log")
	m := start(t, options{
		dir: disk, streams: monitor.Streams{Log: &monitor.Log{Path: log}, Stdin: true},
		args: []string{"/bin/sh", "-c", "yes 0123456789 | head -c 2000000; read line; echo after; read line; exit 3"},
	})
	stream := m.attach(monitor.AttachOptions{Stdin: true, Stdout: true})
	m.run()
	// Everything was read although it could not be logged.
	if got := readFrames(t, stream, 2000000); !bytes.HasSuffix(got, []byte("0123456789\n0")) && len(got) != 2000000 {
		t.Fatalf("%d bytes arrived", len(got))
	}
	full := entries(t, log) // whole lines, though the disk ends within one
	if full == "" || !strings.HasSuffix(full, "0123456789\n") {
		t.Errorf("the log ends with %q", full[max(0, len(full)-30):])
	}
	if err := os.Truncate(log, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	readFrames(t, stream, len("after\n"))
	if got := entries(t, log); !strings.HasSuffix(got, "after\n") {
		t.Errorf("with room again the log has %q", got)
	}
	fill(t, filepath.Join(disk, "filler"))
	if _, err := stream.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return m.recorded(3) })
}

// fill writes until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for p := make([]byte, 4096); ; {
		if _, err := f.Write(p); err != nil {
			return
		}
	}
}

// recorded says why the exit file does not hold the code.
func (m *instance) recorded(code int) error {
	body, err := os.ReadFile(filepath.Join(m.dir, monitor.ExitName))
	if err != nil {
		return err
	}
	var exit monitor.Exit
	if err := json.Unmarshal(body, &exit); err != nil {
		return err
	}
	if exit.Code != code {
		return fmt.Errorf("exit code %d, want %d", exit.Code, code)
	}
	return nil
}

func eventually(t *testing.T, fn func() error) {
	t.Helper()
	deadline := time.Now().Add(private.Patience(30 * time.Second))
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
