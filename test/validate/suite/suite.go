// Package suite builds and runs the validation programs of
// opencontainers/runtime-tools, which speak TAP (Test Anything Protocol).
package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Suite is a directory with the built programs and what they need beside them.
type Suite struct{ dir string }

// Build builds the programs that a module pins into dir: all of them, or those
// that are named.
func Build(ctx context.Context, module, dir string, names ...string) (*Suite, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	out := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
		body, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return strings.TrimSpace(string(body)), err
	}
	const tools = "github.com/opencontainers/runtime-tools"
	source, err := out("list", "-m", "-f", "{{.Dir}}", tools)
	if err == nil && source == "" {
		if _, err = out("mod", "download", tools); err == nil {
			source, err = out("list", "-m", "-f", "{{.Dir}}", tools)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", tools, err)
	}
	entries, err := os.ReadDir(filepath.Join(source, "validation"))
	if err != nil {
		return nil, err
	}
	args := []string{"build", "-o", dir + "/", tools + "/cmd/runtimetest"}
	for _, entry := range entries {
		if entry.IsDir() && entry.Name() != "util" && (len(names) == 0 || slices.Contains(names, entry.Name())) {
			args = append(args, tools+"/validation/"+entry.Name())
		}
	}
	if _, err := out(args...); err != nil {
		return nil, fmt.Errorf("building the validation programs: %w", err)
	}
	archives, err := filepath.Glob(filepath.Join(source, "rootfs-*.tar.gz"))
	if err != nil {
		return nil, err
	}
	for _, archive := range archives {
		link := filepath.Join(dir, filepath.Base(archive))
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if err := os.Symlink(archive, link); err != nil {
			return nil, err
		}
	}
	return &Suite{dir}, nil
}

// Programs lists the programs by name.
func (s *Suite) Programs() []string {
	entries, _ := os.ReadDir(s.dir)
	var names []string
	for _, entry := range entries {
		if entry.Type().IsRegular() && entry.Name() != "runtimetest" {
			names = append(names, entry.Name())
		}
	}
	slices.Sort(names)
	return names
}

// Result is what one program found.
type Result struct {
	Passed, Skipped int
	Failed          []string // descriptions of failed checks
	// Broken says how the program itself ended, if not well, and Said is its last
	// complaint then or when it judged nothing.
	Broken string
	Said   string
}

// String is the result in a table's cell.
func (r Result) String() string {
	all := r.Passed + len(r.Failed)
	switch {
	case r.Broken != "" && all == 0:
		return r.Broken
	case r.Broken != "":
		return fmt.Sprintf("%d of %d, %s", r.Passed, all, r.Broken)
	case all == 0 && r.Skipped > 0:
		return "skipped"
	case all == 0:
		return "no checks"
	}
	return fmt.Sprintf("%d of %d", r.Passed, all)
}

// OK says that nothing failed.
func (r Result) OK() bool { return len(r.Failed) == 0 && r.Broken == "" }

// Run runs one program with a runtime. Its context bounds it: some wait for ever
// for what a runtime does not do.
func (s *Suite) Run(ctx context.Context, runtime, name string) (Result, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.dir, name))
	var out, said bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, append(os.Environ(), "RUNTIME="+runtime), &out, &said
	cmd.WaitDelay = time.Second // a container may hold the pipe
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && ctx.Err() == nil && !errors.Is(err, exec.ErrWaitDelay) {
		return Result{}, err
	}
	result := parse(out.String())
	switch {
	case ctx.Err() != nil:
		result.Broken = "timeout"
	case exit != nil && len(result.Failed) == 0:
		result.Broken = fmt.Sprintf("exit code %d", exit.ExitCode())
	}
	if result.Broken != "" || result.Passed+len(result.Failed) == 0 {
		result.Said = lastLine(said.String())
	}
	return result, nil
}

// lastLine is the last one that is no bare exit status.
func lastLine(text string) string {
	last := ""
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "exit status") {
			last = line
		}
	}
	return last
}

// parse reads TAP: "ok 1 - text # SKIP why", "not ok 2 - text". Programs that
// run runtimetest have its lines among their own.
func parse(tap string) Result {
	var r Result
	for line := range strings.Lines(tap) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "not ok "):
			r.Failed = append(r.Failed, description(strings.TrimPrefix(line, "not ok ")))
		case strings.HasPrefix(line, "ok ") && strings.Contains(strings.ToUpper(line), "# SKIP"):
			r.Skipped++
		case strings.HasPrefix(line, "ok "):
			r.Passed++
		}
	}
	return r
}

func description(line string) string {
	_, text, found := strings.Cut(line, " - ")
	if !found {
		text = line
	}
	return strings.TrimSpace(text)
}
