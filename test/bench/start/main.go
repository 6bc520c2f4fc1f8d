// Start measures how long the runtime driver takes from the core's call to the
// execve of a container's program: Create and Start over gRPC, with the mounts,
// capabilities, seccomp profile, masks and cgroups of "docker run". It judges
// nothing.
//
//	go run ./test/bench/start [-n ROUNDS] [-mtls=false] [-trace]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/core/netns"
	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/core/spec"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/runtime"
	"github.com/davit-engine/davit/test/private"
)

func main() {
	rounds := flag.Int("n", 60, "containers to start")
	mtls := flag.Bool("mtls", true, "TLS between core and driver, as by default")
	traced := flag.Bool("trace", false, "also print what each step of Create took, in another run")
	flag.Parse()
	err := run(context.Background(), *rounds, *mtls, nil)
	if err == nil && *traced {
		err = run(context.Background(), *rounds, *mtls, newSteps())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is the driver and what containers are made of.
type bench struct {
	dir    string
	cgroup string
	driver runtime.Driver
	spaces *netns.Pool
	times  map[string][]float64 // milliseconds, by step
}

// run starts containers and prints their times, or with steps what the driver
// says of its own: asking it takes time, too.
func run(ctx context.Context, rounds int, mtls bool, s *steps) (err error) {
	bin, err := private.BinDir()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "davit-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// In memory, as an installed engine's.
	live, err := os.MkdirTemp("/run", "davit-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(live)) }()
	b := &bench{dir: dir, cgroup: "/davit-bench-" + strconv.Itoa(os.Getpid()), times: map[string][]float64{}}
	host, err := plugin.New(plugin.Options{
		Dirs: []string{filepath.Join(bin, "plugins")}, Root: filepath.Join(dir, "root"), Run: live, EngineID: "bench",
		Defaults: map[plugin.Kind]string{plugin.Runtime: "native"}, AutoMTLS: mtls,
		Logger: s.logger(),
	})
	if err != nil {
		return err
	}
	if err := host.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close(), b.removeCgroups()) }()
	if err := host.Ready(ctx); err != nil {
		return err
	}
	if b.driver, err = host.Runtime(""); err != nil {
		return err
	}
	if b.spaces, err = netns.NewPool(filepath.Join(dir, "netns"), 4, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	defer func() {
		b.spaces.Close()
		err = errors.Join(err, unix.Unmount(filepath.Join(dir, "netns"), unix.MNT_DETACH))
	}()
	if err := b.userland(); err != nil {
		return err
	}
	for round := range rounds + 5 {
		if err := b.container(ctx, round, round >= 5); err != nil {
			return err
		}
	}
	if s != nil {
		s.print()
		return nil
	}
	b.print(rounds)
	return nil
}

// userland makes a root filesystem with one static program.
func (b *bench) userland() error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("%w: install busybox-static", err)
	}
	bin := filepath.Join(b.dir, "lower", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	program, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(bin, "sleep"), program, 0o755)
	}
	return err
}

// container starts one and removes it.
func (b *bench) container(ctx context.Context, round int, counts bool) error {
	id := "bench" + strconv.Itoa(round)
	space, err := b.spaces.Get(ctx, id)
	if err != nil {
		return err
	}
	defer b.spaces.Put(id)
	options := []string{"lowerdir=" + filepath.Join(b.dir, "lower")}
	for _, name := range []string{"upper", "work"} {
		path := filepath.Join(b.dir, id, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		options = append(options, name+"dir="+path)
	}
	built, err := spec.Build(spec.Input{
		ID: id, Hostname: id, Netns: space, CgroupPath: b.cgroup + "/" + id,
		Config:     &container.Config{Cmd: []string{"sleep", "600"}, Env: []string{"PATH=/bin"}},
		HostConfig: &container.HostConfig{CgroupnsMode: "private"},
	})
	if err != nil {
		return err
	}
	begin := time.Now()
	body, err := spec.Marshal(built)
	if err != nil {
		return err
	}
	_, err = b.driver.Create(ctx, runtime.Create{
		ID: id, Spec: body, Rootfs: []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}},
		IO: runtime.IO{Stdout: true, Stderr: true, Log: &runtime.Log{Path: filepath.Join(b.dir, id, "log"), MaxFile: 1}},
	})
	if err != nil {
		return err
	}
	created := time.Now()
	err = b.driver.Start(ctx, id, "")
	started := time.Now()
	if err == nil && counts {
		for step, took := range map[string]time.Duration{"Create": created.Sub(begin), "Start": started.Sub(created), "both": started.Sub(begin)} {
			b.times[step] = append(b.times[step], float64(took.Microseconds())/1000)
		}
	}
	_, deleted := b.driver.Delete(ctx, id, "", true)
	return errors.Join(err, deleted, os.RemoveAll(filepath.Join(b.dir, id)))
}

func (b *bench) print(rounds int) {
	fmt.Printf("%d containers, %s/%s, %d cores; milliseconds.\n\n| call | median | minimum | 95th percentile |\n|---|---|---|---|\n", rounds, goruntime.GOOS, goruntime.GOARCH, goruntime.NumCPU())
	for _, step := range []string{"Create", "Start", "both"} {
		s := slices.Sorted(slices.Values(b.times[step]))
		fmt.Printf("| %s | %.1f | %.1f | %.1f |\n", step, s[len(s)/2], s[0], s[len(s)*95/100])
	}
}

// removeCgroups takes down what containers and monitors were in.
func (b *bench) removeCgroups() error {
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*" + b.cgroup)
	if err != nil {
		return err
	}
	for _, dir := range append(hierarchies, "/sys/fs/cgroup"+b.cgroup) {
		for _, path := range []string{filepath.Join(dir, "monitors"), dir} {
			for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				err := os.Remove(path)
				if err == nil || errors.Is(err, os.ErrNotExist) {
					break
				}
				if time.Now().After(end) {
					return err
				}
			}
		}
	}
	return nil
}
