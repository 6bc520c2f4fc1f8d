package native

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/placement"
	"github.com/davit-engine/davit/plugins/runtime-native/proc"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/supervise"
)

// The test binary is the monitor: it answers its configuration and goes on until
// it is killed. Without one it ends, as a monitor does.
func init() {
	if os.Args[0] != "davit-monitor" {
		return
	}
	control := os.NewFile(supervise.ControlFD, "control")
	var config supervise.Config
	if err := monitor.ReadMessage(control, &config); errors.Is(err, io.EOF) {
		os.Exit(0)
	}
	if config.ID == "mute" {
		sleepOn()
	}
	if config.ID == "dies" {
		os.Exit(3)
	}
	_ = monitor.WriteMessage(control, monitor.Response{State: monitor.StateCreated, PID: os.Getpid()})
	sleepOn()
}

// sleepOn never returns. An empty select would: Go's runtime ends a program
// whose goroutines all wait for nothing.
func sleepOn() {
	for {
		time.Sleep(time.Hour)
	}
}

func testSpawner(t *testing.T) (s *spawner, cgroupPath string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err = newSpawner(program)
	if err != nil {
		t.Fatal(err)
	}
	cgroupPath = "/davit-test-" + strconv.Itoa(os.Getpid()) + "/monitors"
	t.Cleanup(func() {
		s.close()
		removeCgroup(t, cgroupPath)
	})
	return s, cgroupPath
}

func spawned(t *testing.T, s *spawner, cgroupPath string) int {
	t.Helper()
	pid, created, err := s.spawn(t.Context(), t.TempDir(), placement.Placement{Cgroup: cgroupPath}, supervise.Config{ID: "one"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	if created.PID != pid {
		t.Fatalf("monitor %d answered as %d", pid, created.PID)
	}
	s.fill(placement.Placement{Cgroup: cgroupPath})
	s.filling.Wait()
	return pid
}

func waitingPID(t *testing.T, s *spawner) int {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare == nil {
		t.Fatal("no monitor waits")
	}
	return s.spare.pid
}

// ends waits until the process is gone. After a spawner's end nobody but the test
// reaps its monitors.
func ends(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); proc.StartTime(pid) != ""; time.Sleep(2 * time.Millisecond) {
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		if time.Now().After(deadline) {
			t.Fatalf("process %d goes on", pid)
		}
	}
}

func TestTheNextMonitorWaitsReady(t *testing.T) {
	s, cgroupPath := testSpawner(t)
	first := spawned(t, s, cgroupPath)
	spare := waitingPID(t, s)
	if second := spawned(t, s, cgroupPath); second != spare || second == first {
		t.Errorf("the waiting monitor was %d, the container's is %d", spare, second)
	}
	next := waitingPID(t, s)
	// execve has happened, but the arguments are in place a little later.
	var line []byte
	for deadline := time.Now().Add(20 * time.Second); len(line) == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var err error
		if line, err = os.ReadFile("/proc/" + strconv.Itoa(next) + "/cmdline"); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Contains(line, []byte(supervise.Untitled)) {
		t.Errorf("a waiting monitor's command line is %q", line)
	}
	s.close()
	ends(t, next)
	if proc.StartTime(first) == "" {
		t.Error("a container's monitor ended with the driver")
	}
}

func TestAWaitingMonitorThatWasKilledIsReplaced(t *testing.T) {
	s, cgroupPath := testSpawner(t)
	spawned(t, s, cgroupPath)
	spare := waitingPID(t, s)
	if err := unix.Kill(spare, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ends(t, spare)
	if pid := spawned(t, s, cgroupPath); pid == spare {
		t.Error("the dead monitor has a container")
	}
}

func TestOneMonitorWaitsWhereTheLastContainerWasMade(t *testing.T) {
	s, cgroupPath := testSpawner(t)
	spawned(t, s, cgroupPath)
	spare := waitingPID(t, s)
	other := cgroupPath + "-other"
	t.Cleanup(func() { removeCgroup(t, other) })
	if pid := spawned(t, s, other); pid == spare {
		t.Error("the monitor is in another container's cgroup")
	}
	ends(t, spare)
	if got := waitingPID(t, s); got == spare {
		t.Error("the first cgroup's monitor still waits")
	}
	s.close()
}

func TestAMonitorThatFailsSaysSo(t *testing.T) {
	s, cgroupPath := testSpawner(t)
	_, _, err := s.spawn(t.Context(), t.TempDir(), placement.Placement{Cgroup: cgroupPath}, supervise.Config{ID: "dies"})
	if err == nil || err.Error() != "the monitor died before the container was created: it said nothing" {
		t.Errorf("a dying monitor's error is %v", err)
	}
}

func TestAMonitorThatDoesNotAnswerIsKilled(t *testing.T) {
	s, cgroupPath := testSpawner(t)
	spawned(t, s, cgroupPath)
	spare := waitingPID(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := s.spawn(ctx, t.TempDir(), placement.Placement{Cgroup: cgroupPath}, supervise.Config{ID: "mute"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a mute monitor's error is %v", err)
	}
	ends(t, spare)
}

// removeCgroup removes a monitors' cgroup and the one above it.
func removeCgroup(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, name := range []string{name, path.Dir(name)} {
		group, err := cgroup.Open(name)
		if err != nil {
			continue
		}
		if err := group.Kill(); err != nil {
			t.Error(err)
		}
		if err := group.Delete(ctx); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkSpawn is what a container pays for its monitor.
func BenchmarkSpawn(b *testing.B) {
	program, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	s, err := newSpawner(program)
	if err != nil {
		b.Fatal(err)
	}
	cgroupPath := "/davit-bench-" + strconv.Itoa(os.Getpid()) + "/monitors"
	for _, bench := range []struct {
		name  string
		spare bool
	}{{"Started", false}, {"Waiting", true}} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s.filling.Wait()
				if w := s.take(cgroupPath); w != nil && bench.spare {
					s.spare = w
				} else if w != nil {
					w.dismiss()
				}
				b.StartTimer()
				pid, _, err := s.spawn(b.Context(), b.TempDir(), placement.Placement{Cgroup: cgroupPath}, supervise.Config{ID: "one"})
				b.StopTimer()
				if err != nil {
					b.Fatal(err)
				}
				_ = unix.Kill(pid, unix.SIGKILL)
				b.StartTimer()
			}
		})
	}
	s.close()
	for _, name := range []string{cgroupPath, path.Dir(cgroupPath)} {
		if group, err := cgroup.Open(name); err == nil {
			_ = group.Kill()
			_ = group.Delete(context.Background())
		}
	}
}
