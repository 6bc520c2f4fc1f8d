package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// row is one operation: samples by engine.
type row struct {
	title   string
	unit    string
	digits  int
	samples map[string][]float64
}

type table struct {
	engines []string
	rows    []*row
}

// measure runs every operation; within a round the engines take turns.
func (t *table) measure(ctx context.Context, engines []engine, rounds, containers int) error {
	if err := t.memory(ctx, engines, containers); err != nil {
		return err
	}
	operations := []struct {
		title string
		do    func(context.Context, engine, int) (float64, error)
		unit  string
	}{
		{"run --rm true, bridge", runRm("bridge"), "ms"},
		{"run --rm true, --network none", runRm("none"), "ms"},
		{"exec true", execTrue, "ms"},
		{"stop of a process that obeys SIGTERM", stopOne, "ms"},
	}
	for _, e := range engines {
		if err := quiet(e.command(ctx, "run", "-d", "--name", "bench-exec", imageName, "/bin/sleep", "100000")); err != nil {
			return err
		}
	}
	for _, op := range operations {
		r := t.add(op.title, op.unit, 1)
		for round := range rounds {
			for _, e := range engines {
				value, err := op.do(ctx, e, round)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", e.name(), op.title, err)
				}
				r.samples[e.name()] = append(r.samples[e.name()], value)
			}
		}
	}
	for _, e := range engines {
		if err := quiet(e.command(ctx, "rm", "-f", "bench-exec")); err != nil {
			return err
		}
	}
	r := t.add("start, 8 at a time, bridge", "/s", 1)
	for range max(1, rounds/5) {
		for _, e := range engines {
			value, err := parallelStart(ctx, e)
			if err != nil {
				return fmt.Errorf("%s: parallel start: %w", e.name(), err)
			}
			r.samples[e.name()] = append(r.samples[e.name()], value)
		}
	}
	return t.streams(ctx, engines, max(1, rounds/5))
}

func (t *table) add(title, unit string, digits int) *row {
	r := &row{title: title, unit: unit, digits: digits, samples: map[string][]float64{}}
	t.rows = append(t.rows, r)
	return r
}

// column adds one that is no engine.
func (t *table) column(name string) {
	if !slices.Contains(t.engines, name) {
		t.engines = append(t.engines, name)
	}
}

func runRm(network string) func(context.Context, engine, int) (float64, error) {
	return func(ctx context.Context, e engine, _ int) (float64, error) {
		return timed(func() error {
			return quiet(e.command(ctx, "run", "--rm", "--network", map[bool]string{true: "podman", false: network}[e.name() == "podman" && network == "bridge"], imageName, "/bin/true"))
		})
	}
}

func execTrue(ctx context.Context, e engine, _ int) (float64, error) {
	return timed(func() error { return quiet(e.command(ctx, "exec", "bench-exec", "/bin/true")) })
}

func stopOne(ctx context.Context, e engine, round int) (float64, error) {
	name := "bench-stop" + strconv.Itoa(round)
	// A shell as init takes SIGTERM when it has a trap for it.
	if err := quiet(e.command(ctx, "run", "-d", "--name", name, imageName, "/bin/sh", "-c", `trap "exit 0" TERM; while :; do sleep 1000 & wait; done`)); err != nil {
		return 0, err
	}
	time.Sleep(50 * time.Millisecond) // the trap is not set at once; not part of the measurement
	value, err := timed(func() error { return quiet(e.command(ctx, "stop", name)) })
	if err != nil {
		return 0, err
	}
	return value, quiet(e.command(ctx, "rm", "-f", name))
}

const parallel, perRound = 8, 40

// parallelStart answers containers per second, created and started, 8 at a time.
func parallelStart(ctx context.Context, e engine) (float64, error) {
	names := make([]string, perRound)
	for i := range names {
		names[i] = "bench-p" + strconv.Itoa(i)
	}
	work := make(chan string)
	errs := make(chan error, parallel)
	var group sync.WaitGroup
	begin := time.Now()
	for range parallel {
		group.Go(func() {
			for name := range work {
				if err := quiet(e.command(ctx, "run", "-d", "--name", name, imageName, "/bin/sleep", "100000")); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			}
		})
	}
	for _, name := range names {
		work <- name
	}
	close(work)
	group.Wait()
	seconds := time.Since(begin).Seconds()
	err := quiet(e.command(ctx, append([]string{"rm", "-f"}, names...)...))
	select {
	case first := <-errs:
		return 0, first
	default:
	}
	return perRound / seconds, err
}

func timed(do func() error) (float64, error) {
	begin := time.Now()
	err := do()
	return float64(time.Since(begin).Microseconds()) / 1000, err
}

// memory measures the engine alone and then what idle containers add, as
// proportional set size.
func (t *table) memory(ctx context.Context, engines []engine, containers int) error {
	idle, each := t.add("idle memory of all engine processes", "MB PSS", 1), t.add("memory per idle container", "MB PSS", 2)
	for _, e := range engines {
		before := pss(e.idle())
		if e.idle() != nil {
			idle.samples[e.name()] = []float64{before}
		}
		all := systemPss()
		remove, err := resident(ctx, e, containers)
		if err == nil {
			each.samples[e.name()] = []float64{(systemPss() - all) / float64(containers)}
		}
		if err := errors.Join(err, remove()); err != nil {
			return err
		}
	}
	return nil
}

// resident starts idle containers on a network that is large enough for them. They
// are to be removed, also after an error.
func resident(ctx context.Context, e engine, containers int) (remove func() error, err error) {
	const network = "bench-residents"
	var names []string
	remove = func() error {
		ctx := context.WithoutCancel(ctx)
		var err error
		if len(names) > 0 {
			err = quiet(e.command(ctx, append([]string{"rm", "-f"}, names...)...))
		}
		return errors.Join(err, quiet(e.command(ctx, "network", "rm", network)))
	}
	if err := quiet(e.command(ctx, "network", "create", "--subnet", "10.213.0.0/20", network)); err != nil {
		return func() error { return nil }, err
	}
	for i := range containers {
		name := "bench-m" + strconv.Itoa(i)
		if err := quiet(e.command(ctx, "run", "-d", "--network", network, "--name", name, imageName, "/bin/sleep", "100000")); err != nil {
			return remove, err
		}
		names = append(names, name)
	}
	return remove, nil
}

// tree lists a process and its descendants.
func tree(root int) []int {
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, task := range tasks {
			b, _ := os.ReadFile(task)
			for _, field := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(field); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// pss adds up the proportional set sizes in MB.
func pss(pids []int) float64 {
	var sum float64
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				sum += kb / 1024
			}
		}
	}
	return sum
}

func systemPss() float64 {
	entries, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(filepath.Base(entry)); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pss(pids)
}

// print writes a Markdown table: median (min, p95), and the ratio to davit.
func (t *table) print(w io.Writer, rounds int) error {
	fmt.Fprintf(w, "# Benchmarks\n\n%d rounds, engines taking turns within each, %s/%s, %d cores. Median (minimum, 95th percentile); × is the ratio to davit.\n\n| operation |", rounds, runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	for _, e := range t.engines {
		fmt.Fprintf(w, " %s |", e)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(t.engines)))
	for _, r := range t.rows {
		fmt.Fprintf(w, "| %s (%s) |", r.title, r.unit)
		base := quantile(r.samples["davit"], 0.5)
		for _, e := range t.engines {
			s := r.samples[e]
			switch {
			case len(s) == 0:
				fmt.Fprint(w, " – |")
			case len(s) == 1:
				fmt.Fprintf(w, " %.*f%s |", r.digits, s[0], ratio(e, s[0], base))
			default:
				middle := quantile(s, 0.5)
				fmt.Fprintf(w, " %.*f (%.*f, %.*f)%s |", r.digits, middle, r.digits, quantile(s, 0), r.digits, quantile(s, 0.95), ratio(e, middle, base))
			}
		}
		fmt.Fprintln(w)
	}
	return nil
}

func ratio(engine string, value, base float64) string {
	if engine == "davit" || base == 0 {
		return ""
	}
	return fmt.Sprintf(" ×%.1f", value/base)
}

func quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
