// Package projquota limits directories by project quotas: what is below one
// belongs to a project of its own, and the filesystem keeps it below the project's
// limit. ext4 and xfs have them where they are mounted with prjquota.
package projquota

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrUnsupported says that a filesystem holds no project to a limit.
var ErrUnsupported = errors.New("no project quotas")

// first is where the numbers of projects begin: far from those that people give.
const first = 1 << 24

// Control limits directories of one filesystem. Its methods are safe for
// concurrent use.
type Control struct {
	dir  string
	mu   sync.Mutex
	next uint32
}

// Open looks whether the filesystem of a directory enforces project quotas, and is
// ErrUnsupported with the reason if it does not.
func Open(dir string) (*Control, error) {
	c := &Control{dir: dir, next: first}
	state := make([]byte, 512)
	state[0] = 1 // version of struct fs_quota_statv
	err := c.quotactl(getState, 0, unsafe.Pointer(&state[0]))
	flags := *(*uint16)(unsafe.Pointer(&state[2]))
	if err == nil && flags&projectEnforced == 0 {
		err = errors.New("not mounted with prjquota")
	}
	if err != nil {
		return nil, fmt.Errorf("%w in the filesystem of %s: %w", ErrUnsupported, dir, err)
	}
	return c, nil
}

// Limit lets an existing directory and what will be made below it hold at most
// size bytes; 0 takes the limit away. A directory that has a project keeps it.
func (c *Control) Limit(dir string, size uint64) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	attributes, err := getAttributes(f)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if attributes.projectID < first || attributes.flags&inherit == 0 {
		if size == 0 {
			return nil
		}
		if attributes.projectID, err = c.free(); err != nil {
			return err
		}
		attributes.flags |= inherit
		// The limit first: what has a project has its limit.
		if err := c.limit(attributes.projectID, size); err != nil {
			return err
		}
		return setAttributes(f, attributes)
	}
	return c.limit(attributes.projectID, size)
}

// Size is a directory's limit in bytes, 0 for none, and how many of them are used.
func (c *Control) Size(dir string) (limit, used uint64, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = f.Close() }()
	attributes, err := getAttributes(f)
	if err != nil || attributes.projectID < first {
		return 0, 0, err
	}
	q, err := c.get(attributes.projectID)
	return q.hardLimit * block, q.used * block, err
}

// free finds a project that has nothing.
func (c *Control) free() (uint32, error) {
	for ; c.next < 1<<31; c.next++ {
		q, err := c.get(c.next)
		if err != nil {
			return 0, err
		}
		if q.hardLimit == 0 && q.softLimit == 0 && q.inodes == 0 && q.used == 0 {
			c.next++
			return c.next - 1, nil
		}
	}
	return 0, errors.New("all project numbers are taken")
}

func (c *Control) get(project uint32) (quota, error) {
	q := quota{version: 1}
	err := c.quotactl(getQuota, project, unsafe.Pointer(&q))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return quota{}, nil
	}
	if err != nil {
		return quota{}, fmt.Errorf("quota of project %d: %w", project, err)
	}
	return q, nil
}

func (c *Control) limit(project uint32, size uint64) error {
	blocks := (size + block - 1) / block
	q := quota{version: 1, flags: projectKind, fields: softField | hardField, id: project, hardLimit: blocks, softLimit: blocks}
	if err := c.quotactl(setLimit, project, unsafe.Pointer(&q)); err != nil {
		return fmt.Errorf("limiting project %d: %w", project, err)
	}
	return nil
}
