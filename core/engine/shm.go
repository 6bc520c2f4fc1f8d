package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/core/container"
)

// A container whose IPC is shareable has its /dev/shm mounted on the host, as
// there is no other way to give the same filesystem to a second container.

func (e *Engine) shmPath(id string) string { return filepath.Join(e.dir(id), "shm") }

// mountShm makes the shared memory of a container that shares it, anew for each
// start.
func (e *Engine) mountShm(r container.Record) error {
	dir := e.shmPath(r.ID)
	if err := e.unmountShm(r.ID); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=1777,size=%d", r.HostConfig.ShmSize)); err != nil {
		return fmt.Errorf("mounting shared memory: %w", err)
	}
	return nil
}

// unmountShm is idempotent. Containers that still use it keep it.
func (e *Engine) unmountShm(id string) error {
	err := unix.Unmount(e.shmPath(id), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // never mounted
	}
	return fmt.Errorf("unmounting shared memory: %w", err)
}

// sharedShm is the directory that a container which joins another's IPC finds at
// /dev/shm.
func (e *Engine) sharedShm(r container.Record) (string, error) {
	switch mode := r.HostConfig.IpcMode; {
	case mode.IsHost():
		return "/dev/shm", nil
	case mode.IsShareable():
		return e.shmPath(r.ID), nil
	case mode.IsContainer():
		other, err := e.containers.Find(mode.Container())
		if err != nil {
			return "", err
		}
		return e.sharedShm(other.Record())
	}
	return "", errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("can't join IPC of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", r.ID))
}

// removeDir removes a container's directory with what is mounted in it.
func (e *Engine) removeDir(id string) error {
	return errors.Join(e.unmountShm(id), os.RemoveAll(e.dir(id)))
}
