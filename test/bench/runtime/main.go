// Runtime measures davit-oci beside the OCI runtimes that are installed, taking
// turns in one run: the whole command "run" of a program that ends at once, the
// steps of its life one by one, and "exec". It judges nothing.
//
//	go run ./test/bench/runtime [-n ROUNDS] [-write FILE]
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/test/private"
)

func main() {
	rounds := flag.Int("n", 40, "rounds; every runtime runs once a round")
	write := flag.String("write", "", "also write the table to this `file`")
	flag.Parse()
	if err := run(*rounds, *write); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// hideUnified gives this process mounts of its own without the unified hierarchy
// beside cgroup v1, with which crun refuses to work.
func hideUnified() error {
	goruntime.LockOSThread() // the commands are started from here
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	err := unix.Unmount("/sys/fs/cgroup/unified", 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// oci is one runtime and its bundles.
type oci struct {
	name, program, root string
	samples             map[string][]float64
}

func (o *oci) command(args ...string) *exec.Cmd {
	return exec.Command(o.program, append([]string{"--root", o.root}, args...)...) //nolint:noctx // short, and bounded by the kernel
}

// timed runs a command and takes its time in milliseconds under a name; the empty
// name takes none. Its streams are files: a container keeps them.
func (o *oci) timed(name string, args ...string) error {
	cmd := o.command(args...)
	said, err := os.CreateTemp("", "davit-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = said.Close() }()
	_ = os.Remove(said.Name())
	cmd.Stdout, cmd.Stderr = said, said
	begin := time.Now()
	err = cmd.Run()
	if name != "" {
		o.samples[name] = append(o.samples[name], float64(time.Since(begin).Microseconds())/1000)
	}
	if err != nil {
		body := make([]byte, 500)
		n, _ := said.ReadAt(body, 0)
		return fmt.Errorf("%s %s: %w: %s", o.name, strings.Join(args, " "), err, body[:n])
	}
	return nil
}

func run(rounds int, write string) error {
	bin, err := private.BinDir()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "davit-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := hideUnified(); err != nil {
		return err
	}
	var runtimes []*oci
	for _, program := range []string{filepath.Join(bin, "davit-oci"), "crun", "runc"} {
		path, err := exec.LookPath(program)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s is left out: it is not installed\n", program)
			continue
		}
		name := filepath.Base(path)
		runtimes = append(runtimes, &oci{name, path, filepath.Join(dir, name), map[string][]float64{}})
	}
	short, err := bundle(filepath.Join(dir, "true"), "true")
	if err != nil {
		return err
	}
	long, err := bundle(filepath.Join(dir, "sleep"), "sleep", "100000")
	if err != nil {
		return err
	}
	if err := measure(runtimes, rounds, short, long); err != nil {
		return err
	}
	var table bytes.Buffer
	render(&table, runtimes, rounds)
	if write != "" {
		if err := os.WriteFile(write, table.Bytes(), 0o644); err != nil {
			return err
		}
	}
	_, err = io.Copy(os.Stdout, &table)
	return err
}

var operations = []string{"run", "create", "start", "delete", "exec"}

func measure(runtimes []*oci, rounds int, short, long string) (err error) {
	for _, o := range runtimes {
		if err := o.timed("", "run", "--detach", "--bundle", long, "bench-"+o.name); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.timed("", "delete", "--force", "bench-"+o.name)) }()
	}
	for round := range rounds + 2 {
		for _, o := range runtimes {
			id := fmt.Sprintf("bench-%s-%d", o.name, round)
			for _, step := range [][]string{
				{"run", "run", "--bundle", short, id},
				{"create", "create", "--bundle", long, id}, {"start", "start", id}, {"delete", "delete", "--force", id},
				{"exec", "exec", "bench-" + o.name, "true"},
			} {
				name := step[0]
				if round < 2 {
					name = "" // warms the caches
				}
				if err := o.timed(name, step[1:]...); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func render(w io.Writer, runtimes []*oci, rounds int) {
	fmt.Fprintf(w, "%d rounds, %s/%s, %d cores; milliseconds: median (minimum, 95th percentile).\n\n| command |", rounds, goruntime.GOOS, goruntime.GOARCH, goruntime.NumCPU())
	for _, o := range runtimes {
		fmt.Fprintf(w, " %s |", o.name)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(runtimes)))
	titles := map[string]string{"run": "`run` of `true`", "delete": "`delete --force` of a running container", "exec": "`exec` of `true`"}
	for _, name := range operations {
		title := titles[name]
		if title == "" {
			title = "`" + name + "`"
		}
		fmt.Fprintf(w, "| %s |", title)
		for _, o := range runtimes {
			s := slices.Sorted(slices.Values(o.samples[name]))
			fmt.Fprintf(w, " %.1f (%.1f, %.1f) |", s[len(s)/2], s[0], s[len(s)*95/100])
		}
		fmt.Fprintln(w)
	}
}

// bundle makes a bundle with a static userland that both davit-oci and the
// others take.
func bundle(dir string, args ...string) (string, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("%w: install busybox-static", err)
	}
	bin := filepath.Join(dir, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	program, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(bin, "busybox"), program, 0o755)
	}
	for _, applet := range []string{"true", "sleep"} {
		err = errors.Join(err, os.Symlink("busybox", filepath.Join(bin, applet)))
	}
	if err != nil {
		return "", err
	}
	own, err := private.BinDir()
	if err != nil {
		return "", err
	}
	if err := exec.Command(filepath.Join(own, "davit-oci"), "spec", "--bundle", dir).Run(); err != nil { //nolint:noctx // ends at once
		return "", err
	}
	name := filepath.Join(dir, "config.json")
	body, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	var spec specs.Spec
	if err := json.Unmarshal(body, &spec); err != nil {
		return "", err
	}
	spec.Version = "1.0.2" // the others may be older
	spec.Process.Args, spec.Process.Terminal = args, false
	if body, err = json.Marshal(spec); err != nil {
		return "", err
	}
	return dir, os.WriteFile(name, body, 0o644)
}
