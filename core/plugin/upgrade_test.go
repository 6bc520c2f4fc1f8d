package plugin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// another is the odd plugin as version 2, with a flaw or none.
func another(t *testing.T, flaw string) string {
	t.Helper()
	body, err := os.ReadFile(binary(t, "odd"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "odd")
	if err := os.WriteFile(path, append(body, "version 2 "+flaw...), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// load calls a driver from several sides until stop, which answers how often.
func load(t *testing.T, h *Host) (stop func() int64) {
	t.Helper()
	d := mustVolume(t, h, "odd")
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int64
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				var err error
				if n == 0 { // it is long
					time.Sleep(50 * time.Millisecond)
					_, err = d.List(t.Context())
				} else {
					_, err = d.Get(t.Context(), "x")
				}
				if err != nil {
					t.Errorf("a call failed: %v", err)
					return
				}
				calls.Add(1)
			}
		})
	}
	return func() int64 {
		before := calls.Load()
		for deadline := time.Now().Add(20 * time.Second); calls.Load() < before+20 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		cancel()
		wg.Wait()
		if calls.Load() < before+20 {
			t.Errorf("only %d calls at the end", calls.Load()-before)
		}
		return calls.Load()
	}
}

func upgradeBench(t *testing.T) (*bench, *Host, Status) {
	t.Helper()
	b := newBench(t)
	b.install(binary(t, "odd"), Volume, "odd", nil)
	h := b.start()
	return b, h, await(t, h, "volume-odd", isState(StateReady))
}

func TestUpgrade(t *testing.T) {
	b, h, old := upgradeBench(t)
	stop := load(t, h)
	if _, err := h.Upgrade(t.Context(), "odd", UpgradeOptions{}); !errdefs.IsNotModified(err) {
		t.Errorf("upgrading to the same: %v", err)
	}
	b.install(another(t, ""), Volume, "odd", nil)
	done, err := h.Upgrade(t.Context(), "volume-odd", UpgradeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	now := await(t, h, "volume-odd", isState(StateReady))
	if done.Name != "volume-odd" || done.From != (Version{"1", old.SHA256, old.PID}) || done.To != (Version{"2", now.SHA256, now.PID}) || done.Paused <= 0 {
		t.Errorf("%+v", done)
	}
	if now.PID == old.PID || now.Version != "2" || now.SHA256 == old.SHA256 || now.Restarts != 0 || now.LastError != "" {
		t.Errorf("%+v", now)
	}
	if err := syscall.Kill(old.PID, 0); err == nil {
		t.Error("the old process is still there")
	}
	if done, err = h.Upgrade(t.Context(), "odd", UpgradeOptions{Force: true}); err != nil || done.From.PID != now.PID || done.To.PID == now.PID {
		t.Errorf("by force: %+v, %v", done, err)
	}
	stop()
	if left, err := filepath.Glob(filepath.Join(b.o.Run, "plugins", "*")); err != nil || len(left) != 1 {
		t.Errorf("socket directories: %v, %v", left, err)
	}
	// It is cared for as any other.
	kill(t, done.To.PID, syscall.SIGKILL)
	if st := await(t, h, "volume-odd", func(st Status) bool { return st.Restarts == 1 && st.State == StateReady }); st.Version != "2" {
		t.Errorf("%+v", st)
	}
}

// TestUpgradesThatFail are noticed by nobody but who asked for them.
func TestUpgradesThatFail(t *testing.T) {
	for flaw, text := range map[string]string{
		"crash":     "version 2 does not like this machine",
		"features":  "lacks what the running one can do: oddity",
		"configure": "the state of version 1 is not understood",
		"loses":     "missing: volume 999",
		"digest":    "but its manifest says",
	} {
		t.Run(flaw, func(t *testing.T) {
			b, h, old := upgradeBench(t)
			stop := load(t, h)
			var manifest map[string]any
			if flaw == "digest" {
				manifest = map[string]any{"sha256": strings.Repeat("0", 64)}
			}
			path := b.install(another(t, flaw), Volume, "odd", manifest)
			if _, err := h.Upgrade(t.Context(), "odd", UpgradeOptions{}); err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%v, want %q", err, text)
			}
			stop()
			now := await(t, h, "volume-odd", isState(StateReady))
			if now.Version != "1" || now.SHA256 != old.SHA256 || now.Restarts != 0 {
				t.Errorf("%+v", now)
			}
			if again := flaw == "configure" || flaw == "loses"; again == (now.PID == old.PID) {
				t.Errorf("process %d became %d", old.PID, now.PID)
			}
			// People and programs see it by its name.
			if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", now.PID)); err != nil || strings.TrimRight(string(name), "\x00") != path {
				t.Errorf("it is called %q, %v", name, err)
			}
		})
	}
}

func TestUpgradeWaitsForCalls(t *testing.T) {
	b, h, old := upgradeBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	blocked := make(chan error, 1)
	go func() {
		_, err := mustVolume(t, h, "odd").Get(ctx, "block")
		blocked <- err
	}()
	s, err := h.find(Volume, "odd")
	if err != nil {
		t.Fatal(err)
	}
	for underWay := 0; underWay == 0; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		underWay = s.instance.calls
		s.mu.Unlock()
	}
	b.install(another(t, ""), Volume, "odd", nil)
	if _, err := h.Upgrade(t.Context(), "odd", UpgradeOptions{Drain: 50 * time.Millisecond}); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "still working on calls") {
		t.Errorf("%v", err)
	}
	if now := await(t, h, "volume-odd", isState(StateReady)); now.PID != old.PID {
		t.Errorf("%+v", now)
	}
	time.AfterFunc(100*time.Millisecond, cancel)
	if done, err := h.Upgrade(t.Context(), "odd", UpgradeOptions{}); err != nil || done.To.Version != "2" {
		t.Errorf("%+v, %v", done, err)
	}
	if err := <-blocked; !errdefs.IsCanceled(err) && ctx.Err() == nil {
		t.Error(err)
	}
}

func TestUpgradeOfWhatDoesNotRun(t *testing.T) {
	b := newBench(t)
	b.install(binary(t, "odd"), Volume, "crash", nil)
	h := b.start()
	if _, err := h.Upgrade(t.Context(), "nosuch", UpgradeOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
	await(t, h, "volume-crash", isState(StateBackoff))
	if _, err := h.Upgrade(t.Context(), "crash", UpgradeOptions{}); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "are used when it starts") {
		t.Errorf("%v", err)
	}
}
