package overlay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/storage"
)

const recordName = "snapshot.json"

// save writes a snapshot's record, durably where it must survive a power cut.
func (d *Driver) save(s *snapshot, durable bool) error {
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := filepath.Join(d.number(s.Number), recordName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if durable && err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil || !durable {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncTree makes a snapshot's content durable: one call for the filesystem
// instead of one for each file.
func syncTree(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// load rebuilds the index from the records. A directory without one is what a
// crash left of a creation.
func (d *Driver) load() error {
	entries, err := os.ReadDir(d.dir("s"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		n, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		d.last = max(d.last, n)
		body, err := os.ReadFile(filepath.Join(d.number(n), recordName))
		s := &snapshot{}
		if err == nil {
			err = json.Unmarshal(body, s)
		}
		if errors.Is(err, fs.ErrNotExist) || err != nil && len(body) == 0 {
			if err := os.RemoveAll(d.number(n)); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("record of snapshot %d: %w", n, err)
		}
		d.byName[s.Name] = s
		if s.Kind == storage.KindCommitted {
			// A commit that was cut off after its record still has it.
			if err := os.RemoveAll(filepath.Join(d.number(n), "work")); err != nil {
				return err
			}
		}
	}
	trash, err := os.ReadDir(d.dir("trash"))
	if err != nil {
		return err
	}
	for _, entry := range trash { // numbers are not used twice while their trash is there
		if n, err := strconv.Atoi(entry.Name()); err == nil {
			d.last = max(d.last, n)
		}
	}
	for _, s := range d.byName {
		if p := d.byName[s.Parent]; p != nil {
			p.children++
		}
	}
	return nil
}

// copyAttributes gives a new upper directory the owner and mode of the layer
// below: the root directory of the container is the upper one.
func copyAttributes(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && (st.Uid != 0 || st.Gid != 0) {
		if err := os.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if mode := info.Mode(); mode.Perm() != 0o755 || mode&(os.ModeSticky|os.ModeSetuid|os.ModeSetgid) != 0 {
		return os.Chmod(to, mode)
	}
	return nil
}

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
