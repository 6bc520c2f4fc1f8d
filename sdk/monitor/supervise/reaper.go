package supervise

import (
	"sync"

	"golang.org/x/sys/unix"
)

// reaper collects the exit status of every child, including orphans that the
// kernel hands to the monitor as sub-reaper.
type reaper struct {
	mu      sync.Mutex
	waiting map[int]chan unix.WaitStatus
	early   map[int]unix.WaitStatus // ended before anybody asked
	born    *sync.Cond              // a child was started
	alive   int
	closed  bool
	done    chan struct{}
}

func newReaper() *reaper {
	r := &reaper{waiting: map[int]chan unix.WaitStatus{}, early: map[int]unix.WaitStatus{}, done: make(chan struct{})}
	r.born = sync.NewCond(&r.mu)
	go r.loop()
	return r
}

func (r *reaper) loop() {
	defer close(r.done)
	for {
		r.mu.Lock()
		for r.alive == 0 && !r.closed {
			r.born.Wait()
		}
		if r.closed {
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		r.mu.Lock()
		switch {
		case err != nil: // no children at all: every count was wrong
			r.alive = 0
		case r.waiting[pid] != nil:
			r.alive--
			r.waiting[pid] <- status
			delete(r.waiting, pid)
		default:
			r.early[pid] = status
		}
		r.mu.Unlock()
	}
}

// start runs fork, which answers a child's pid, and returns a channel on which
// the child's status will arrive.
func (r *reaper) start(fork func() (int, error)) (int, <-chan unix.WaitStatus, error) {
	pid, err := fork()
	if err != nil {
		return 0, nil, err
	}
	ended := make(chan unix.WaitStatus, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if status, ok := r.early[pid]; ok {
		delete(r.early, pid)
		ended <- status
		return pid, ended, nil
	}
	r.waiting[pid] = ended
	r.alive++
	r.born.Signal()
	return pid, ended, nil
}

// exitCode is the code a shell would show.
func exitCode(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
