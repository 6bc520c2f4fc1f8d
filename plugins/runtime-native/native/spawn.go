package native

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/supervise"
)

// spawner starts monitors from threads that sit in the monitors' cgroup, so that
// a monitor is in it from its first instruction and outside its container's
// limits.
type spawner struct {
	executable string // below a read-only clone of the program's mount
	directory  *os.File

	mu      sync.Mutex
	threads map[string]*thread // by cgroup

	reaping chan struct{}
	stop    context.CancelFunc
}

// thread is an operating system thread that forks monitors.
type thread struct {
	requests chan func()
	done     chan struct{}
}

// newSpawner makes the monitor's executable unwritable for whoever reaches it
// through /proc/<pid>/exe from inside a container: it is started from a detached
// read-only clone of the mount it is on.
func newSpawner(program string) (*spawner, error) {
	program, err := filepath.EvalSymlinks(program)
	if err != nil {
		return nil, fmt.Errorf("monitor program: %w", err)
	}
	dir, err := unix.OpenTree(unix.AT_FDCWD, filepath.Dir(program), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cloning the mount of %s: %w", program, err)
	}
	if err := unix.MountSetattr(dir, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		_ = unix.Close(dir)
		return nil, fmt.Errorf("making the clone of %s read-only: %w", program, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &spawner{
		executable: "/proc/self/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(program),
		directory:  os.NewFile(uintptr(dir), "monitor's directory"),
		threads:    map[string]*thread{}, reaping: make(chan struct{}), stop: stop,
	}
	go s.reap(ctx)
	return s, nil
}

// reap collects monitors that end while this driver process is their parent.
// Nobody needs their status: they leave the container's in a file.
func (s *spawner) reap(ctx context.Context) {
	defer close(s.reaping)
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	defer signal.Stop(died)
	for {
		select {
		case <-ctx.Done():
			return
		case <-died:
		}
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if err == unix.EINTR {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
		}
	}
}

func (s *spawner) close() {
	s.stop()
	<-s.reaping
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.threads {
		close(t.requests)
		<-t.done
	}
	s.threads = nil
	_ = s.directory.Close()
}

// on runs fn on a thread of the given cgroup.
func (s *spawner) on(cgroupPath string, fn func() error) error {
	s.mu.Lock()
	t := s.threads[cgroupPath]
	if t == nil {
		t = &thread{requests: make(chan func()), done: make(chan struct{})}
		joined := make(chan error, 1)
		go t.serve(cgroupPath, joined)
		if err := <-joined; err != nil {
			s.mu.Unlock()
			return err
		}
		s.threads[cgroupPath] = t
	}
	s.mu.Unlock()
	result := make(chan error, 1)
	t.requests <- func() { result <- fn() }
	return <-result
}

func (t *thread) serve(cgroupPath string, joined chan<- error) {
	defer close(t.done)
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	err := joinThread(cgroupPath)
	joined <- err
	if err != nil {
		return
	}
	for fn := range t.requests {
		fn()
	}
}

// joinThread puts the calling thread into a v1 cgroup. On v2 threads of one
// process cannot sit in different domains; there the fork itself chooses.
func joinThread(path string) error {
	group, err := cgroup.Create(path, nil)
	if err != nil {
		return fmt.Errorf("making cgroup %s: %w", path, err)
	}
	if group.Version() == 2 {
		return nil
	}
	for _, file := range group.JoinPaths() {
		if err := os.WriteFile(file, []byte("0"), 0o644); err != nil {
			return fmt.Errorf("joining cgroup %s: %w", path, err)
		}
	}
	return nil
}

// spawn starts a monitor and answers when the container is created.
func (s *spawner) spawn(ctx context.Context, id, dir, cgroupPath string, config supervise.Config) (pid int, created monitor.Response, err error) {
	body, err := json.Marshal(config)
	if err != nil {
		return 0, created, err
	}
	memory, err := unix.MemfdCreate("davit-monitor", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, created, err
	}
	file := os.NewFile(uintptr(memory), "config")
	defer func() { _ = file.Close() }()
	if _, err := file.WriteAt(body, 0); err != nil {
		return 0, created, err
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return 0, created, err
	}
	defer func() { _ = ready.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		_ = theirs.Close()
		return 0, created, err
	}
	defer func() { _ = null.Close() }()
	complaints, err := os.OpenFile(filepath.Join(dir, "monitor.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		_ = theirs.Close()
		return 0, created, err
	}
	defer func() { _ = complaints.Close() }()
	attr := &syscall.ProcAttr{
		Dir: "/",
		// Few threads and a small heap: there is one monitor a container.
		Env:   []string{"GOMAXPROCS=2"},
		Files: []uintptr{null.Fd(), complaints.Fd(), complaints.Fd(), file.Fd(), theirs.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	err = s.on(cgroupPath, func() error {
		group, err := cgroup.Open(cgroupPath)
		if err != nil {
			return err
		}
		if group.Version() == 2 {
			// Deleted meanwhile by somebody's clean-up: made again.
			if group, err = cgroup.Create(cgroupPath, nil); err != nil {
				return err
			}
			fd, err := group.FD()
			if err != nil {
				return err
			}
			defer func() { _ = fd.Close() }()
			attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(fd.Fd())
		}
		pid, err = syscall.ForkExec(s.executable, []string{"davit-monitor", id}, attr)
		return err
	})
	_ = theirs.Close()
	if err != nil {
		return 0, created, fmt.Errorf("starting the monitor: %w", err)
	}
	child := pid // the result is overwritten by every return
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(child, unix.SIGKILL) })
	defer stop()
	if err := monitor.ReadMessage(ready, &created); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		if ctx.Err() != nil {
			return 0, created, ctx.Err()
		}
		return 0, created, fmt.Errorf("the monitor died before the container was created: %s", tail(filepath.Join(dir, "monitor.log")))
	}
	if created.Error != nil {
		return 0, created, created.Error
	}
	return pid, created, nil
}

// tail is the end of a monitor's complaints, for an error message.
func tail(path string) string {
	body, err := os.ReadFile(path)
	if err != nil || len(body) == 0 {
		return "it said nothing"
	}
	return string(body[max(0, len(body)-1000):])
}
