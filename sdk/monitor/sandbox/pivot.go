package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// pivot makes the root filesystem "/" and lets go of the host's mounts.
func (s *stage) pivot() error {
	if s.Container.NoPivot {
		return s.moveRoot()
	}
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(old) }()
	if err := unix.Fchdir(s.root); err != nil {
		return err
	}
	// Both roots on one directory: the old one is stacked below and detached.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	// The old root is the host's: detaching it must not reach the host. "." is
	// still the new one, whose mounts keep the propagation they were given.
	if err := unix.Fchdir(old); err != nil {
		return err
	}
	if err := unix.Mount("", ".", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detaching the old root: %w", err)
	}
	return unix.Chdir("/")
}

// moveRoot covers the host's root with the container's. What is mounted on the
// host stays in this namespace, out of reach: above the container's root there is
// nothing. Only the host's proc and sysfs must go, because a whole one anywhere
// lets a user namespace mount another whole one.
func (s *stage) moveRoot() error {
	for _, dir := range []string{"/proc", "/sys"} {
		err := unix.Unmount(dir, unix.MNT_DETACH)
		if err == unix.EINVAL || err == unix.EPERM { // not a mount, or one that belongs to another user namespace
			err = unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "size=0")
		}
		if err != nil {
			return fmt.Errorf("hiding the host's %s: %w", dir, err)
		}
	}
	if err := unix.Fchdir(s.root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}
