package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// containerSteps set a container up. The stage's process is already in its
// cgroup and in new mount, pid, uts, ipc and net namespaces (or in those it
// shares).
func (s *stage) containerSteps() []step {
	c := s.Container
	return []step{
		{"opening the security attributes", s.openLabel},
		// The cgroup namespace's root is the cgroup at the time of unshare: only after
		// the process has joined its own.
		{"unsharing namespaces", func() error { return unshare(c.Unshare) }},
		// Before any mount, so that none of ours travels to the host.
		{"making mounts private", s.makePrivate},
		{"setting the hostname", s.setHostname},
		{"bringing loopback up", s.loopbackUp},
		{"taking over mounts", s.receivePrepared},
		{"mounting the root filesystem", s.mountRoot},
		// Before pivot_root: bind sources are host paths.
		{"mounting", s.mountAll},
		{"making devices", s.makeDevices},
		{"opening the null device", s.openNull},
		{"running hooks", s.createHooks},
		{"opening the null device", s.openNull},
		{"changing the root", s.pivot},
		// From here on paths are the container's.
		{"setting sysctls", s.setSysctls},
		{"opening the terminal", s.openTerminal},
		{"opening the container's null device", s.ownNull},
		{"masking paths", s.mask},
		{"making the root read-only", s.readOnlyRoot},
		{"setting the root's propagation", s.setRootPropagation},
	}
}

func unshare(flags int) error {
	if flags == 0 {
		return nil
	}
	return unix.Unshare(flags)
}

// makePrivate gives the host's mounts the propagation asked for; the one below
// the root filesystem never tells the host.
func (s *stage) makePrivate() error {
	c := s.Container
	if err := unix.Mount("", "/", "", c.Propagation, ""); err != nil {
		return err
	}
	if c.Propagation&unix.MS_SHARED == 0 {
		return nil
	}
	below := c.Rootfs
	if c.PreparedRoot {
		below = "/"
	}
	for dir := below; ; dir = filepath.Dir(dir) {
		err := unix.Mount("", dir, "", unix.MS_PRIVATE, "")
		if err == nil || dir == "/" || !errors.Is(err, unix.EINVAL) { // EINVAL: nothing is mounted just here
			return err
		}
	}
}

func (s *stage) setRootPropagation() error {
	if s.Container.RootPropagation == 0 {
		return nil
	}
	return unix.Mount("", "/", "", s.Container.RootPropagation, "")
}

func (s *stage) setHostname() error {
	if s.Container.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Container.Hostname)); err != nil {
			return err
		}
	}
	if s.Container.Domainname != "" {
		return unix.Setdomainname([]byte(s.Container.Domainname))
	}
	return nil
}

func (s *stage) loopbackUp() error {
	if !s.Container.NetUp {
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// mountRoot mounts the root filesystem over the bundle's directory and opens it.
func (s *stage) mountRoot() error {
	if s.Container.PreparedRoot {
		return s.adoptRoot()
	}
	dir, mounts := s.Container.Rootfs, s.Container.Root
	if len(mounts) == 0 { // a plain directory still has to be a mount for pivot_root
		if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	} else if err := mountBase(mounts[0], dir); err != nil {
		return err
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.root = root
	for _, m := range mounts[min(1, len(mounts)):] { // below the first, which may hold links
		if err := s.mountOne(m); err != nil {
			return fmt.Errorf("%s on %s: %w", describe(m), m.Target, err)
		}
	}
	return nil
}

// mountBase mounts the lowest mount of the root filesystem over a host directory.
func mountBase(m Mount, dir string) error {
	if m.Type == "overlay" && m.IDMap != nil {
		return mountMapped(m, dir)
	}
	if data := strings.Join(m.Data, ","); m.Type == "overlay" && len(data) < os.Getpagesize() {
		// One call, and older kernels take long layer lists in no other way.
		return unix.Mount(m.Type, dir, m.Type, legacyFlags(m.Set), data)
	}
	fd, err := createMount(m)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount to %s: %w", dir, err)
	}
	return nil
}

// legacyFlags are the flags of mount(2) for those of mount_setattr(2) that a
// root filesystem may have.
func legacyFlags(set uint64) uintptr {
	var flags uintptr
	for attr, flag := range map[uint64]uintptr{unix.MOUNT_ATTR_RDONLY: unix.MS_RDONLY, unix.MOUNT_ATTR_NOSUID: unix.MS_NOSUID, unix.MOUNT_ATTR_NODEV: unix.MS_NODEV, unix.MOUNT_ATTR_NOEXEC: unix.MS_NOEXEC} {
		if set&attr != 0 {
			flags |= flag
		}
	}
	return flags
}

func (s *stage) mountAll() error {
	for _, m := range s.Container.Mounts {
		var err error
		if m.Link {
			err = s.link(m)
		} else {
			err = s.mountOne(m)
		}
		if err != nil {
			return fmt.Errorf("%s on %s: %w", describe(m), m.Target, err)
		}
	}
	return nil
}

func describe(m Mount) string {
	if m.Source == "" || m.Source == m.Type {
		return m.Type
	}
	return m.Type + " of " + m.Source
}

func (s *stage) setSysctls() error {
	for key, value := range s.Container.Sysctls {
		// Keys are paths: who made them has looked at their dots.
		if err := s.writeProc("sys/"+key, value); err != nil {
			return fmt.Errorf("sysctl %s: %w", strings.ReplaceAll(key, "/", "."), err)
		}
	}
	return nil
}

func (s *stage) readOnlyRoot() error {
	if !s.Container.ReadOnly {
		return nil
	}
	return unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// makeDevices makes device nodes and the usual links in /dev.
func (s *stage) makeDevices() error {
	old := unix.Umask(0)
	defer unix.Umask(old)
	for _, device := range s.Container.Devices {
		if err := s.makeDevice(device); err != nil {
			return fmt.Errorf("%s: %w", device.Path, err)
		}
	}
	if s.Container.KeepDev {
		return nil
	}
	for _, link := range [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}} {
		dev, err := s.openInRoot("/dev", unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Symlinkat(link[0], dev, link[1])
		_ = unix.Close(dev)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("linking /dev/%s: %w", link[1], err)
		}
	}
	return nil
}

func (s *stage) makeDevice(d Device) error {
	if d.Prepared {
		return s.bindDevice(d)
	}
	parent, err := s.ensureDir(filepath.Dir(d.Path))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	name := filepath.Base(d.Path)
	err = unix.Mknodat(parent, name, d.Mode, int(unix.Mkdev(d.Major, d.Minor)))
	if errors.Is(err, unix.EEXIST) {
		return sameDevice(parent, name, d)
	}
	if errors.Is(err, unix.EPERM) { // no mknod in a user namespace: bind the host's
		return s.mountOne(Mount{Type: "bind", Source: d.Path, Target: d.Path})
	}
	if err != nil {
		return err
	}
	return unix.Fchownat(parent, name, d.UID, d.GID, unix.AT_SYMLINK_NOFOLLOW)
}

// sameDevice answers nil if the existing file is the device asked for.
func sameDevice(parent int, name string, d Device) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := d.Mode & unix.S_IFMT
	if st.Mode&unix.S_IFMT != kind || kind != unix.S_IFIFO && st.Rdev != unix.Mkdev(d.Major, d.Minor) {
		return errors.New("a file that is not the requested device is in its place")
	}
	return nil
}

// openTerminal makes a terminal in the container's own devpts, so that the
// program finds the name of its terminal there.
func (s *stage) openTerminal() error {
	if !s.Process.Terminal {
		return nil
	}
	master, err := s.openMultiplexer()
	if err != nil {
		return err
	}
	s.terminal = master
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	if s.Process.Width > 0 && s.Process.Height > 0 {
		size := unix.Winsize{Col: s.Process.Width, Row: s.Process.Height}
		if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &size); err != nil {
			return err
		}
	}
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY)
	if errno != 0 {
		return fmt.Errorf("opening the terminal's other end: %w", errno)
	}
	if err := unix.Fchown(int(slave), int(s.Process.UID), -1); err != nil {
		return err
	}
	if s.Container != nil {
		if err := s.console(int(slave)); err != nil {
			return fmt.Errorf("mounting /dev/console: %w", err)
		}
	}
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) {
		return err
	}
	if err := unix.IoctlSetInt(int(slave), unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("taking the terminal: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(int(slave), fd, 0); err != nil {
			return err
		}
	}
	return unix.Close(int(slave))
}

// openMultiplexer opens ptmx of the container's devpts, of which nothing but the
// name of its directory is the container's.
func (s *stage) openMultiplexer() (int, error) {
	dir, err := s.openInRoot("/dev/pts", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, fmt.Errorf("opening /dev/pts: %w", err)
	}
	defer func() { _ = unix.Close(dir) }()
	var what unix.Statfs_t
	if err := unix.Fstatfs(dir, &what); err != nil {
		return -1, err
	}
	if what.Type != unix.DEVPTS_SUPER_MAGIC {
		return -1, errors.New("a terminal needs a devpts filesystem at /dev/pts")
	}
	return unix.Openat2(dir, "ptmx", &unix.OpenHow{Flags: unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: withinMount})
}

// console puts the terminal at /dev/console, too: the terminal that is open, not
// what a name leads to.
func (s *stage) console(terminal int) error {
	mount, err := unix.OpenTree(terminal, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(mount) }()
	dev, err := s.openInRoot("/dev", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dev) }()
	err = unix.Mknodat(dev, "console", unix.S_IFREG|0o600, 0)
	if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EROFS) {
		return err
	}
	target, err := unix.Openat2(dev, "console", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(target) }()
	return attach(mount, target)
}
