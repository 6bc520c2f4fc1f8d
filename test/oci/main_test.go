// Package oci tests davit-oci, the command-line runtime: every command against
// real bundles, and under the programs that start OCI runtimes.
package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/test/private"
)

// oci is the runtime with a state directory of its own.
type oci struct {
	t    *testing.T
	bin  string
	root string
	// id is the containers' prefix: cgroups are below the host's root, where names
	// must not meet.
	id string
	// global are options in front of every command.
	global []string
}

func newRuntime(t *testing.T) *oci {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	r := &oci{t: t, bin: program(t), root: filepath.Join(t.TempDir(), "root"), id: fmt.Sprintf("davit-oci-test-%d", os.Getpid())}
	t.Cleanup(r.clear)
	return r
}

func program(t *testing.T) string {
	t.Helper()
	dir, err := private.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "davit-oci")
}

// clear removes what a failed test left, and is the judge of leaks: when all
// containers are deleted there is neither a directory nor a cgroup.
func (r *oci) clear() {
	for _, id := range strings.Fields(r.must("list", "--quiet")) {
		r.must("delete", "--force", id)
	}
	entries, err := os.ReadDir(r.root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.t.Error(err)
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") { // caches
			r.t.Errorf("left in the state directory: %s", entry.Name())
		}
	}
	if left := cgroups(r.id); len(left) > 0 {
		r.t.Errorf("left cgroups: %s", left)
	}
}

// cgroups finds cgroups by the beginning of their names.
func cgroups(prefix string) []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), prefix) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// result is what a command said and how it ended.
type result struct {
	out, err string
	code     int
}

func (r *oci) command(args ...string) *exec.Cmd {
	return exec.Command(r.bin, slices.Concat([]string{"--root", r.root}, r.global, args)...)
}

func run(cmd *exec.Cmd) result {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return result{err: err.Error(), code: -1}
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// run runs a command. Its output goes to files, not pipes: a container that is
// left running keeps its streams.
func (r *oci) run(args ...string) result {
	r.t.Helper()
	dir := r.t.TempDir()
	stdout, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer stdout.Close()
	stderr, err := os.Create(filepath.Join(dir, "err"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer stderr.Close()
	cmd := r.command(args...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	timer := time.AfterFunc(private.Patience(30*time.Second), func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait()
	out, _ := os.ReadFile(stdout.Name())
	said, _ := os.ReadFile(stderr.Name())
	return result{string(out), string(said), cmd.ProcessState.ExitCode()}
}

func (r *oci) must(args ...string) string {
	r.t.Helper()
	got := r.run(args...)
	if got.code != 0 {
		r.t.Fatalf("davit-oci %s: exit code %d: %s", strings.Join(args, " "), got.code, got.err)
	}
	return got.out
}

// refuse runs a command that has to fail with a code and a text.
func (r *oci) refuse(code int, text string, args ...string) {
	r.t.Helper()
	got := r.run(args...)
	said := strings.ReplaceAll(got.err, `\"`, `"`) // the log quotes its messages
	if got.code != code || !strings.Contains(said, text) {
		r.t.Errorf("davit-oci %s: exit code %d, said %q; want %d and %q", strings.Join(args, " "), got.code, got.err, code, text)
	}
}

// state is the output of "state".
func (r *oci) state(id string) specs.State {
	r.t.Helper()
	var s specs.State
	if err := json.Unmarshal([]byte(r.must("state", id)), &s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// eventually waits for a condition that another process brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(private.Patience(30 * time.Second))
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// rootfs fills a directory with a static userland.
func rootfs(t *testing.T, dir string) {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox: install busybox-static")
	}
	for _, d := range []string{"bin", "etc", "tmp", "proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	body, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), body, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, applet := range strings.Fields("sh true false sleep cat echo id ls ps tty stty env pwd hostname mount kill wget touch head tail grep [") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
}

// bundle makes a bundle from what "spec" writes, with changes.
func (r *oci) bundle(args []string, change ...func(*specs.Spec)) string {
	r.t.Helper()
	dir := r.t.TempDir()
	rootfs(r.t, filepath.Join(dir, "rootfs"))
	r.must("spec", "--bundle", dir)
	var s specs.Spec
	name := filepath.Join(dir, "config.json")
	body, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	s.Process.Args, s.Process.Terminal = args, false
	for _, fn := range change {
		fn(&s)
	}
	if body, err = json.Marshal(s); err == nil {
		err = os.WriteFile(name, body, 0o644)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return dir
}

// without removes a namespace of a spec.
func without(kind specs.LinuxNamespaceType) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
	}
}
