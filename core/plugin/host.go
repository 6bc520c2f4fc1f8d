// Package plugin finds driver plugins, runs their processes and answers the
// drivers in them.
//
// A [Host] starts every plugin in its directories, restarts those that die, and
// routes calls to the present process. It knows nothing about what drivers do;
// after a restart it calls a hook and the engine reconciles.
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

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/network"
	"github.com/davit-engine/davit/sdk/network/networkgrpc"
	"github.com/davit-engine/davit/sdk/runtime"
	"github.com/davit-engine/davit/sdk/runtime/runtimegrpc"
	"github.com/davit-engine/davit/sdk/storage"
	"github.com/davit-engine/davit/sdk/storage/storagegrpc"
	"github.com/davit-engine/davit/sdk/volume"
	"github.com/davit-engine/davit/sdk/volume/volumegrpc"
)

// Host runs the plugins. Its methods are safe for concurrent use.
type Host struct {
	options Options
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu        sync.RWMutex // never held across a call to a plugin
	plugins   []*supervised
	onRestart func(ctx context.Context, kind Kind, driver string)
	closed    bool
}

// maxRun leaves room, in the 107 characters of a unix socket's path, for
// "/plugins/plugin-dir" and "/plugin" with ten digits each.
const maxRun = 107 - len("/plugins/plugin-dir") - len("/plugin") - 2*10

// New checks the options. Nothing runs before Start.
func New(o Options) (*Host, error) {
	for _, path := range append([]string{o.Root, o.Run}, o.Dirs...) {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("plugin host: path %q is not absolute: %w", path, errdefs.ErrInvalidArgument)
		}
	}
	if len(o.Run) > maxRun {
		return nil, fmt.Errorf("run directory %s is too long for the sockets below it: %d characters, at most %d: %w",
			o.Run, len(o.Run), maxRun, errdefs.ErrInvalidArgument)
	}
	for kind := range o.Defaults {
		if _, ok := kinds()[kind]; !ok {
			return nil, fmt.Errorf("plugin host: default for %q, which is none of %s: %w", kind, known(kinds()), errdefs.ErrInvalidArgument)
		}
	}
	h := &Host{options: o.withDefaults()}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h, nil
}

// OnRestart sets the function that is called each time a plugin's process was
// replaced. Until it returns (10 s at most) only calls with its context reach the
// new process; others wait as they do for a plugin that starts. To be set before
// Start.
func (h *Host) OnRestart(fn func(ctx context.Context, kind Kind, driver string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onRestart = fn
}

// Start finds the plugins and begins to launch them. It does not wait for them,
// and a plugin that is missing or broken is no error here: see Ready and List.
func (h *Host) Start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	sockets := filepath.Join(h.options.Run, "plugins")
	// What is there belonged to processes that ended with the engine before us.
	if err := os.RemoveAll(sockets); err != nil {
		return fmt.Errorf("clearing plugin sockets: %w", err)
	}
	if err := os.MkdirAll(sockets, 0o700); err != nil {
		return fmt.Errorf("making directory of plugin sockets: %w", err)
	}
	plugins, err := discover(h.options.Dirs)
	if err != nil {
		h.options.Logger.Warn("some plugin directories cannot be read", "error", err)
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.plugins != nil {
		return fmt.Errorf("plugin host was started before: %w", errdefs.ErrFailedPrecondition)
	}
	names := make(map[string]bool)
	for _, f := range plugins {
		names[f.name()] = true
		s := supervise(f, h.options, func(ctx context.Context, again bool) { h.ready(ctx, f, again) })
		h.plugins = append(h.plugins, s)
		h.wg.Go(func() { s.run(h.ctx) })
	}
	for name := range h.options.Config {
		if !names[name] {
			h.options.Logger.Warn("configuration for a plugin that is not installed", "plugin", name)
		}
	}
	return nil
}

// ready is called by a plugin's supervisor, whose place in wg keeps it above zero.
func (h *Host) ready(ctx context.Context, f found, again bool) {
	h.mu.RLock()
	hook := h.onRestart
	h.mu.RUnlock()
	if again && hook != nil {
		hook(ctx, f.kind, f.driver)
	}
}

// Ready waits until the default driver of every kind can be called. The error
// names those that cannot.
func (h *Host) Ready(ctx context.Context) error {
	var problems []error
	for kind, name := range h.options.Defaults {
		s, err := h.find(kind, name)
		if err == nil {
			_, err = s.acquire(ctx, false, false)
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// Called waits until somebody has called a driver that is started on demand; with
// others it does not wait. It does not call.
func (h *Host) Called(ctx context.Context, kind Kind, name string) error {
	s, err := h.find(kind, name)
	if err != nil {
		return err
	}
	return s.awaitCalled(ctx)
}

// Close ends all plugins and waits for them and for hooks.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	h.wg.Wait()
	return nil
}

// Default is the driver used where none is named.
func (h *Host) Default(kind Kind) string { return h.options.Defaults[kind] }

// List describes all plugins, sorted by name.
func (h *Host) List() []Status {
	h.mu.RLock()
	plugins := slices.Clone(h.plugins)
	h.mu.RUnlock()
	out := make([]Status, len(plugins))
	for i, s := range plugins {
		out[i] = s.report()
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Storage answers a storage driver; it is always a storage.Differ, whose Diff is
// ErrNotImplemented where the driver has none.
func (h *Host) Storage(name string) (storage.Driver, error) {
	s, err := h.find(Storage, name)
	if err != nil {
		return nil, err
	}
	return storagegrpc.NewClient(route{s}), nil
}

// Network answers a network driver.
func (h *Host) Network(name string) (network.Driver, error) {
	s, err := h.find(Network, name)
	if err != nil {
		return nil, err
	}
	return networkgrpc.NewClient(route{s}), nil
}

// Runtime answers a runtime driver.
func (h *Host) Runtime(name string) (runtime.Driver, error) {
	s, err := h.find(Runtime, name)
	if err != nil {
		return nil, err
	}
	return runtimegrpc.NewClient(route{s}), nil
}

// Volume answers a volume driver.
func (h *Host) Volume(name string) (volume.Driver, error) {
	s, err := h.find(Volume, name)
	if err != nil {
		return nil, err
	}
	return volumegrpc.NewClient(route{s}), nil
}

func (h *Host) find(kind Kind, name string) (*supervised, error) {
	if name == "" {
		name = h.options.Defaults[kind]
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	available := make(map[string]bool)
	for _, s := range h.plugins {
		if s.found.kind != kind {
			continue
		}
		if s.found.driver == name {
			return s, nil
		}
		available[s.found.driver] = true
	}
	return nil, fmt.Errorf("%s driver %q not found; available: %s%w", kind, name, known(available), silent{errdefs.ErrNotFound})
}

// silent gives an error a kind without adding to its text.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }
