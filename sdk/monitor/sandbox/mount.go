package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/openat2"
)

// makeMount makes a mount that is attached nowhere yet, or takes the parent's.
func (s *stage) makeMount(m Mount) (int, error) {
	if m.Prepared {
		return s.next()
	}
	return createMount(m)
}

// createMount makes a mount that is attached nowhere yet.
func createMount(m Mount) (int, error) {
	var fd int
	var err error
	if m.Type == "bind" {
		fd, err = cloneTree(m)
	} else {
		fd, err = newFilesystem(m)
	}
	if err != nil {
		return -1, err
	}
	if m.IDMap != nil && m.Type != "overlay" {
		if err := applyMap(fd, m.IDMap); err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
	}
	if m.CopyUp {
		return fd, nil // it has to be written to first
	}
	if err := setAttributes(fd, m); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func cloneTree(m Mount) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	from, path := unix.AT_FDCWD, m.Source
	if m.Subdir != "" {
		dir, err := openBeneath(m.Source, m.Subdir)
		if err != nil {
			return -1, fmt.Errorf("%s of bind source %s: %w", m.Subdir, m.Source, err)
		}
		defer func() { _ = unix.Close(dir) }()
		from, path, flags = dir, "", flags|unix.AT_EMPTY_PATH
	}
	fd, err := unix.OpenTree(from, path, flags)
	if err != nil {
		return -1, fmt.Errorf("bind source %s: %w", m.Source, err)
	}
	return fd, nil
}

// openBeneath opens what subdir names below a directory that other containers
// may write to: links may not lead out, at no moment.
func openBeneath(dir, subdir string) (int, error) {
	base, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(base) }()
	return openat2.Open(base, subdir, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
}

// newFilesystem mounts a filesystem. Options that together exceed a page (long
// lists of overlay layers) only fit through fsconfig; everything else does, too.
func newFilesystem(m Mount) (int, error) {
	fs, err := unix.Fsopen(m.Type, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("filesystem %s: %w", m.Type, err)
	}
	defer func() { _ = unix.Close(fs) }()
	if m.Source != "" {
		if err := unix.FsconfigSetString(fs, "source", m.Source); err != nil {
			return -1, fmt.Errorf("source %s: %w", m.Source, err)
		}
	}
	for _, option := range m.Data {
		if err := configure(fs, option); err != nil {
			return -1, fmt.Errorf("option %s: %w%s", shorten(option), err, explain(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("%w%s", err, explain(fs))
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
}

// maxString is the longest value that fsconfig takes in one call.
const maxString = 255

func configure(fs int, option string) error {
	key, value, hasValue := strings.Cut(option, "=")
	if !hasValue {
		return unix.FsconfigSetFlag(fs, key)
	}
	if key == "lowerdir" && len(value) > maxString {
		// One layer a call; kernels before 6.8 know no "lowerdir+".
		for _, layer := range strings.Split(value, ":") {
			if err := unix.FsconfigSetString(fs, "lowerdir+", layer); err != nil {
				return err
			}
		}
		return nil
	}
	return unix.FsconfigSetString(fs, key, value)
}

func shorten(option string) string {
	if len(option) > 200 {
		return option[:200] + "…"
	}
	return option
}

// explain reads what the kernel says of a filesystem context's failure.
func explain(fs int) string {
	var buffer [1024]byte
	n, err := unix.Read(fs, buffer[:])
	if err != nil || n == 0 {
		return ""
	}
	return " (" + strings.TrimSpace(string(buffer[:n])) + ")"
}

func setAttributes(fd int, m Mount) error {
	if m.Set != 0 || m.Clear != 0 {
		attr := unix.MountAttr{Attr_set: m.Set, Attr_clr: m.Clear}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("setting attributes: %w", err)
		}
	}
	if m.SetAll != 0 || m.ClearAll != 0 {
		attr := unix.MountAttr{Attr_set: m.SetAll, Attr_clr: m.ClearAll}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return fmt.Errorf("setting attributes recursively: %w", err)
		}
	}
	for _, propagation := range m.Propagation {
		flags := uint(unix.AT_EMPTY_PATH)
		if propagation&unix.MS_REC != 0 {
			flags |= unix.AT_RECURSIVE
		}
		if err := unix.MountSetattr(fd, "", flags, &unix.MountAttr{Propagation: uint64(propagation &^ unix.MS_REC)}); err != nil {
			return fmt.Errorf("setting propagation: %w", err)
		}
	}
	return nil
}

// remount changes what is mounted at a place in the root filesystem. The kernel
// keeps what is not named, and refuses to clear flags that are locked.
func (s *stage) remount(m Mount) error {
	fd, err := s.openInRoot(m.Target, unix.O_PATH)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if m.Type != "bind" && len(m.Data) > 0 {
		if err := reconfigure(fd, m.Data); err != nil {
			return err
		}
	}
	return setAttributes(fd, m)
}

// reconfigure changes the options of the filesystem mounted at a descriptor.
func reconfigure(fd int, options []string) error {
	fs, err := unix.Fspick(fd, "", unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fs) }()
	for _, option := range options {
		if err := configure(fs, option); err != nil {
			return fmt.Errorf("option %s: %w%s", shorten(option), err, explain(fs))
		}
	}
	if err := unix.FsconfigReconfigure(fs); err != nil {
		return fmt.Errorf("%w%s", err, explain(fs))
	}
	return nil
}

// mountOne mounts below the root filesystem. The mount point is found and made
// without leaving the root, whatever links the image put there.
func (s *stage) mountOne(m Mount) error {
	if m.Remount {
		return s.remount(m)
	}
	fd, err := s.makeMount(m)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	target, err := s.mountPoint(m, fd)
	if err != nil {
		return fmt.Errorf("mount point: %w", err)
	}
	defer func() { _ = unix.Close(target) }()
	if err := checkOverProc(m, fd, target); err != nil {
		return err
	}
	if m.CopyUp {
		if err := copyUp(target, fd); err != nil {
			return fmt.Errorf("copying up: %w", err)
		}
		if err := setAttributes(fd, m); err != nil {
			return err
		}
	}
	if err := attach(fd, target); err != nil {
		return err
	}
	if m.Type == "proc" && s.proc < 0 {
		s.proc, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	}
	return err
}

// attach puts a mount over what a descriptor names: between finding the place
// and mounting nobody can put a link there.
func attach(mount, target int) error {
	return unix.MoveMount(mount, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// mountPoint opens the place for a mount, making a directory or an empty file.
func (s *stage) mountPoint(m Mount, mount int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(mount, &st); err != nil {
		return -1, err
	}
	if m.Type == "proc" || m.Type == "sysfs" {
		return s.ordinaryDir(m)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return s.ensureDir(m.Target)
	}
	fd, err := s.openInRoot(m.Target, unix.O_PATH)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	return s.ensureFile(m.Target)
}

// ensureFile makes an empty file in the root filesystem and opens it.
func (s *stage) ensureFile(path string) (int, error) {
	parent, err := s.ensureDir(filepath.Dir(path))
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(parent) }()
	file, err := unix.Openat(parent, filepath.Base(path), unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_WRONLY, 0o755)
	if err != nil {
		return -1, err
	}
	_ = unix.Close(file)
	return s.openInRoot(path, unix.O_PATH)
}

// openInRoot opens a path as if the root filesystem were "/" already. Links
// that lead through another process (proc's) are not followed.
func (s *stage) openInRoot(path string, flags uint64) (int, error) {
	return openat2.Open(s.root, path, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
}

// ensureDir opens a directory in the root filesystem and makes what is missing.
func (s *stage) ensureDir(path string) (int, error) {
	fd, err := s.openInRoot(path, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil || !errors.Is(err, unix.ENOENT) || path == "/" || path == "." {
		return fd, err
	}
	parent, err := s.ensureDir(filepath.Dir(path))
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(parent) }()
	if err := unix.Mkdirat(parent, filepath.Base(path), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return s.openInRoot(path, unix.O_PATH|unix.O_DIRECTORY)
}

// link makes a symbolic link in the root filesystem.
func (s *stage) link(m Mount) error {
	parent, err := s.ensureDir(filepath.Dir(m.Target))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	err = unix.Symlinkat(m.Source, parent, filepath.Base(m.Target))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// copyUp copies what lies below the mount point into a fresh tmpfs. Both are
// descriptors; os.CopyFS refuses what is no file, directory or link, so those
// alone are copied.
func copyUp(from, to int) error {
	source := "/proc/self/fd/" + strconv.Itoa(from)
	dir, err := os.OpenRoot(source)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return os.CopyFS("/proc/self/fd/"+strconv.Itoa(to), dir.FS())
}
