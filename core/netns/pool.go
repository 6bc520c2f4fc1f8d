// Package netns makes network namespaces as files: a few are kept warm, because
// making one costs the kernel most of a millisecond, and destroying one much
// more, which therefore happens in the background.
package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// poolPrefix marks namespaces that belong to nobody yet.
const poolPrefix = "pool-"

// retryAfter is the pause after a namespace could not be made ahead.
const retryAfter = time.Second

// Pool hands out network namespaces below one directory.
type Pool struct {
	dir string
	log *slog.Logger

	mu     sync.Mutex
	number int
	given  map[string]bool

	warm chan string // paths
	drop chan string
	stop context.CancelFunc
	work sync.WaitGroup
}

// NewPool opens the directory, which becomes a mount of its own with private
// propagation, and keeps size namespaces warm.
func NewPool(dir string, size int, log *slog.Logger) (*Pool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := privateMount(dir); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Pool{dir: dir, log: log, given: map[string]bool{}, warm: make(chan string, max(1, size)), drop: make(chan string, 1024), stop: stop}
	// Warm ones of an engine before cannot be told from broken ones: made anew.
	entries, err := os.ReadDir(dir)
	if err != nil {
		stop()
		return nil, err
	}
	for _, entry := range entries {
		// A file that is no namespace is a hand-over that was cut off.
		path := filepath.Join(dir, entry.Name())
		if strings.HasPrefix(entry.Name(), poolPrefix) || !isNamespace(path) {
			destroy(path)
		} else {
			p.given[entry.Name()] = true
		}
	}
	p.work.Go(func() { p.keepWarm(ctx) })
	p.work.Go(func() { p.dropAll(ctx) })
	return p, nil
}

// privateMount makes dir a mount point whose mounts do not propagate: namespace
// files must not appear in every other mount namespace, where they would keep
// the namespaces alive.
func privateMount(dir string) error {
	err := unix.Mount("", dir, "", unix.MS_PRIVATE, "")
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", dir, err)
		}
		err = unix.Mount("", dir, "", unix.MS_PRIVATE, "")
	}
	if err != nil {
		return fmt.Errorf("making %s private: %w", dir, err)
	}
	return nil
}

func (p *Pool) path(id string) string { return filepath.Join(p.dir, id) }

// Get answers the path of id's namespace, which has its loopback up. Asking
// again answers the same one.
func (p *Pool) Get(ctx context.Context, id string) (string, error) {
	p.mu.Lock()
	known := p.given[id]
	p.given[id] = true
	p.mu.Unlock()
	path := p.path(id)
	if known {
		return path, nil
	}
	err := p.give(ctx, path)
	if err != nil {
		p.mu.Lock()
		delete(p.given, id)
		p.mu.Unlock()
		return "", fmt.Errorf("network namespace for %s: %w", id, err)
	}
	return path, nil
}

// give moves a warm namespace to a path of its own.
func (p *Pool) give(ctx context.Context, path string) error {
	var warm string
	select {
	case warm = <-p.warm:
	default:
		return create(path)
	}
	if err := ctx.Err(); err != nil {
		p.drop <- warm
		return err
	}
	if err := touch(path); err != nil {
		p.drop <- warm
		return err
	}
	if err := unix.Mount(warm, path, "", unix.MS_MOVE, ""); err != nil {
		p.drop <- warm
		_ = os.Remove(path)
		return fmt.Errorf("moving %s: %w", warm, err)
	}
	return os.Remove(warm)
}

// Adopt makes the namespace of a process id's and answers its path. What id had
// before is destroyed.
func (p *Pool) Adopt(id string, pid int) (string, error) {
	p.Put(id)
	path := p.path(id)
	if err := touch(path); err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", pid), path, "", unix.MS_BIND, ""); err != nil {
		_ = os.Remove(path)
		return "", fmt.Errorf("network namespace of process %d: %w", pid, err)
	}
	p.mu.Lock()
	p.given[id] = true
	p.mu.Unlock()
	return path, nil
}

// Put destroys id's namespace in the background. Idempotent.
func (p *Pool) Put(id string) {
	p.mu.Lock()
	known := p.given[id]
	delete(p.given, id)
	p.mu.Unlock()
	if !known {
		return
	}
	// Out of the way at once: the ID may come back before the destruction.
	doomed := p.path(fmt.Sprintf("%sgone-%s", poolPrefix, id))
	if err := touch(doomed); err == nil {
		if err := unix.Mount(p.path(id), doomed, "", unix.MS_MOVE, ""); err == nil {
			_ = os.Remove(p.path(id))
			p.drop <- doomed
			return
		}
		_ = os.Remove(doomed)
	}
	p.drop <- p.path(id)
}

// Sweep destroys all namespaces that were handed out and are not valid.
func (p *Pool) Sweep(valid []string) {
	keep := map[string]bool{}
	for _, id := range valid {
		keep[id] = true
	}
	p.mu.Lock()
	var stale []string
	for id := range p.given {
		if !keep[id] {
			stale = append(stale, id)
		}
	}
	p.mu.Unlock()
	for _, id := range stale {
		p.Put(id)
	}
}

// Close destroys the warm namespaces and waits for the background work; those
// that were handed out stay.
func (p *Pool) Close() {
	p.stop()
	p.work.Wait()
	for {
		select {
		case path := <-p.warm:
			destroy(path)
		case path := <-p.drop:
			destroy(path)
		default:
			return
		}
	}
}

func (p *Pool) keepWarm(ctx context.Context) {
	for ctx.Err() == nil {
		p.mu.Lock()
		p.number++
		path := p.path(fmt.Sprintf("%s%d", poolPrefix, p.number))
		p.mu.Unlock()
		if err := create(path); err != nil {
			p.log.Error("making a network namespace ahead", "error", err)
			select {
			case <-time.After(retryAfter): // the kernel may have room again
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case p.warm <- path:
		case <-ctx.Done():
			destroy(path)
		}
	}
}

func (p *Pool) dropAll(ctx context.Context) {
	for {
		select {
		case path := <-p.drop:
			destroy(path)
		case <-ctx.Done():
			return
		}
	}
}

// isNamespace says whether a namespace is bound to path.
func isNamespace(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o400)
	if err != nil {
		return err
	}
	return f.Close()
}

// create makes a namespace and binds it to path.
func create(path string) error {
	if err := touch(path); err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread with the namespace ends here
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := loopbackUp(); err != nil {
				return fmt.Errorf("bringing lo up: %w", err)
			}
			if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("binding to %s: %w", path, err)
			}
			return nil
		}()
	}()
	err := <-result
	if err != nil {
		_ = os.Remove(path)
	}
	return err
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

func destroy(path string) {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	_ = os.Remove(path)
}
