package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 10 * time.Second
	// A process that lived this long is restarted as if it had never died.
	stable = 10 * time.Second
	// After so many failures in a row calls do not wait for the next try.
	patience = 5
	// How often the files of a plugin that cannot work are looked at.
	recheck = 2 * time.Second
)

// supervised is one plugin and the care for its process. The states and who
// may change them (only run):
//
//	starting --on demand-> idle --called--> starting
//	starting --launched--> ready --died--> backoff --waited--> starting
//	starting --failed----> backoff
//	starting --permanent-> failed  --files changed--> starting
//	ready    --asked-----> upgrading --switched, or not--> ready
//	any      --closed----> stopped
//
// A plugin that is started on demand is idle until somebody calls it, unless it is
// its kind's default or has left something in its directories: then it may have to
// be asked about that.
type supervised struct {
	found   found
	options Options
	log     *slog.Logger
	onReady func(ctx context.Context, again bool) // see settle

	mu       sync.Mutex
	status   Status
	instance *instance     // with StateReady
	settling *instance     // started again, and only for the hook yet
	failures int           // in a row
	changed  chan struct{} // closed and replaced at every change

	called   chan struct{} // has one when somebody has called
	requests chan *upgradeRequest
}

func supervise(f found, o Options, onReady func(context.Context, bool)) *supervised {
	return &supervised{
		found: f, options: o, log: o.Logger.With("plugin", f.name()), onReady: onReady,
		changed: make(chan struct{}), called: make(chan struct{}, 1), requests: make(chan *upgradeRequest),
		status: Status{
			Name: f.name(), Kind: f.kind, Driver: f.driver, Path: f.path,
			Default: o.Defaults[f.kind] == f.driver, State: StateStarting, Since: time.Now(),
		},
	}
}

// run keeps the plugin alive until ctx ends.
func (s *supervised) run(ctx context.Context) {
	defer s.change(func(st *Status) { st.State = StateStopped })
	delay := minBackoff
	s.idle(ctx)
	for again := false; ctx.Err() == nil; again = true {
		seen := fingerprint(s.found)
		inst, err := s.launch(ctx, again)
		if ctx.Err() != nil {
			if inst != nil {
				s.retire(ctx, inst, nil)
			}
			return
		}
		if err == nil {
			started := time.Now()
			s.settle(ctx, inst, again)
			s.log.Info("driver ready", "pid", inst.proc.pid(), "version", inst.version)
			err = s.serve(ctx, inst)
			if ctx.Err() != nil {
				return
			}
			if time.Since(started) >= stable {
				delay = minBackoff
			}
		}
		var final permanent
		if errors.As(err, &final) {
			s.log.Error("driver cannot work", "error", err)
			s.change(func(st *Status) { st.State, st.LastError = StateFailed, err.Error() })
			s.waitForFiles(ctx, seen)
			delay = minBackoff
			continue
		}
		s.log.Warn("driver died or did not start, trying again", "error", err, "in", delay)
		s.change(func(st *Status) { st.State, st.LastError = StateBackoff, err.Error() })
		pause(ctx, delay)
		delay = min(2*delay, maxBackoff)
	}
}

// serve watches an instance, and those that take its place, until one is lost.
func (s *supervised) serve(ctx context.Context, inst *instance) error {
	for {
		request, err := inst.watch(ctx, s.requests)
		if request == nil {
			s.retire(ctx, inst, err)
			return err
		}
		next, done, err := s.upgrade(ctx, inst, request.options)
		request.answer <- upgraded{done, err}
		if next == nil {
			return err
		}
		inst = next
	}
}

// idle waits for the first call of a plugin that is started on demand. What is
// wrong with its files is found at its launch.
func (s *supervised) idle(ctx context.Context) {
	if s.report().Default || s.hasState() {
		return
	}
	if m, err := readManifest(s.found); err != nil || !m.OnDemand {
		return
	}
	m, sum, err := inspect(s.found)
	if err != nil {
		return
	}
	s.change(func(st *Status) { st.State, st.Version, st.SHA256 = StateIdle, m.Version, sum })
	select {
	case <-s.called:
		s.change(func(st *Status) { st.State = StateStarting })
	case <-ctx.Done():
	}
}

// hasState says whether a plugin has left something in its directories.
func (s *supervised) hasState() bool {
	for _, dir := range []string{s.options.Root, s.options.Run} {
		entries, err := os.ReadDir(filepath.Join(dir, "drivers", s.found.name()))
		if len(entries) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

func (s *supervised) launch(ctx context.Context, again bool) (*instance, error) {
	s.change(func(st *Status) {
		st.State = StateStarting
		if again {
			st.Restarts++
		}
	})
	m, sum, err := inspect(s.found)
	if err != nil {
		return nil, permanent{err}
	}
	s.change(func(st *Status) { st.Version, st.SHA256 = m.Version, sum })
	inst, err := launch(ctx, s.found, m, sum, s.options)
	if err != nil {
		s.mu.Lock()
		s.failures++
		s.mu.Unlock()
		return nil, err
	}
	return inst, nil
}

// settleTimeout bounds how long the hook may keep a driver to itself.
const settleTimeout = 10 * time.Second

// inHook marks the context of a hook's calls.
type inHook struct{ plugin *supervised }

// settle lets the hook put a new process in order before others may call it.
func (s *supervised) settle(ctx context.Context, inst *instance, again bool) {
	if again {
		s.mu.Lock()
		s.settling = inst
		s.mu.Unlock()
		hook, cancel := context.WithTimeout(context.WithValue(ctx, inHook{s}, true), settleTimeout)
		s.onReady(hook, again)
		cancel()
	}
	s.mu.Lock()
	s.instance, s.settling, s.failures = inst, nil, 0
	s.mu.Unlock()
	s.change(func(st *Status) {
		st.State, st.PID, st.Features, st.SHA256 = StateReady, inst.proc.pid(), inst.features, inst.sum
		if inst.version != "" {
			st.Version = inst.version
		}
	})
}

// retire takes an instance out of use, first of all for new calls.
func (s *supervised) retire(ctx context.Context, inst *instance, reason error) {
	s.mu.Lock()
	s.instance = nil
	s.mu.Unlock()
	s.change(func(st *Status) {
		st.PID = 0
		st.State = StateStopped
		if reason != nil {
			st.State, st.LastError = StateBackoff, reason.Error()
		}
	})
	close(inst.dead)
	if reason == nil {
		inst.stop(ctx)
	} else {
		inst.end()
	}
}

func (s *supervised) change(fn func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.status.State
	fn(&s.status)
	if s.status.State != before {
		s.status.Since = time.Now()
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// waitForFiles returns when somebody has changed the plugin's files, so that
// what is mended comes up without a restart of the engine.
func (s *supervised) waitForFiles(ctx context.Context, seen string) {
	for ctx.Err() == nil && fingerprint(s.found) == seen {
		pause(ctx, recheck)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// acquire answers the running instance and waits for it while it is started or
// restarted, as long as ctx allows and, unless endless, as success is likely. If
// counted is set a call begins, see left.
func (s *supervised) acquire(ctx context.Context, endless, counted bool) (*instance, error) {
	hook := ctx.Value(inHook{s}) != nil
	select {
	case s.called <- struct{}{}:
	default:
	}
	for {
		s.mu.Lock()
		inst, state, changed := s.instance, s.status, s.changed
		if hook && s.settling != nil {
			inst = s.settling
		}
		if inst != nil && counted {
			inst.calls++
		}
		hopeless := !endless && (s.failures >= patience || state.State == StateFailed)
		s.mu.Unlock()
		switch {
		case inst != nil:
			return inst, nil
		case hopeless:
			return nil, s.unavailable("does not work", state.LastError)
		case state.State == StateStopped:
			return nil, s.unavailable("is stopped", "the engine is shutting down")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, s.unavailable("is not ready", state.LastError)
		}
	}
}

// awaitCalled waits for the end of being idle, and for a plugin to be known as not
// idle.
func (s *supervised) awaitCalled(ctx context.Context) error {
	for {
		s.mu.Lock()
		state, changed := s.status, s.changed
		s.mu.Unlock()
		if state.State != StateIdle && (state.State != StateStarting || state.SHA256 != "") {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *supervised) unavailable(what, why string) error {
	if why == "" {
		why = "it is still starting"
	}
	return fmt.Errorf("%s driver %q %s: %s: %w", s.found.kind, s.found.driver, what, why, errdefs.ErrUnavailable)
}

// died is the error of a call whose process was lost under it.
func (s *supervised) died() error {
	return s.unavailable("died during the call", s.report().LastError)
}

// report answers the present status.
func (s *supervised) report() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Features = append([]string(nil), st.Features...)
	return st
}
