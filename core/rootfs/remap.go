package rootfs

import (
	"archive/tar"
	"fmt"
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// idsOf are the users and groups of a process's user namespace as the host knows
// them; empty if it has none of its own.
func idsOf(process string) (ids user.IdentityMapping, err error) {
	if ids.UIDMaps, err = user.ParseIDMapFile(process + "/uid_map"); err != nil {
		return ids, fmt.Errorf("user namespace: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if ids.GIDMaps, err = user.ParseIDMapFile(process + "/gid_map"); err != nil {
		return ids, fmt.Errorf("user namespace: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if len(ids.UIDMaps) == 1 && ids.UIDMaps[0].ID == ids.UIDMaps[0].ParentID {
		return user.IdentityMapping{}, nil
	}
	return ids, nil
}

// withIDs runs fn such that the files it makes belong to the namespace's root: a
// filesystem with mapped owners takes none from users that are not mapped.
func (v *View) withIDs(fn func(*View) error) error {
	if v.ids.Empty() {
		return fn(v)
	}
	uid, gid, err := v.ids.ToHost(0, 0)
	if err != nil {
		return fmt.Errorf("user namespace: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread with other IDs ends here
		if err := becomeFor(uid, gid); err != nil {
			result <- fmt.Errorf("taking on the container's user: %w", err)
			return
		}
		result <- fn(v)
	}()
	return <-result
}

// becomeFor changes this thread's user for files alone. It keeps the privileges
// that the kernel takes away with the change.
func becomeFor(uid, gid int) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		return err
	}
	if err := unix.Setfsgid(gid); err != nil {
		return err
	}
	if err := unix.Setfsuid(uid); err != nil {
		return err
	}
	return unix.Capset(&head, &caps[0])
}

// inside words an entry's owner as the container does.
func inside(ids user.IdentityMapping, h *tar.Header) {
	if uid, gid, err := ids.ToContainer(h.Uid, h.Gid); err == nil {
		h.Uid, h.Gid = uid, gid
		return
	}
	h.Uid, h.Gid = overflowID, overflowID
}

// overflowID is what the kernel shows for owners without a place in a user
// namespace.
const overflowID = 65534
