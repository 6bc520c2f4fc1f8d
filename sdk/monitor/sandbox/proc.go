package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The kernel's files in proc are only trusted where nothing of the container can
// lie over them: below a mount that the stage made itself, entered without links
// and without crossing into other mounts.
const withinMount = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// writeProc writes a file of proc by its name below the mount.
func (s *stage) writeProc(name, value string) error {
	proc := s.proc
	if proc < 0 { // the container has none of its own: one that is attached nowhere
		fd, err := newFilesystem(Mount{Type: "proc", Source: "proc"})
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		proc = fd
	}
	fd, err := unix.Openat2(proc, name, &unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: withinMount})
	if err != nil {
		return fmt.Errorf("open /proc/%s: %w", name, err)
	}
	_, err = unix.Write(fd, []byte(value))
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("write /proc/%s: %w", name, err)
	}
	return nil
}

// emulated are the files of proc that may be mounted over, as in runc: lxcfs
// answers them with the container's own numbers.
var emulated = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg", "/proc/slabinfo",
	"/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

// checkOverProc refuses to put anything but a proc filesystem over /proc, and
// anything but emulated files into it: who controls /proc makes others write
// their security labels and limits into files of his own.
func checkOverProc(m Mount, mount, target int) error {
	path := filepath.Clean("/" + m.Target)
	var over, what unix.Statfs_t
	if err := unix.Fstatfs(target, &over); err != nil {
		return err
	}
	onProc := over.Type == unix.PROC_SUPER_MAGIC // whatever links led there
	switch {
	case path != "/proc" && !strings.HasPrefix(path, "/proc/") && !onProc, slices.Contains(emulated, path):
		return nil
	case path != "/proc" && !isMountRoot(target):
		return fmt.Errorf("%q cannot be mounted because it is inside /proc", path)
	}
	if err := unix.Fstatfs(mount, &what); err != nil {
		return err
	}
	if what.Type != unix.PROC_SUPER_MAGIC {
		return fmt.Errorf("%q cannot be mounted because it is not of type proc", path)
	}
	return nil
}

// isMountRoot says whether a directory is where its filesystem begins: proc's
// root has the same inode number in each instance.
func isMountRoot(fd int) bool {
	const procRoot = 1
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Ino == procRoot
}

// ordinaryDir opens the place of a proc or sysfs, which no link may lead to: the
// paths that are masked and write-protected later would lead elsewhere.
func (s *stage) ordinaryDir(m Mount) (int, error) {
	if fd, err := s.ensureDir(m.Target); err == nil {
		_ = unix.Close(fd)
	} else if !errors.Is(err, unix.ENOTDIR) {
		return -1, err
	}
	fd, err := unix.Openat2(s.root, m.Target, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return -1, fmt.Errorf("filesystem %q must be mounted on ordinary directory", m.Type)
	}
	return fd, err
}
