package native

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/placement"
)

// spawner starts monitors from threads that sit in the monitors' cgroup, so that
// a monitor is in it from its first instruction and outside its container's
// limits.
type spawner struct {
	executable string // below a read-only clone of the program's mount
	directory  *os.File

	mu      sync.Mutex
	threads map[string]*thread // by cgroup
	spare   *waiting           // started ahead for the next container
	closed  bool
	filling sync.WaitGroup

	children map[int]chan<- unix.WaitStatus // whose end somebody waits for
	forking  sync.Mutex                     // of children: no end is collected between a fork and its entry

	reaping chan struct{}
	ctx     context.Context // ends with close
	stop    context.CancelFunc
}

// thread is an operating system thread that forks monitors.
type thread struct {
	requests chan func()
	done     chan struct{}
}

// monitorsTitle describes the monitors' unit.
const monitorsTitle = "davit's monitors of containers"

// aboveOwn is more than the descriptors a monitor is started with.
const aboveOwn = 16

// newSpawner makes the monitor's executable unwritable for whoever reaches it
// through /proc/<pid>/exe from inside a container: it is started from a detached
// read-only clone of the mount it is on.
func newSpawner(program string) (*spawner, error) {
	program, err := filepath.EvalSymlinks(program)
	if err != nil {
		return nil, fmt.Errorf("monitor program: %w", err)
	}
	clone, err := unix.OpenTree(unix.AT_FDCWD, filepath.Dir(program), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cloning the mount of %s: %w", program, err)
	}
	// Above the numbers of a monitor's own descriptors: those are in their place when
	// the program is looked up.
	dir, err := unix.FcntlInt(uintptr(clone), unix.F_DUPFD_CLOEXEC, aboveOwn)
	_ = unix.Close(clone)
	if err != nil {
		return nil, fmt.Errorf("moving the clone of %s: %w", program, err)
	}
	if err := unix.MountSetattr(dir, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		_ = unix.Close(dir)
		return nil, fmt.Errorf("making the clone of %s read-only: %w", program, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &spawner{
		// This process's descriptor, not the child's: package syscall moves descriptors
		// in a child before execve, over any that it is not told of.
		executable: fmt.Sprintf("/proc/%d/fd/%d/%s", os.Getpid(), dir, filepath.Base(program)),
		directory:  os.NewFile(uintptr(dir), "monitor's directory"),
		threads:    map[string]*thread{}, children: map[int]chan<- unix.WaitStatus{}, reaping: make(chan struct{}), ctx: ctx, stop: stop,
	}
	go s.reap(ctx)
	return s, nil
}

// reap collects monitors that end while this driver process is their parent.
// Nobody needs their status: they leave the container's in a file. That of other
// children goes to who started them.
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
		for s.collect() {
		}
	}
}

// collect takes one child's status and says whether there was one.
func (s *spawner) collect() bool {
	s.forking.Lock()
	defer s.forking.Unlock()
	var status unix.WaitStatus
	pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
	if err == unix.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if ended := s.children[pid]; ended != nil {
		ended <- status
		delete(s.children, pid)
	}
	return true
}

// start is a hook.Starter.
func (s *spawner) start(fork func() (int, error)) (int, <-chan unix.WaitStatus, error) {
	s.forking.Lock()
	defer s.forking.Unlock()
	pid, err := fork()
	if err != nil {
		return 0, nil, err
	}
	ended := make(chan unix.WaitStatus, 1)
	s.children[pid] = ended
	return pid, ended, nil
}

func (s *spawner) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.filling.Wait()
	if s.spare != nil {
		s.spare.dismiss()
	}
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
func (s *spawner) on(ctx context.Context, place placement.Placement, fn func() error) error {
	s.mu.Lock()
	t := s.threads[place.Cgroup]
	if t == nil {
		t = &thread{requests: make(chan func()), done: make(chan struct{})}
		joined := make(chan error, 1)
		go t.serve(ctx, place, joined)
		if err := <-joined; err != nil {
			s.mu.Unlock()
			return err
		}
		s.threads[place.Cgroup] = t
	}
	s.mu.Unlock()
	result := make(chan error, 1)
	t.requests <- func() { result <- fn() }
	return <-result
}

func (t *thread) serve(ctx context.Context, place placement.Placement, joined chan<- error) {
	defer close(t.done)
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	err := joinThread(ctx, place)
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
func joinThread(ctx context.Context, place placement.Placement) error {
	group, hold, err := place.Ensure(ctx, monitorsTitle)
	if err != nil {
		return fmt.Errorf("making cgroup %s: %w", place.Cgroup, err)
	}
	defer hold.Release()
	if group.Version() == 2 {
		return nil
	}
	for _, file := range group.JoinPaths() {
		if err := os.WriteFile(file, []byte("0"), 0o644); err != nil {
			return fmt.Errorf("joining cgroup %s: %w", place.Cgroup, err)
		}
	}
	return nil
}
