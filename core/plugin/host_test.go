package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/network"
	"github.com/davit-engine/davit/sdk/volume"
)

// built holds the plugin binaries that the tests copy.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// binary answers the path of a plugin binary, building it on first use.
func binary(t testing.TB, name string) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "davit-plugins"); built.err != nil {
			return
		}
		for out, pkg := range map[string]string{"odd": "./testdata/odd", "minimal": "../../examples/volume-minimal"} {
			cmd := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(built.dir, out), pkg)
			if text, err := cmd.CombinedOutput(); err != nil {
				built.err = errors.Join(err, errors.New(string(text)))
				return
			}
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, name)
}

// bench is a plugin directory and a host over it.
type bench struct {
	t    testing.TB
	dir  string
	o    Options
	logs *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newBench(t testing.TB) *bench {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("plugins must belong to root")
	}
	b := &bench{t: t, dir: t.TempDir(), logs: &safeBuffer{}}
	run, err := os.MkdirTemp("", "run") // sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	if err := os.Chmod(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.o = Options{
		Dirs: []string{b.dir}, Root: t.TempDir(), Run: run, EngineID: "engine-1",
		Defaults:     map[Kind]string{Volume: "odd"},
		StartTimeout: 20 * time.Second,
		Logger:       slog.New(slog.NewTextHandler(b.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.logs.String())
		}
	})
	return b
}

// install puts a plugin with a manifest into the directory. It is copied by
// another process, so that no fork of this one holds it open for writing when it
// is executed.
func (b *bench) install(binary string, kind Kind, driver string, more map[string]any) string {
	b.t.Helper()
	name := string(kind) + "-" + driver
	manifest := map[string]any{
		"name": name, "kind": kind, "driver": driver, "version": "0.9", "protocol": 1,
	}
	maps.Copy(manifest, more)
	data, err := json.Marshal(manifest)
	if err != nil {
		b.t.Fatal(err)
	}
	path := filepath.Join(b.dir, "davit-"+name)
	if err := os.WriteFile(path+".json", data, 0o644); err != nil {
		b.t.Fatal(err)
	}
	// One that is running cannot be written.
	if out, err := exec.Command("cp", "--remove-destination", binary, path).CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
	return path
}

func (b *bench) start() *Host {
	b.t.Helper()
	h, err := New(b.o)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := h.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := h.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return h
}

// await polls List until the plugin's status is as wanted.
func await(t *testing.T, h *Host, name string, want func(Status) bool) Status {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for _, st := range h.List() {
			if st.Name == name && want(st) {
				return st
			}
		}
	}
	t.Fatalf("%s never got there: %+v", name, h.List())
	return Status{}
}

func isState(s State) func(Status) bool { return func(st Status) bool { return st.State == s } }

func mustVolume(t *testing.T, h *Host, name string) volume.Driver {
	t.Helper()
	d, err := h.Volume(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

func TestMinimalDriverWorks(t *testing.T) {
	for _, mtls := range []bool{false, true} {
		b := newBench(t)
		b.o.AutoMTLS = mtls
		b.install(binary(t, "minimal"), Volume, "minimal", nil)
		b.o.Defaults = map[Kind]string{Volume: "minimal"}
		h := b.start()
		if err := h.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		d := mustVolume(t, h, "")
		v, err := d.Create(ctx, "data", nil, nil)
		if err != nil || !v.Fresh || v.Mountpoint != filepath.Join(b.o.Root, "drivers/volume-minimal/data") {
			t.Fatalf("create: %+v, %v", v, err)
		}
		if _, err := d.Create(ctx, "data", map[string]string{"size": "1g"}, nil); !errdefs.IsInvalidArgument(err) || err.Error() != `volume option "size": invalid argument` {
			t.Fatalf("option: %v", err)
		}
		m, err := d.Mount(ctx, "data", "c1")
		if err != nil || m.Type != "bind" || m.Source != v.Mountpoint {
			t.Fatalf("mount: %+v, %v", m, err)
		}
		if err := d.Remove(ctx, "data"); !errdefs.IsFailedPrecondition(err) {
			t.Fatalf("remove while mounted: %v", err)
		}
		if err := d.Reconcile(ctx, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.Remove(ctx, "data"); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Get(ctx, "data"); !errdefs.IsNotFound(err) {
			t.Fatalf("get after remove: %v", err)
		}
	}
}

func TestPluginIsToldWhereItWorks(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	b := newBench(t)
	b.install(binary(t, "odd"), Volume, "odd", map[string]any{"config": map[string]any{
		"n":    map[string]any{"type": "int", "default": 7},
		"size": map[string]any{"type": "size", "default": "2k"},
		"wait": map[string]any{"type": "duration", "default": "90s"},
		"list": map[string]any{"type": "list"},
		"none": map[string]any{"type": "string"},
	}})
	b.o.Config = map[string]map[string]any{"volume-odd": {"list": []any{"a", "b"}, "n": int64(8)}}
	h := b.start()
	v, err := mustVolume(t, h, "").Create(t.Context(), "x", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"engine": "engine-1", "run": filepath.Join(b.o.Run, "drivers/volume-odd"),
		"n": "int64 8", "size": "int64 2048", "wait": "string 1m30s", "list": "[]string [a b]",
	}
	if !maps.Equal(v.Status, want) {
		t.Errorf("got %v, want %v", v.Status, want)
	}
	st := await(t, h, "volume-odd", isState(StateReady))
	if st.PID == 0 || !st.Default || st.SHA256 == "" || len(st.Features) != 1 || st.Version != "1" {
		t.Errorf("status %+v", st)
	}
	if log := b.logs.String(); !strings.Contains(log, "odd is configured") || !strings.Contains(log, "plugin=volume-odd") {
		t.Error("the plugin's log line is missing")
	}
	if v, err := mustVolume(t, h, "").Get(t.Context(), "env"); err != nil || v.Status["NOTIFY_SOCKET"] != "" {
		t.Errorf("the plugin inherited the engine's notify socket: %v, %v", v, err)
	}
}

func TestErrorsCrossTheProcessBorder(t *testing.T) {
	b := newBench(t)
	b.install(binary(t, "odd"), Volume, "odd", nil)
	h := b.start()
	d := mustVolume(t, h, "odd")
	if _, err := d.Get(t.Context(), "port"); !errors.Is(err, network.ErrPortInUse) ||
		err.Error() != "bind for 0.0.0.0:80 failed: port is already allocated: already exists" {
		t.Errorf("port: %v", err)
	}
	if _, err := d.Get(t.Context(), "panic"); !errdefs.IsInternal(err) || !strings.Contains(err.Error(), "odd indeed") {
		t.Errorf("panic: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.Get(ctx, "block"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := d.Get(ctx, "block"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancel: %v", err)
	}
	if vs, err := d.List(t.Context()); err != nil || len(vs) != 1000 {
		t.Errorf("list: %d, %v", len(vs), err)
	}
	if st := await(t, h, "volume-odd", isState(StateReady)); st.Restarts != 0 {
		t.Errorf("errors restarted the plugin: %+v", st)
	}
}

func TestUnknownDriverNamesTheOthers(t *testing.T) {
	b := newBench(t)
	b.install(binary(t, "odd"), Volume, "odd", nil)
	h := b.start()
	_, err := h.Volume("nfs")
	if !errdefs.IsNotFound(err) || err.Error() != `volume driver "nfs" not found; available: odd` {
		t.Errorf("got %v", err)
	}
	_, err = h.Network("bridge")
	if !errdefs.IsNotFound(err) || err.Error() != `network driver "bridge" not found; available: none` {
		t.Errorf("got %v", err)
	}
}
