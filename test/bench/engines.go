package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/davit-engine/davit/test/private"
)

const imageName = "localhost/bench:1"

// engine is one container engine under test. command builds a client call in
// Docker's words.
type engine interface {
	name() string
	start(ctx context.Context, imageTar string) error
	command(ctx context.Context, args ...string) *exec.Cmd
	// idle lists the processes the engine needs when no container runs; nil means
	// that it has none.
	idle() []int
	stop(ctx context.Context) error
}

func all(dir string) []engine {
	return []engine{&davit{}, &docker{dir: filepath.Join(dir, "docker")}, &podman{dir: filepath.Join(dir, "podman")}}
}

func wanted(only, name string) bool {
	return only == "" || slices.Contains(strings.Split(only, ","), name)
}

// busyboxTar packs Debian's static busybox into a root filesystem.
func busyboxTar(dir string) (string, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("%w: install busybox-static", err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "busybox.tar")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	w := tar.NewWriter(f)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755})
	err = errors.Join(err, w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))}))
	if err == nil {
		_, err = w.Write(program)
	}
	for _, applet := range []string{"sh", "true", "sleep"} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"}))
	}
	return path, errors.Join(err, w.Close(), f.Close())
}

type davit struct{ e *private.Engine }

func (d *davit) name() string { return "davit" }

func (d *davit) start(ctx context.Context, image string) (err error) {
	if d.e, err = private.New(private.Options{}); err != nil {
		return err
	}
	if err := d.e.Start(ctx); err != nil {
		return err
	}
	return quiet(d.command(ctx, "import", image, imageName))
}

func (d *davit) command(ctx context.Context, args ...string) *exec.Cmd {
	return d.e.Command(ctx, "davit", args...)
}

func (d *davit) idle() []int { return tree(d.e.PID()) }

func (d *davit) stop(ctx context.Context) error {
	if d.e == nil {
		return nil
	}
	return errors.Join(d.e.Close(ctx), d.e.RemoveHostState())
}

// docker runs the Docker package's daemon on folders and a bridge of its own.
type docker struct {
	dir string
	cmd *exec.Cmd
}

func (d *docker) name() string { return "docker" }

func (d *docker) start(ctx context.Context, image string) error {
	if _, err := exec.LookPath("dockerd"); err != nil {
		return errors.New("no dockerd: install docker.io to compare with it")
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	//nolint:noctx // lives until stop
	d.cmd = exec.Command("dockerd", "--data-root", d.dir+"/root", "--exec-root", d.dir+"/run", "--pidfile", d.dir+"/pid", "--host", "unix://"+d.dir+"/sock", "--bip", "10.231.0.1/16")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	deadline := time.Now().Add(30 * time.Second)
	for quiet(d.command(ctx, "version")) != nil {
		if time.Now().After(deadline) {
			b, _ := os.ReadFile(log.Name())
			return fmt.Errorf("dockerd does not come up: %s", b[max(0, len(b)-600):])
		}
		time.Sleep(50 * time.Millisecond)
	}
	return quiet(d.command(ctx, "import", image, imageName))
}

func (d *docker) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "docker", append([]string{"--host", "unix://" + d.dir + "/sock"}, args...)...)
}

func (d *docker) idle() []int { return tree(d.cmd.Process.Pid) }

func (d *docker) stop(context.Context) error {
	if d.cmd == nil || d.cmd.Process == nil {
		return nil
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait()
	return quiet(exec.Command("ip", "link", "del", "docker0")) //nolint:noctx // bounded by the kernel
}

type podman struct{ dir string }

func (p *podman) name() string { return "podman" }

func (p *podman) start(ctx context.Context, image string) error {
	if _, err := exec.LookPath("podman"); err != nil {
		return errors.New("no podman: install podman to compare with it")
	}
	return quiet(p.command(ctx, "import", image, imageName))
}

func (p *podman) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "podman", append([]string{"--root", p.dir + "/root", "--runroot", p.dir + "/run", "--cgroup-manager", "cgroupfs"}, args...)...)
}

func (p *podman) idle() []int { return nil }

func (p *podman) stop(ctx context.Context) error {
	if _, err := exec.LookPath("podman"); err != nil {
		return nil //nolint:nilerr // never started
	}
	return quiet(p.command(ctx, "rm", "-af", "-t", "0"))
}

// running are the engines that can run containers here; why others cannot is told.
func running(ctx context.Context, engines []engine, told io.Writer) (list []engine) {
	for _, e := range engines {
		if why := quiet(e.command(ctx, "run", "--rm", imageName, "/bin/true")); why != nil {
			fmt.Fprintf(told, "%s is left out of containers: %v\n", e.name(), why)
			continue
		}
		list = append(list, e)
	}
	return list
}

// quiet runs a command and puts what it said into the error.
func quiet(cmd *exec.Cmd) error {
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(said.String()))
	}
	return nil
}
