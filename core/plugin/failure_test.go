package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestKilledPluginIsBackForTheNextCall(t *testing.T) {
	b := newBench(t)
	b.install(binary(t, "odd"), Volume, "odd", nil)
	restarted := make(chan string, 10)
	h, err := New(b.o)
	if err != nil {
		t.Fatal(err)
	}
	h.OnRestart(func(_ context.Context, kind Kind, driver string) { restarted <- string(kind) + " " + driver })
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Close() }()
	st := await(t, h, "volume-odd", isState(StateReady))
	d := mustVolume(t, h, "")

	// Calls that are under way when the process dies are repeated.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	blocked := make(chan error, 1)
	short, stop := context.WithTimeout(ctx, 3*time.Second)
	defer stop()
	wg.Go(func() {
		_, err := d.Get(short, "block")
		blocked <- err
	})
	kill(t, st.PID, syscall.SIGKILL)
	if v, err := d.Get(ctx, "x"); err != nil || v.Name != "x" {
		t.Fatalf("call after the kill: %+v, %v", v, err)
	}
	if vs, err := d.List(ctx); err != nil || len(vs) != 1000 {
		t.Fatalf("stream after the kill: %d, %v", len(vs), err)
	}
	wg.Wait()
	if err := <-blocked; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the blocked call ended with %v, not with its deadline", err)
	}
	now := await(t, h, "volume-odd", isState(StateReady))
	if now.PID == st.PID || now.Restarts != 1 || now.LastError == "" {
		t.Errorf("status %+v", now)
	}
	if got := <-restarted; got != "volume odd" {
		t.Errorf("hook got %q", got)
	}
	if left, err := filepath.Glob(filepath.Join(b.o.Run, "plugins", "*")); err != nil || len(left) != 1 {
		t.Errorf("socket directories: %v, %v", left, err)
	}
}

func TestCallThatKillsItsPluginIsRepeatedOnce(t *testing.T) {
	b := newBench(t)
	b.install(binary(t, "odd"), Volume, "odd", nil)
	h := b.start()
	if err := h.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := mustVolume(t, h, "").Remove(t.Context(), "x")
	if !errdefs.IsUnavailable(err) {
		t.Errorf("got %v", err)
	}
	if st := await(t, h, "volume-odd", isState(StateReady)); st.Restarts != 2 {
		t.Errorf("restarted %d times, want 2", st.Restarts)
	}
}

func TestStoppedPluginIsReplacedDuringACall(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.o.KeepaliveTimeout = time.Second
	b.install(binary(t, "odd"), Volume, "odd", nil)
	h := b.start()
	st := await(t, h, "volume-odd", isState(StateReady))
	kill(t, st.PID, syscall.SIGSTOP)
	awaitStopped(t, st.PID)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	v, err := mustVolume(t, h, "").Get(ctx, "x")
	if err != nil || v.Name != "x" {
		t.Fatalf("got %+v, %v", v, err)
	}
	if now := await(t, h, "volume-odd", isState(StateReady)); now.PID == st.PID || !strings.Contains(now.LastError, "did not answer") {
		t.Errorf("status %+v", now)
	}
	if err := syscall.Kill(st.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the stopped process is still there: %v", err)
	}
}

// awaitStopped waits until none of a process's threads runs any more.
func awaitStopped(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(threads) == 0 {
			t.Fatalf("threads of process %d: %v", pid, err)
		}
		running := slices.DeleteFunc(threads, func(name string) bool {
			stat, err := os.ReadFile(name)
			return err != nil || strings.Contains(string(stat), ") T ")
		})
		if len(running) == 0 {
			return
		}
	}
	t.Fatalf("process %d does not stop", pid)
}

func TestPluginThatCrashesAtStart(t *testing.T) {
	b := newBench(t)
	b.install(binary(t, "odd"), Volume, "crash", nil)
	b.install(binary(t, "odd"), Volume, "odd", nil)
	h := b.start()
	st := await(t, h, "volume-crash", func(st Status) bool { return st.Restarts >= 2 && st.State == StateBackoff })
	if !strings.Contains(st.LastError, "exit status 3") || !strings.Contains(st.LastError, "no such device: /dev/odd") {
		t.Errorf("last error %q", st.LastError)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := mustVolume(t, h, "crash").Get(ctx, "x")
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "/dev/odd") {
		t.Errorf("call: %v", err)
	}
	// Its neighbour does not care.
	if err := h.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	// After some tries calls do not wait any more.
	await(t, h, "volume-crash", func(st Status) bool { return st.Restarts >= patience })
	if _, err := mustVolume(t, h, "crash").Get(t.Context(), "x"); !errdefs.IsUnavailable(err) {
		t.Errorf("call: %v", err)
	}
}

func TestPluginThatHangsAtStart(t *testing.T) {
	b := newBench(t)
	b.o.StartTimeout = 300 * time.Millisecond
	b.install(binary(t, "odd"), Volume, "hang", nil)
	h := b.start()
	st := await(t, h, "volume-hang", isState(StateBackoff))
	if !strings.Contains(st.LastError, "not ready within 300ms") {
		t.Errorf("last error %q", st.LastError)
	}
}

// TestFinalFailures are plugins that no restart mends; each is mended and must
// then come up.
func TestFinalFailures(t *testing.T) {
	for name, c := range map[string]struct {
		driver   string
		kind     Kind
		manifest map[string]any
		config   map[string]any
		spoil    func(dir, path string) error
		want     []string
	}{
		"speaks another protocol version": {
			driver: "newer", want: []string{"protocol version 7", "engine version 1"},
		},
		"declares another protocol version": {
			driver: "odd", manifest: map[string]any{"protocol": 3}, want: []string{"protocol version 3", "engine version 1"},
		},
		"has the wrong digest": {
			driver: "odd", manifest: map[string]any{"sha256": strings.Repeat("ab", 32)}, want: []string{"sha256", "abab"},
		},
		"is world-writable": {
			driver: "odd",
			spoil:  func(_, path string) error { return os.Chmod(path, 0o777) },
			want:   []string{"can be written by others", "chmod go-w", "davit-volume-odd"},
		},
		"is in a group-writable directory": {
			driver: "odd",
			spoil:  func(dir, _ string) error { return os.Chmod(dir, 0o775) },
			want:   []string{"mode 0775", "chmod go-w"},
		},
		"belongs to somebody": {
			driver: "odd",
			spoil:  func(_, path string) error { return os.Chown(path+".json", 1000, 0) },
			want:   []string{"belongs to user 1000", "chown root"},
		},
		"has no manifest": {
			driver: "odd",
			spoil:  func(_, path string) error { return os.Remove(path + ".json") },
			want:   []string{"davit-volume-odd.json is missing"},
		},
		"serves another kind": {
			driver: "wrong", kind: Network, want: []string{"network driver", "davit.volume.v1.Volume"},
		},
		"is given an unknown key": {
			driver:   "odd",
			manifest: map[string]any{"config": map[string]any{"refuse": map[string]any{"type": "bool"}}},
			config:   map[string]any{"refsue": true},
			want:     []string{`unknown key "refsue"`, "known keys: refuse"},
		},
		"is given a value of the wrong type": {
			driver:   "odd",
			manifest: map[string]any{"config": map[string]any{"refuse": map[string]any{"type": "bool"}}},
			config:   map[string]any{"refuse": "yes"},
			want:     []string{`key "refuse"`, "not a bool"},
		},
		"refuses its configuration": {
			driver:   "odd",
			manifest: map[string]any{"config": map[string]any{"refuse": map[string]any{"type": "bool"}}},
			config:   map[string]any{"refuse": true},
			want:     []string{`key "refuse": may not be true`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			kind := c.kind
			if kind == "" {
				kind = Volume
			}
			path := b.install(binary(t, "odd"), kind, c.driver, c.manifest)
			plugin := string(kind) + "-" + c.driver
			if c.config != nil {
				b.o.Config = map[string]map[string]any{plugin: c.config}
			}
			if c.spoil != nil {
				if err := c.spoil(b.dir, path); err != nil {
					t.Fatal(err)
				}
			}
			h := b.start()
			st := await(t, h, plugin, isState(StateFailed))
			for _, part := range c.want {
				if !strings.Contains(st.LastError, part) {
					t.Errorf("%q does not mention %q", st.LastError, part)
				}
			}
			if kind == Volume {
				if _, err := mustVolume(t, h, c.driver).Get(t.Context(), "x"); !errdefs.IsUnavailable(err) {
					t.Errorf("call: %v", err)
				}
			}
		})
	}
}

func TestMendedPluginComesUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	path := b.install(binary(t, "odd"), Volume, "odd", nil)
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	h := b.start()
	await(t, h, "volume-odd", isState(StateFailed))
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	await(t, h, "volume-odd", isState(StateReady))
}

func TestCloseEndsEverything(t *testing.T) {
	b := newBench(t)
	b.install(binary(t, "odd"), Volume, "odd", nil)
	b.install(binary(t, "odd"), Volume, "hang", nil)
	h := b.start()
	st := await(t, h, "volume-odd", isState(StateReady))
	d := mustVolume(t, h, "")
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(st.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the plugin outlives its host: %v", err)
	}
	if _, err := d.Get(t.Context(), "x"); !errdefs.IsUnavailable(err) {
		t.Errorf("call after close: %v", err)
	}
	for _, st := range h.List() {
		if st.State != StateStopped || st.PID != 0 {
			t.Errorf("status %+v", st)
		}
	}
}
