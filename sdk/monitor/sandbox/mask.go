package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// openNull clones the host's null device, which hides files later: the
// container's own /dev/null may be anything.
func (s *stage) openNull() error {
	if len(s.Container.Masked) == 0 {
		return nil
	}
	fd, err := cloneTree(Mount{Source: "/dev/null"})
	if err != nil {
		return err
	}
	s.null = fd
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return errors.New("the host's /dev/null is not the null device")
	}
	return nil
}

// mask hides and write-protects paths; those that do not exist need neither.
func (s *stage) mask() error {
	for _, path := range s.Container.ReadOnlyIn {
		if err := s.onPath(path, writeProtect); err != nil {
			return err
		}
	}
	hide := &cover{file: s.null, dir: -1}
	defer hide.close()
	for _, path := range s.Container.Masked {
		if err := s.onPath(path, hide.over); err != nil {
			return err
		}
	}
	return nil
}

// onPath runs fn on what a path names now. The descriptor is all that fn gets:
// the name may be given to something else meanwhile.
func (s *stage) onPath(path string, fn func(fd int) error) error {
	fd, err := s.openInRoot(path, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		err = fn(fd)
		_ = unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writeProtect(target int) error {
	fd, err := unix.OpenTree(target, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return err
	}
	return attach(fd, target)
}

// cover is what lies over masked paths: the null device over files, an empty
// filesystem over directories.
type cover struct {
	file, dir         int // a mount of each; -1 for none yet
	fileUsed, dirUsed bool
}

func (c *cover) close() {
	for _, fd := range []int{c.file, c.dir} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func (c *cover) over(target int) error {
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return attachAgain(c.file, target, &c.fileUsed)
	}
	if c.dir < 0 {
		fd, err := createMount(Mount{
			Type: "tmpfs", Source: "tmpfs", Data: []string{"size=0", "nr_inodes=2"},
			Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
		})
		if err != nil {
			return err
		}
		c.dir = fd
	}
	return attachAgain(c.dir, target, &c.dirUsed)
}

// attachAgain attaches a mount and, when it is attached already, a clone of it.
func attachAgain(mount, target int, used *bool) error {
	if !*used {
		*used = true
		return attach(mount, target)
	}
	again, err := unix.OpenTree(mount, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(again) }()
	return attach(again, target)
}
