package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/treecopy"
)

// A volume is filled in a directory of its own, whose name changes when all is
// there; only then its entries take their places. What a crash leaves says by its
// name whether it is to be undone or finished.
const (
	filling = ".davit-filling"
	filled  = ".davit-filled"
)

// CopyUp fills an empty volume, a directory of the host, with what a root
// filesystem has at name: everything that treecopy knows of a tree. A volume that
// has something in it, and one where the root filesystem has no directory, stay as
// they are. Two must not fill a volume at the same time.
func CopyUp(ctx context.Context, mounts []mount.Mount, name, volume string) (err error) {
	if err := FinishCopyUp(volume); err != nil {
		return err
	}
	into, err := openVolume(volume)
	if errors.Is(err, unix.ENOTDIR) {
		return nil // a part of a volume that is a file
	}
	if err != nil {
		return err
	}
	defer func() { _ = into.Close() }()
	if _, err := into.Readdirnames(1); !errors.Is(err, io.EOF) {
		return err // nil: it is not empty
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeBelow(volume, filling))
		}
	}()
	staged := false
	err = Mounted(ctx, mounts, true, func(v *View) error {
		fd, err := v.open(absolute(name), unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return err
		}
		source := os.NewFile(uintptr(fd), name)
		defer func() { _ = source.Close() }()
		staged = true
		return stage(ctx, source, into)
	})
	if err != nil || !staged {
		return err
	}
	if err := unix.Renameat(int(into.Fd()), filling, int(into.Fd()), filled); err != nil {
		return err
	}
	return settle(into)
}

// FinishCopyUp finishes or undoes what a crash left of a CopyUp.
func FinishCopyUp(volume string) error {
	if !CopyUpLeft(volume) {
		return nil
	}
	into, err := openVolume(volume)
	if err != nil {
		return err
	}
	defer func() { _ = into.Close() }()
	return errors.Join(removeBelow(volume, filling), settle(into))
}

// CopyUpLeft says whether FinishCopyUp has something to do.
func CopyUpLeft(volume string) bool {
	for _, name := range []string{filling, filled} {
		if _, err := os.Lstat(volume + "/" + name); err == nil {
			return true
		}
	}
	return false
}

func openVolume(path string) (*os.File, error) {
	return os.OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// stage copies a directory next to where its entries will be.
func stage(ctx context.Context, source, into *os.File) error {
	if err := unix.Mkdirat(int(into.Fd()), filling, 0o700); err != nil {
		return err
	}
	fd, err := unix.Openat(int(into.Fd()), filling, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	made := os.NewFile(uintptr(fd), filling)
	defer func() { _ = made.Close() }()
	return treecopy.Copy(ctx, source, made)
}

// settle gives the entries of a complete copy their places and the volume the
// attributes of the copied directory. What a container made there meanwhile
// stays.
func settle(into *os.File) error {
	fd, err := unix.Openat(int(into.Fd()), filled, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	complete := os.NewFile(uintptr(fd), filled)
	defer func() { _ = complete.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	names, err := complete.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == filling || name == filled {
			continue // an image with such names has them left out
		}
		if err := moveNew(fd, int(into.Fd()), name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := treecopy.Attributes(complete, into); err != nil {
		return err
	}
	if err := removeBelow(into.Name(), filled); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(int(into.Fd())), []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// moveNew moves an entry between directories unless there is one of its name.
func moveNew(from, into int, name string) error {
	err := unix.Renameat2(from, name, into, name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a filesystem that cannot promise it
		var st unix.Stat_t
		if err = unix.Fstatat(into, name, &st, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.ENOENT) {
			err = unix.Renameat(from, name, into, name)
		} else if err == nil {
			err = unix.EEXIST
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// removeBelow removes an entry of a volume with all that is in it.
func removeBelow(volume, name string) error {
	root, err := os.OpenRoot(volume)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return root.RemoveAll(name)
}
