package plugin

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// drainTimeout is how long calls may last that are under way when an upgrade
// begins; new ones wait meanwhile.
const drainTimeout = 20 * time.Second

// UpgradeOptions say how a plugin's process is replaced.
type UpgradeOptions struct {
	Force bool // also by one with the same executable, or with fewer features
	// Drain is how long to wait for calls that are under way; 0: 20 s.
	Drain time.Duration
}

// Upgrade is what an upgrade did.
type Upgrade struct {
	Name     string
	From, To Version
	Paused   time.Duration // for which calls waited
}

// Version is one process of a plugin.
type Version struct {
	Version string // as the plugin says
	SHA256  string // of the executable, hex
	PID     int
}

type upgradeRequest struct {
	options UpgradeOptions
	answer  chan upgraded
}

type upgraded struct {
	done Upgrade
	err  error
}

// Upgrade replaces a running plugin's process by one of the files that are
// installed now, without an error for anybody who calls its driver: calls wait for
// the new process. If that does not start, lacks what the old one has or finds
// something else than the old one had, the old executable serves on.
// ErrNotModified if the installed executable runs already, ErrFailedPrecondition
// if none runs, ErrUnavailable if calls were under way for too long.
func (h *Host) Upgrade(ctx context.Context, name string, o UpgradeOptions) (Upgrade, error) {
	s, err := h.named(name)
	if err != nil {
		return Upgrade{}, err
	}
	request := &upgradeRequest{options: o, answer: make(chan upgraded, 1)}
	for {
		s.mu.Lock()
		status, changed := s.status, s.changed
		s.mu.Unlock()
		if status.State != StateReady && status.State != StateUpgrade {
			return Upgrade{}, fmt.Errorf("plugin %s is %s: the files that are installed are used when it starts: %w", s.found.name(), status.State, errdefs.ErrFailedPrecondition)
		}
		select {
		case s.requests <- request:
			select {
			case result := <-request.answer:
				return result.done, result.err
			case <-ctx.Done(): // it goes on
				return Upgrade{}, ctx.Err()
			}
		case <-changed:
		case <-ctx.Done():
			return Upgrade{}, ctx.Err()
		}
	}
}

// named finds a plugin by its name, or by its driver's where only one has that.
func (h *Host) named(name string) (*supervised, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var matches []*supervised
	for _, s := range h.plugins {
		switch name {
		case s.found.name():
			return s, nil
		case s.found.driver:
			matches = append(matches, s)
		}
	}
	switch len(matches) {
	case 0:
		return nil, errdefs.ErrNotFound.WithMessage("No such driver plugin: " + name)
	case 1:
		return matches[0], nil
	}
	return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("%s is the driver of several plugins (%s, %s): say which", name, matches[0].found.name(), matches[1].found.name()))
}

// upgrade puts another process in the place of old. It answers the one that
// serves now, or nil if none does.
//
// Only one process of a plugin ever works: the new one is started and asked what
// it is while the old one serves, but configured when that has ended. So no two
// can disagree about what they keep, and nothing has to fence them off.
func (s *supervised) upgrade(ctx context.Context, old *instance, o UpgradeOptions) (serving *instance, done Upgrade, err error) {
	done = Upgrade{Name: s.found.name(), From: old.identity()}
	m, sum, err := inspect(s.found)
	if err != nil {
		return old, done, err
	}
	if sum == old.sum && !o.Force {
		return old, done, errdefs.ErrNotModified.WithMessage(fmt.Sprintf("plugin %s runs what is installed: version %s", done.Name, old.version))
	}
	next, err := prepare(ctx, s.found, m, sum, nil, s.options)
	if err != nil {
		return old, done, fmt.Errorf("the old process serves on: %w", err)
	}
	if missing := lacking(old.features, next.features); len(missing) > 0 && !o.Force {
		next.end()
		return old, done, fmt.Errorf("version %s of %s lacks what the running one can do: %s (--force does without): %w",
			next.version, done.Name, strings.Join(missing, ", "), errdefs.ErrFailedPrecondition)
	}
	begin := time.Now()
	had, exe, err := s.quiet(ctx, old, o.Drain)
	if err != nil {
		next.end()
		return old, done, err
	}
	close(old.dead)
	old.stop(ctx)
	if err := s.takeOver(ctx, next, had); err != nil {
		s.log.Error("upgrade failed, going back", "error", err)
		back, failure := s.goBack(ctx, old, exe)
		if failure != nil {
			s.change(func(st *Status) { st.State, st.PID, st.LastError = StateBackoff, 0, failure.Error() })
			return nil, done, fmt.Errorf("%w; and the old executable does not start any more: %w", err, failure)
		}
		return back, done, fmt.Errorf("the old version serves again: %w", err)
	}
	_ = exe.Close()
	done.To, done.Paused = next.identity(), time.Since(begin)
	s.log.Info("driver upgraded", "pid", next.proc.pid(), "version", next.version, "paused", done.Paused)
	return next, done, nil
}

// quiet lets an instance come to rest, and answers what it has and its executable. If
// that fails it serves on.
func (s *supervised) quiet(ctx context.Context, inst *instance, patience time.Duration) (had []string, exe *os.File, err error) {
	s.change(func(st *Status) { st.State = StateUpgrade })
	defer func() {
		if err != nil {
			s.reopen(inst)
		}
	}()
	if err := s.drain(ctx, inst, patience); err != nil {
		return nil, nil, err
	}
	if had, err = inventory(ctx, s.found.kind, inst.conn); err != nil {
		return nil, nil, fmt.Errorf("asking the old process what it has: %w", err)
	}
	// Opened once more: the instance closes its own.
	if exe, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", inst.exe.Fd())); err != nil {
		return nil, nil, fmt.Errorf("keeping the old executable: %w", err)
	}
	return had, exe, nil
}

// takeOver lets a prepared process serve if it finds what the one before it had.
func (s *supervised) takeOver(ctx context.Context, next *instance, had []string) error {
	if err := next.configure(ctx); err != nil {
		return err
	}
	has, err := inventory(ctx, s.found.kind, next.conn)
	if err == nil {
		err = compare(had, has)
	}
	if err != nil {
		next.end()
		return fmt.Errorf("version %s of %s does not have what the old one had: %w", next.version, s.found.name(), err)
	}
	s.settle(ctx, next, true)
	return nil
}

// goBack starts the old executable again.
func (s *supervised) goBack(ctx context.Context, old *instance, exe *os.File) (*instance, error) {
	back, err := prepare(ctx, s.found, old.manifest, old.sum, exe, s.options)
	if err != nil {
		_ = exe.Close()
		return nil, err
	}
	if err := back.configure(ctx); err != nil {
		return nil, err
	}
	s.settle(ctx, back, true)
	return back, nil
}

// drain lets no new calls begin and waits for those under way.
func (s *supervised) drain(ctx context.Context, inst *instance, patience time.Duration) error {
	if patience <= 0 {
		patience = drainTimeout
	}
	s.mu.Lock()
	s.instance = nil
	drained := make(chan struct{})
	inst.drained = drained
	if inst.calls == 0 {
		close(drained)
	}
	s.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-drained:
		return nil
	case <-inst.proc.exited:
		return nil // what follows finds that out
	case <-timer.C:
		return fmt.Errorf("plugin %s is still working on calls of before after %s: try again later, or with a longer --timeout: %w", s.found.name(), patience, errdefs.ErrUnavailable)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reopen undoes drain.
func (s *supervised) reopen(inst *instance) {
	s.mu.Lock()
	s.instance, inst.drained = inst, nil
	s.mu.Unlock()
	s.change(func(st *Status) { st.State = StateReady })
}

// enter answers the running instance, as acquire does; leave is to be called at the
// end of the call that begins.
func (s *supervised) enter(ctx context.Context, endless bool, method string) (_ *instance, leave func(), err error) {
	counted := !lasts(method)
	inst, err := s.acquire(ctx, endless, counted)
	if err != nil {
		return nil, nil, err
	}
	if !counted {
		return inst, func() {}, nil
	}
	return inst, func() { s.left(inst) }, nil
}

// left ends a call that was counted.
func (s *supervised) left(inst *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if inst.calls--; inst.calls == 0 && inst.drained != nil {
		close(inst.drained)
	}
}

func (i *instance) identity() Version {
	return Version{Version: i.version, SHA256: i.sum, PID: i.proc.pid()}
}

// lacking lists what is in want but not in have.
func lacking(want, have []string) []string {
	set := map[string]bool{}
	for _, name := range want {
		set[name] = true
	}
	for _, name := range have {
		delete(set, name)
	}
	return slices.Sorted(maps.Keys(set))
}

// compare says what differs between what was there and what is.
func compare(had, has []string) error {
	const shown = 3
	describe := func(list []string) string {
		if len(list) > shown {
			return fmt.Sprintf("%s and %d more", strings.Join(list[:shown], ", "), len(list)-shown)
		}
		return strings.Join(list, ", ")
	}
	missing, added := lacking(had, has), lacking(has, had)
	switch {
	case len(missing) > 0 && len(added) > 0:
		return fmt.Errorf("%s became %s", describe(missing), describe(added))
	case len(missing) > 0:
		return fmt.Errorf("missing: %s", describe(missing))
	case len(added) > 0:
		return fmt.Errorf("unknown before: %s", describe(added))
	}
	return nil
}
