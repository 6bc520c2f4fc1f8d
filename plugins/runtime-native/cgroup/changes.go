package cgroup

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// changes is one inotify(7) instance for the files of all groups: a user has only
// few of them (fs.inotify.max_user_instances), and other programs of root's want
// some.
type changes struct {
	inotify *os.File
	reading sync.WaitGroup

	mu sync.Mutex
	// watched are who waits, by the descriptors of their watches. Each channel has
	// room for one.
	watched map[int32]chan struct{}
	failed  chan struct{} // closed when err is set
	err     error
}

func newChanges() (*changes, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	c := &changes{inotify: os.NewFile(uintptr(fd), "inotify"), watched: map[int32]chan struct{}{}, failed: make(chan struct{})}
	c.reading.Go(c.read)
	return c, nil
}

// read passes events on until the instance is closed.
func (c *changes) read() {
	for buffer := make([]byte, 4096); ; {
		n, err := c.inotify.Read(buffer)
		c.mu.Lock()
		if err != nil {
			c.err = err
			close(c.failed)
			c.mu.Unlock()
			return
		}
		for rest := buffer[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			descriptor, named := int32(binary.NativeEndian.Uint32(rest)), binary.NativeEndian.Uint32(rest[12:])
			if descriptor < 0 { // events were lost: anybody's
				for _, changed := range c.watched {
					wake(changed)
				}
			} else if changed := c.watched[descriptor]; changed != nil {
				wake(changed)
			}
			rest = rest[unix.SizeofInotifyEvent+int(named):]
		}
		c.mu.Unlock()
	}
}

func wake(changed chan struct{}) {
	select {
	case changed <- struct{}{}:
	default: // it will look already
	}
}

func (c *changes) close() {
	_ = c.inotify.Close()
	c.reading.Wait()
}

// changeNotice is of the files of one group.
type changeNotice struct {
	*changes
	changed     chan struct{}
	descriptors []int
}

func (c *changes) watch(files ...string) (notice, error) {
	one := &changeNotice{changes: c, changed: make(chan struct{}, 1)}
	for _, file := range files {
		if err := one.add(file); err != nil {
			one.close()
			return nil, err
		}
	}
	return one, nil
}

func (o *changeNotice) add(file string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var descriptor int
	err := o.control(func(fd int) (err error) {
		descriptor, err = unix.InotifyAddWatch(fd, file, unix.IN_MODIFY)
		return err
	})
	if err != nil {
		return err
	}
	o.descriptors = append(o.descriptors, descriptor)
	o.watched[int32(descriptor)] = o.changed
	return nil
}

func (o *changeNotice) wait(ctx context.Context) error {
	select {
	case <-o.changed:
		return nil
	case <-o.failed:
		return o.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *changeNotice) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, descriptor := range o.descriptors {
		delete(o.watched, int32(descriptor))
		// The kernel has done so itself for files that are gone.
		_ = o.control(func(fd int) error {
			_, err := unix.InotifyRmWatch(fd, uint32(descriptor))
			return err
		})
	}
}

// control calls fn with the instance's descriptor, which stays open meanwhile.
func (c *changes) control(fn func(fd int) error) error {
	raw, err := c.inotify.SyscallConn()
	if err != nil {
		return err
	}
	failed := raw.Control(func(fd uintptr) { err = fn(int(fd)) })
	return errors.Join(failed, err)
}
