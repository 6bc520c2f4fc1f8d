package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/placement"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/supervise"
)

// waiting is a monitor that has started and waits for its configuration. It ends
// when its socket does.
type waiting struct {
	pid     int
	cgroup  string // its path
	control *net.UnixConn
}

func (w *waiting) dismiss() { _ = w.control.Close() }

// spawn has a monitor make a container and answers when it is created. Starting
// a program takes longer than most other steps, so a monitor waits ready for the
// next container in the same cgroup.
func (s *spawner) spawn(ctx context.Context, dir string, place placement.Placement, config supervise.Config) (pid int, created monitor.Response, err error) {
	w := s.take(place.Cgroup)
	if w != nil {
		created, err = w.create(ctx, config)
	}
	if w == nil || errors.Is(err, unix.EPIPE) { // EPIPE: somebody killed it while it waited
		if w, err = s.launch(ctx, place); err != nil {
			return 0, created, fmt.Errorf("starting the monitor: %w", err)
		}
		created, err = w.create(ctx, config)
	}
	switch {
	case ctx.Err() != nil && err != nil:
		return 0, created, ctx.Err()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET):
		return 0, created, fmt.Errorf("the monitor died before the container was created: %s", tail(filepath.Join(dir, supervise.ComplaintsName)))
	case err != nil:
		return 0, created, fmt.Errorf("configuring the monitor: %w", err)
	case created.Error != nil:
		return 0, created, created.Error
	}
	return w.pid, created, nil
}

// create hands a monitor its configuration and waits for the container. A
// monitor that does not answer is killed.
func (w *waiting) create(ctx context.Context, config supervise.Config) (created monitor.Response, err error) {
	defer w.dismiss()
	stop := context.AfterFunc(ctx, func() { _ = w.control.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err = monitor.WriteMessage(w.control, &config); err == nil {
		err = monitor.ReadMessage(w.control, &created)
	}
	if err != nil {
		_ = unix.Kill(w.pid, unix.SIGKILL)
	}
	return created, err
}

// take answers the monitor that waits in a cgroup, nil if there is none.
func (s *spawner) take(cgroupPath string) *waiting {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare == nil || s.spare.cgroup != cgroupPath {
		return nil
	}
	w := s.spare
	s.spare = nil
	return w
}

// fill starts the next container's monitor, when this container has started and
// needs the processor no more. One waits at most, where the last container was
// made.
func (s *spawner) fill(place placement.Placement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.spare != nil && s.spare.cgroup == place.Cgroup {
		return
	}
	s.filling.Go(func() {
		w, err := s.launch(s.ctx, place)
		if err != nil {
			return // the next container's own start will say why
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.spare != nil {
			s.spare.dismiss()
		}
		s.spare = w
	})
}

// launch starts a monitor in a cgroup.
func (s *spawner) launch(ctx context.Context, place placement.Placement) (*waiting, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer func() { _ = theirs.Close() }()
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		return nil, err
	}
	w := &waiting{cgroup: place.Cgroup, control: conn.(*net.UnixConn)}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		w.dismiss()
		return nil, err
	}
	defer func() { _ = null.Close() }()
	attr := &syscall.ProcAttr{
		Dir: "/",
		// Few threads and a small heap: there is one monitor a container.
		Env:   []string{"GOMAXPROCS=1"},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), theirs.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	err = s.on(ctx, place, func() error {
		var err error
		for range tries {
			// Deleted meanwhile by somebody's clean-up, or by systemd with its last process:
			// made again.
			if w.pid, err = s.fork(ctx, place, attr); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
				break
			}
		}
		return err
	})
	if err != nil {
		w.dismiss()
		return nil, err
	}
	return w, nil
}

// tries is how often a cgroup may go before a monitor is in it.
const tries = 5

// fork starts a monitor's program in a cgroup.
func (s *spawner) fork(ctx context.Context, place placement.Placement, attr *syscall.ProcAttr) (int, error) {
	group, hold, err := place.Ensure(ctx, monitorsTitle)
	if err != nil {
		return 0, err
	}
	defer hold.Release()
	if _, dir := group.Joining(); dir != "" {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, &os.PathError{Op: "open", Path: dir, Err: err}
		}
		defer func() { _ = unix.Close(fd) }()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, fd
	}
	return syscall.ForkExec(s.executable, []string{"davit-monitor", supervise.Untitled}, attr)
}

// tail is the end of a monitor's complaints, for an error message.
func tail(path string) string {
	body, err := os.ReadFile(path)
	if err != nil || len(body) == 0 {
		return "it said nothing"
	}
	return string(body[max(0, len(body)-1000):])
}
