// Package conformance judges driver plugins from outside: it starts a plugin's
// executable as the engine does, calls its drivers over the wire and compares what
// they do with the contract in sdk/proto. The plugin may be written in any
// language.
//
// Every check has a name that does not change and quotes the sentence of the
// contract that it judges.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/conformance/netlab"
	"github.com/davit-engine/davit/sdk/network"
	"github.com/davit-engine/davit/sdk/runtime"
)

// Kind is a kind of drivers.
type Kind string

// The kinds of drivers.
const (
	Storage Kind = "storage"
	Network Kind = "network"
	Runtime Kind = "runtime"
	Volume  Kind = "volume"
)

// Options say what is judged and how.
type Options struct {
	Path   string         // the plugin's executable
	Kind   Kind           // what it is judged as
	Name   string         // as in its manifest; empty: not compared
	Config map[string]any // settings, as the engine would send them

	// Dir is where the plugin's directories are made; empty for the system's place
	// for temporary files. It has to be on a filesystem that the driver can use.
	Dir string
	// DriverOptions are driver options that the driver under test accepts. A network
	// driver gets them for every network. Without any, checks of volume drivers that
	// need one are skipped.
	DriverOptions map[string]string

	Match   *regexp.Regexp // only checks whose names it matches; nil: all
	Timeout time.Duration  // of one check; 0: a minute
	// Log gets what the plugin logs; nil: nobody does.
	Log func(line string)
	// Done is called after each check; nil: nobody is told.
	Done func(Result)

	// Guest is a static program that calls guest.Main; empty for the one that runs. It
	// is what runs in containers of runtime drivers.
	Guest string

	host *netlab.Host // where the plugin is started; nil: on the machine
}

// Check is one sentence of the contract and how it is judged.
type Check struct {
	Name string // "<kind>/<subject>"; it does not change
	Rule string // the sentence, as it is in the proto
	Need string // feature without which it is skipped; empty: mandatory
	run  func(t *T)
}

// Outcome is how a check ended.
type Outcome string

// The outcomes.
const (
	Pass Outcome = "pass"
	Fail Outcome = "fail"
	Skip Outcome = "skip"
)

// Result is one check and its outcome.
type Result struct {
	Name    string        `json:"name"`
	Rule    string        `json:"rule"`
	Outcome Outcome       `json:"outcome"`
	Why     []string      `json:"why,omitempty"` // what was wrong, or why it was skipped
	Took    time.Duration `json:"took_ns"`
}

// Report is what was found out about a plugin.
type Report struct {
	Plugin   string   `json:"plugin"`
	Version  string   `json:"version"`
	Kind     Kind     `json:"kind"`
	Path     string   `json:"path"`
	Features []string `json:"features"`
	Results  []Result `json:"results"`
}

// Count answers how many checks ended so.
func (r *Report) Count(o Outcome) int {
	n := 0
	for _, result := range r.Results {
		if result.Outcome == o {
			n++
		}
	}
	return n
}

// Checks are those of a kind, in the order in which they are made.
func Checks(kind Kind) []Check {
	checks := identityChecks()
	switch kind {
	case Storage:
		checks = slices.Concat(checks, storageChecks())
	case Volume:
		checks = slices.Concat(checks, volumeChecks(), volumeOptionalChecks())
	case Network:
		checks = slices.Concat(checks, networkChecks(), networkPortChecks())
	case Runtime:
		checks = slices.Concat(checks, runtimeChecks(), runtimeStreamChecks(), runtimeExecChecks(), runtimeOptionalChecks())
	}
	return append(checks, leftovers())
}

// Run judges a plugin. An error says that it could not be judged at all.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.Kind == "" || !slices.Contains([]Kind{Storage, Network, Runtime, Volume}, o.Kind) {
		return nil, fmt.Errorf("kind %q is none of storage, network, runtime, volume: %w", o.Kind, errdefs.ErrInvalidArgument)
	}
	b, err := newBench(o)
	if err != nil {
		return nil, err
	}
	report := &Report{Kind: o.Kind, Path: o.Path}
	if err := b.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", o.Path, err), b.close())
	}
	report.Plugin, report.Version, report.Features = b.plug.info.GetName(), b.plug.info.GetVersion(), b.plug.features
	for _, check := range Checks(o.Kind) {
		if ctx.Err() != nil {
			break
		}
		if o.Match != nil && !o.Match.MatchString(check.Name) {
			continue
		}
		result := b.judge(ctx, check)
		report.Results = append(report.Results, result)
		if o.Done != nil {
			o.Done(result)
		}
	}
	return report, errors.Join(ctx.Err(), b.close())
}

// T is a check that is being made. It is like testing.T, which a program cannot
// have.
type T struct {
	*bench
	ctx     context.Context
	prefix  string // of names, so that no check meets another's
	outcome Outcome
	why     []string
	undo    []func()
}

// judge makes one check, with a process that serves.
func (b *bench) judge(ctx context.Context, check Check) Result {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	b.count++
	t := &T{bench: b, ctx: ctx, prefix: fmt.Sprintf("kit%d-", b.count), outcome: Pass}
	if check.Need != "" && !slices.Contains(b.features(), check.Need) {
		t.outcome, t.why = Skip, []string{"the driver has no feature " + check.Need}
	} else {
		t.do(func() {
			t.must(b.start(ctx), "starting the plugin")
			check.run(t)
		})
	}
	for _, undo := range slices.Backward(t.undo) {
		t.do(undo)
	}
	if t.outcome == Fail {
		b.kill() // the next check is not to suffer from this one
	}
	return Result{Name: check.Name, Rule: check.Rule, Outcome: t.outcome, Why: t.why, Took: time.Since(begun)}
}

// do calls fn, which fatal and skip end.
func (t *T) do(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if cause := recover(); cause != nil {
				t.errorf("the check panicked: %v", cause)
			}
		}()
		fn()
	}()
	<-done
}

func (t *T) errorf(format string, args ...any) {
	t.outcome = Fail
	t.why = append(t.why, fmt.Sprintf(format, args...))
}

func (t *T) fatalf(format string, args ...any) {
	t.errorf(format, args...)
	goruntime.Goexit()
}

func (t *T) skipf(format string, args ...any) {
	t.outcome = Skip
	t.why = append(t.why, fmt.Sprintf(format, args...))
	goruntime.Goexit()
}

// cleanup has fn called when the check is over, the last one first.
func (t *T) cleanup(fn func()) { t.undo = append(t.undo, fn) }

// name is one that no other check uses.
func (t *T) name(s string) string { return t.prefix + s }

// must ends the check if something failed that has to work.
func (t *T) must(err error, what string, args ...any) {
	if err != nil {
		t.fatalf("%s: %v", fmt.Sprintf(what, args...), err)
	}
}

// fails wants an error of a kind.
func (t *T) fails(err, kind error, what string, args ...any) {
	if err == nil {
		t.errorf("%s succeeded, and should have failed with %s", fmt.Sprintf(what, args...), reason(kind))
	} else if !errors.Is(err, kind) {
		t.errorf("%s failed with %s (%v), and should have failed with %s", fmt.Sprintf(what, args...), reason(err), err, reason(kind))
	}
}

// reason names the kind of an error as the contract does.
func reason(err error) string {
	for _, k := range []struct {
		kind error
		name string
	}{
		{network.ErrPortInUse, "PORT_IN_USE"}, {runtime.ErrCommandNotFound, "COMMAND_NOT_FOUND"},
		{runtime.ErrNotExecutable, "COMMAND_NOT_EXECUTABLE"}, {errdefs.ErrResourceExhausted, "RESOURCE_EXHAUSTED"},
		{errdefs.ErrInvalidArgument, "INVALID_ARGUMENT"}, {errdefs.ErrNotFound, "NOT_FOUND"},
		{errdefs.ErrAlreadyExists, "ALREADY_EXISTS"}, {errdefs.ErrFailedPrecondition, "FAILED_PRECONDITION"},
		{errdefs.ErrNotImplemented, "NOT_IMPLEMENTED"}, {errdefs.ErrUnavailable, "UNAVAILABLE"},
		{errdefs.ErrInternal, "INTERNAL"}, {context.DeadlineExceeded, "DEADLINE_EXCEEDED"},
	} {
		if errors.Is(err, k.kind) {
			return k.name
		}
	}
	return "UNKNOWN"
}

// together calls fn n times at once and answers the errors.
func together(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	done := make(chan struct{})
	for i := range n {
		go func() {
			defer func() { done <- struct{}{} }()
			errs[i] = fn(i)
		}()
	}
	for range n {
		<-done
	}
	return errs
}

// oneSucceeds wants exactly one success, and all other errors of a kind.
func (t *T) oneSucceeds(errs []error, kind error, what string) {
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, kind):
			t.errorf("%s: one failed with %s (%v) instead of %s", what, reason(err), err, reason(kind))
		}
	}
	if won != 1 {
		t.errorf("%s: %d of %d succeeded, not one", what, won, len(errs))
	}
}

// eventually looks until what should be is, or for five seconds, and answers what was
// seen last.
func eventually[V any](look func() (V, bool)) V {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if seen, ok := look(); ok || time.Now().After(deadline) {
			return seen
		}
	}
}

// missing says which of the wanted are not there.
func missing(have []string, want ...string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(s string) bool { return slices.Contains(have, s) })
}

// oneLine makes a rule fit into a line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
