package overlay

import (
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// probe finds out at start whether overlayfs works here, rather than at the
// first container.
func probe(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	switch st.Type {
	case unix.OVERLAYFS_SUPER_MAGIC:
		return fmt.Errorf("%s is itself on an overlay, on which overlayfs cannot write: put davit's root on another filesystem (ext4, xfs, btrfs, tmpfs): %w", dir, errdefs.ErrFailedPrecondition)
	case unix.NFS_SUPER_MAGIC:
		return fmt.Errorf("%s is on NFS, on which overlayfs cannot write: put davit's root on a local filesystem: %w", dir, errdefs.ErrFailedPrecondition)
	}
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("the kernel has no overlayfs (modprobe overlay): %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	_ = unix.Close(fsfd)
	file, err := os.CreateTemp(dir, "probe-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()); _ = file.Close() }()
	if err := unix.Fsetxattr(int(file.Fd()), "trusted.overlay.probe", []byte("y"), 0); err != nil {
		return fmt.Errorf("%s has no trusted extended attributes, which overlayfs needs (%w): %w", dir, err, errdefs.ErrFailedPrecondition)
	}
	return nil
}
