package sandbox

import (
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attributes here belong to the calling thread, which execve makes the process.

func (s *stage) setScheduler() error {
	want := s.Process.Scheduler
	if want == nil {
		return nil
	}
	attr := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: want.Policy, Flags: want.Flags, Nice: want.Nice, Priority: want.Priority,
		Runtime: want.Runtime, Deadline: want.Deadline, Period: want.Period,
	}
	return unix.SchedSetAttr(0, &attr, 0)
}

func (s *stage) setIOPriority() error {
	if s.Process.IOPriority == nil {
		return nil
	}
	const whoProcess = 1 // IOPRIO_WHO_PROCESS
	if _, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, whoProcess, 0, uintptr(*s.Process.IOPriority)); errno != 0 {
		return errno
	}
	return nil
}

func (s *stage) setAffinity() error {
	if len(s.Process.Affinity) == 0 {
		return nil
	}
	return SetAffinity(s.Process.Affinity)
}

// SetAffinity lets the calling thread run on the given processors only.
func SetAffinity(processors []int) error {
	var set unix.CPUSet
	for _, cpu := range processors {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("CPUs %v: %w", processors, err)
	}
	return nil
}

func (s *stage) setMemoryPolicy() error {
	policy := s.Process.MemoryPolicy
	if policy == nil {
		return nil
	}
	var nodes unsafe.Pointer
	var count uintptr
	if len(policy.Nodes) > 0 {
		nodes = unsafe.Pointer(&policy.Nodes[0])
		// One more than the bits there are: the kernel takes one off.
		count = uintptr(len(policy.Nodes)*bits.UintSize) + 1
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SET_MEMPOLICY, uintptr(policy.Mode), uintptr(nodes), count)
	runtime.KeepAlive(policy)
	if errno != 0 {
		return errno
	}
	return nil
}

func (s *stage) setPersonality() error {
	if s.Process.Personality == nil {
		return nil
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, uintptr(*s.Process.Personality), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// searchable lets those who have the same user search a keyring, so that execs
// find it by name (KEY_USR_SEARCH, linux/key.h).
const searchable = 0x80000

// joinKeyring gives the container a session keyring of its own: the inherited
// one is that of whoever started the engine.
func (s *stage) joinKeyring() error { return JoinKeyring(s.Process.Keyring) }

// JoinKeyring gives the calling thread a session keyring by its name; an empty
// one keeps the inherited one.
func JoinKeyring(name string) error {
	if name == "" {
		return nil
	}
	ring, err := unix.KeyctlJoinSessionKeyring(name)
	if errors.Is(err, unix.ENOSYS) { // a kernel without keys has none to keep from the container
		return nil
	}
	if err != nil {
		return err
	}
	description, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, ring)
	if err != nil {
		return err
	}
	var uid, gid int
	var permissions uint32
	// "keyring;uid;gid;permissions;name"
	if _, err := fmt.Sscanf(description, "keyring;%d;%d;%x;", &uid, &gid, &permissions); err != nil {
		return fmt.Errorf("the kernel describes the keyring as %q", description)
	}
	if permissions&searchable != 0 {
		return nil
	}
	return unix.KeyctlSetperm(ring, permissions|searchable)
}

// ownStreams gives the standard streams to the user, who may want to open
// /dev/stdout again. What cannot be owned (sockets, devices, a user that the
// namespace does not map) stays as it is.
func (s *stage) ownStreams() error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFIFO || st.Uid == s.Process.UID {
			continue
		}
		if err := unix.Fchown(fd, int(s.Process.UID), -1); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return nil
}

// allowHugePages takes back what the stage has from its monitor; execve keeps it.
func (s *stage) allowHugePages() error {
	if !s.HugePages {
		return nil
	}
	return unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0)
}

// ownNull takes the container's null device for standard streams that are the
// host's: a file of a mount that is not the container's can be in no checkpoint.
// Where the container has no such device they stay.
func (s *stage) ownNull() error {
	if s.Container == nil {
		return nil
	}
	own := -1
	for fd := range 3 {
		if !isNull(fd) {
			continue
		}
		if own < 0 {
			path, err := s.openInRoot("/dev/null", unix.O_PATH)
			if err != nil {
				return nil
			}
			null := isNull(path)
			_ = unix.Close(path)
			if !null {
				return nil
			}
			if own, err = s.openInRoot("/dev/null", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK); err != nil {
				return nil
			}
			defer func() { _ = unix.Close(own) }()
			if _, err := unix.FcntlInt(uintptr(own), unix.F_SETFL, 0); err != nil || !isNull(own) {
				return err
			}
		}
		if err := unix.Dup3(own, fd, 0); err != nil {
			return err
		}
	}
	return nil
}

func isNull(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}
