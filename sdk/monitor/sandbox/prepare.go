package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/fork"
)

// IDMap shows the owners of files as others: in a mount, or below it, too.
type IDMap struct {
	UIDs      []fork.Map `json:"uids"`
	GIDs      []fork.Map `json:"gids"`
	Recursive bool       `json:"recursive,omitempty"`
}

// Preparation is what the stage's parent mounts for it, because a container with
// a user namespace may not, or because it takes a process outside. The stage gets
// descriptors: of Root, if it is there, of Mounts, and of Devices.
type Preparation struct {
	Propagation uintptr  `json:"propagation"` // as in Container
	Rootfs      string   `json:"rootfs"`
	Root        []Mount  `json:"root,omitempty"` // with none but OwnRoot: the directory
	OwnRoot     bool     `json:"ownRoot,omitempty"`
	Mounts      []Mount  `json:"mounts,omitempty"`
	Devices     []Device `json:"devices,omitempty"` // with owners as the host knows them
}

// Count is the number of descriptors that Make answers.
func (p *Preparation) Count() int {
	count := len(p.Mounts) + len(p.Devices)
	if p.OwnRoot {
		count++
	}
	return count
}

// Make mounts everything in a mount namespace that nobody else sees and that the
// calling thread is left in: it has to be one that is not used again.
func (p *Preparation) Make() (fds []int, err error) {
	defer func() {
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
		}
	}()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return nil, err
	}
	s := &stage{Config: Config{Container: &Container{Propagation: p.Propagation, Rootfs: p.Rootfs, Root: p.Root}}, root: -1, proc: -1}
	if err := s.makePrivate(); err != nil {
		return nil, fmt.Errorf("making mounts private: %w", err)
	}
	add := func(fd int, err error) error {
		if err == nil {
			fds = append(fds, fd)
		}
		return err
	}
	if p.OwnRoot {
		if err := s.mountRoot(); err != nil {
			return fds, fmt.Errorf("mounting the root filesystem: %w", err)
		}
		defer func() { _ = unix.Close(s.root) }()
		if err := add(unix.OpenTree(s.root, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)); err != nil {
			return fds, fmt.Errorf("mounting the root filesystem: %w", err)
		}
	}
	for _, m := range p.Mounts {
		if err := add(createMount(m)); err != nil {
			return fds, fmt.Errorf("mounting: %s on %s: %w", describe(m), m.Target, err)
		}
	}
	if len(p.Devices) == 0 {
		return fds, nil
	}
	if err := p.makeDevices(add); err != nil {
		return fds, fmt.Errorf("making devices: %w", err)
	}
	return fds, nil
}

// makeDevices makes nodes on a filesystem of their own, which lives as long as
// one of them is mounted somewhere.
func (p *Preparation) makeDevices(add func(int, error) error) error {
	old := unix.Umask(0)
	defer unix.Umask(old)
	fs, err := newFilesystem(Mount{Type: "tmpfs", Source: "devices", Data: []string{"mode=755"}})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fs) }()
	// A bind's source has to be mounted somewhere.
	if err := unix.MoveMount(fs, "", unix.AT_FDCWD, p.Rootfs, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	for i, d := range p.Devices {
		name := strconv.Itoa(i)
		err := unix.Mknodat(fs, name, d.Mode, int(unix.Mkdev(d.Major, d.Minor)))
		if err == nil {
			err = unix.Fchownat(fs, name, d.UID, d.GID, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err == nil {
			err = add(unix.OpenTree(fs, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}
	}
	return nil
}

// applyMap gives a mount that is attached nowhere its map.
func applyMap(fd int, m *IDMap) error {
	namespace, err := fork.UserNamespace(m.UIDs, m.GIDs)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(namespace) }()
	flags := uint(unix.AT_EMPTY_PATH)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	err = unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(namespace)})
	if errors.Is(err, unix.EINVAL) {
		return errors.New("the filesystem cannot map IDs (or is mapped already)")
	}
	if err != nil {
		return fmt.Errorf("mapping IDs: %w", err)
	}
	return nil
}

// receivePrepared asks the parent for the mounts that it makes.
func (s *stage) receivePrepared() error {
	count := s.Container.Prepared
	if count == 0 {
		return nil
	}
	if _, err := unix.Write(SyncFD, []byte{MessageMounts}); err != nil {
		return err
	}
	control := make([]byte, unix.CmsgSpace(4*MaxDescriptors))
	for len(s.prepared) < count {
		var answer [1]byte
		n, controlLen, _, _, err := unix.Recvmsg(SyncFD, answer[:], control, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 || answer[0] != MessageMounts {
			return errors.New("the parent has no mounts")
		}
		messages, err := unix.ParseSocketControlMessage(control[:controlLen])
		if err != nil {
			return err
		}
		for i := range messages {
			fds, err := unix.ParseUnixRights(&messages[i])
			if err != nil {
				return err
			}
			s.prepared = append(s.prepared, fds...)
		}
	}
	return nil
}

// next takes the next of the parent's mounts: they come in the order in which
// they are used.
func (s *stage) next() (int, error) {
	if len(s.prepared) == 0 {
		return -1, errors.New("the parent has prepared too few mounts")
	}
	fd := s.prepared[0]
	s.prepared = s.prepared[1:]
	return fd, nil
}

// adoptRoot takes the root filesystem that the parent has mounted. The stage may
// not be able to reach any directory on the way to its own: "/" is always there.
func (s *stage) adoptRoot() error {
	root, err := s.next()
	if err != nil {
		return err
	}
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	s.root = root
	return nil
}

// bindDevice puts a node that the parent has made in its place.
func (s *stage) bindDevice(d Device) error {
	fd, err := s.next()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	parent, err := s.ensureDir(filepath.Dir(d.Path))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	name := filepath.Base(d.Path)
	place, err := unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_WRONLY, 0o600)
	if errors.Is(err, unix.EEXIST) {
		return sameDevice(parent, name, d)
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(place) }()
	return attach(fd, place)
}
