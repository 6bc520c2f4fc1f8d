package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// joinSteps enter a running container. The stage's process is already in the
// container's cgroup and pid namespace.
func (s *stage) joinSteps() []step {
	return []step{
		{"opening the security attributes", s.openLabel},
		// A thread that shares its root directory with others cannot change the mount
		// namespace.
		{"leaving the threads' shared directory", func() error { return unix.Unshare(unix.CLONE_FS) }},
		{"joining the container", func() error {
			defer func() { _ = unix.Close(PidFD) }()
			if s.Join == 0 {
				return nil
			}
			return unix.Setns(PidFD, s.Join)
		}},
		{"opening the root", func() (err error) {
			s.root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			return err
		}},
		{"opening the terminal", s.openTerminal},
	}
}

// processSteps give the process its limits and rights. The order matters: what
// needs privilege comes first, and nothing but execve follows the filter and the
// final capabilities.
func (s *stage) processSteps() []step {
	p := &s.Process
	return []step{
		{"starting a session", func() error {
			if p.Terminal {
				return nil // has one since the terminal was taken
			}
			if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) {
				return err
			}
			return nil
		}},
		{"joining the session keyring", s.joinKeyring},
		{"allowing huge pages", s.allowHugePages},
		{"setting resource limits", s.setRlimits},
		// With the privileges of the start.
		{"setting the scheduler", s.setScheduler},
		{"setting the IO priority", s.setIOPriority},
		{"setting the CPU affinity", s.setAffinity},
		{"setting the memory policy", s.setMemoryPolicy},
		{"setting the personality", s.setPersonality},
		{"owning the standard streams", s.ownStreams},
		{"changing to the working directory", s.chdir},
		{"dropping bounding capabilities", s.dropBounding},
		{"changing the user", s.setUser},
		{"setting the umask", func() error {
			if p.Umask != nil {
				unix.Umask(int(*p.Umask))
			}
			return nil
		}},
		// Descriptors above the standard ones must not reach the program.
		{"closing descriptors on execve", func() error {
			return unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
		}},
		{"finding the program early", func() error { return s.find(s.FindFirst) }},
		// Everything that may take time is done; from here the monitor decides when.
		{"waiting for the start", s.waitForGo},
		{"running hooks", s.startHooks},
		{"finding the program", func() error { return s.find(!s.FindFirst) }},
		{"setting the security label", s.setLabel},
		{"announcing the seccomp listener", s.announceListener},
		{"passing descriptors", s.passDescriptors},
		{"forbidding new privileges", func() error {
			if !p.NoNewPrivs {
				return nil
			}
			return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		}},
		// Without no_new_privs the kernel wants CAP_SYS_ADMIN for a filter: before the
		// last capabilities go. With it the filter comes last and may forbid even what
		// sets capabilities.
		{"installing the seccomp filter", unless(p.NoNewPrivs, s.installFilter)},
		{"setting capabilities", s.setCapabilities},
		{"installing the seccomp filter at last", unless(!p.NoNewPrivs, s.installFilter)},
	}
}

// passDescriptors gives the program the descriptors it inherits. The Go runtime
// may have its own at these numbers, so that nothing that could block may follow.
func (s *stage) passDescriptors() error {
	if s.Extra == 0 {
		return nil
	}
	sync, err := unix.FcntlInt(uintptr(s.sync), unix.F_DUPFD_CLOEXEC, ExtraFD+s.Extra)
	if err != nil {
		return err
	}
	s.sync = sync
	for i := range s.Extra {
		// Upwards: a source is copied before it is overwritten.
		if err := unix.Dup3(ExtraFD+i, 3+i, 0); err != nil {
			return fmt.Errorf("descriptor %d: %w", 3+i, err)
		}
	}
	return nil
}

// unless is fn, or nothing if it is not its turn.
func unless(skip bool, fn func() error) func() error {
	if skip {
		return func() error { return nil }
	}
	return fn
}

func (s *stage) setRlimits() error {
	for _, limit := range s.Process.Rlimits {
		value := unix.Rlimit{Cur: limit.Soft, Max: limit.Hard}
		err := unix.Prlimit(0, limit.Resource, &value, nil)
		if errors.Is(err, unix.EPERM) {
			// Without CAP_SYS_RESOURCE the hard limit cannot rise: take what there is.
			var now unix.Rlimit
			if err := unix.Prlimit(0, limit.Resource, nil, &now); err != nil {
				return err
			}
			value = unix.Rlimit{Cur: min(limit.Soft, now.Max), Max: min(limit.Hard, now.Max)}
			err = unix.Prlimit(0, limit.Resource, &value, nil)
		}
		if err != nil {
			return fmt.Errorf("limit %d: %w", limit.Resource, err)
		}
	}
	return nil
}

// setOOMScore must run where /proc is the host's: a container may have any file
// in that place.
func (s *stage) setOOMScore() error {
	if s.Process.OOMScoreAdj == nil {
		return nil
	}
	return os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(*s.Process.OOMScoreAdj)), 0o644)
}

// chdir changes to the working directory, which a container gets if its image
// has none.
func (s *stage) chdir() error {
	cwd := s.Process.Cwd
	fd, err := s.openInRoot(cwd, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) && s.Container != nil {
		fd, err = s.ensureDir(cwd)
	}
	if err == nil {
		err = unix.Fchdir(fd)
		_ = unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("chdir to cwd (%q) set in config.json failed: %w", cwd, err)
	}
	// The kernel names a directory outside of the root "(unreachable)", which Getwd
	// takes for none.
	if _, err := unix.Getwd(); err != nil {
		return fmt.Errorf("working directory %q is outside of the container's root: %w", cwd, err)
	}
	return nil
}

// lastCapability is the highest capability the header knows; unknown ones are
// EINVAL in prctl.
const lastCapability = unix.CAP_LAST_CAP

func (s *stage) dropBounding() error {
	caps := s.Process.Caps
	if caps == nil {
		return nil
	}
	for c := range uintptr(lastCapability + 1) {
		if caps.Bounding&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return nil
}

// setUser changes the thread's ids by the bare system calls: package syscall
// would change all threads, and execve keeps only this one.
func (s *stage) setUser() error {
	p := &s.Process
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	var groups unsafe.Pointer
	if len(p.Groups) > 0 {
		groups = unsafe.Pointer(&p.Groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(p.Groups)), uintptr(groups), 0); errno != 0 {
		// A user namespace may deny it: fatal only for who wants groups (its own it has).
		if errno != unix.EPERM || slices.ContainsFunc(p.Groups, func(gid uint32) bool { return gid != p.GID }) {
			return fmt.Errorf("setting additional groups: %w", errno)
		}
	}
	runtime.KeepAlive(p)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(p.GID), uintptr(p.GID), uintptr(p.GID)); errno != 0 {
		return fmt.Errorf("setgid: %w", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(p.UID), uintptr(p.UID), uintptr(p.UID)); errno != 0 {
		return fmt.Errorf("setuid: %w", errno)
	}
	if p.UID == 0 {
		return nil
	}
	// KEEPCAPS kept the permitted set; the filter still needs it to be effective.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective, data[1].Effective = data[0].Permitted, data[1].Permitted
	return unix.Capset(&header, &data[0])
}

func (s *stage) setCapabilities() error {
	caps := s.Process.Caps
	if caps == nil {
		return nil
	}
	// What this machine's engine does not have itself cannot be given.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var own [2]unix.CapUserData
	if err := unix.Capget(&header, &own[0]); err != nil {
		return err
	}
	permitted := caps.Permitted & (uint64(own[1].Permitted)<<32 | uint64(own[0].Permitted))
	effective, inheritable := caps.Effective&permitted, caps.Inheritable&permitted
	data := [2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return err
	}
	for c := range uintptr(lastCapability + 1) {
		if caps.Ambient&permitted&inheritable&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
			return fmt.Errorf("ambient capability %d: %w", c, err)
		}
	}
	return nil
}
