package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Seccomp is a compiled filter: sock_filter structs as they lie in memory.
type Seccomp struct {
	Program []byte `json:"program"`
	Flags   uint   `json:"flags,omitempty"` // of seccomp(2)
	// Notify: the filter asks a listener; its descriptor goes to the monitor.
	Notify bool `json:"notify,omitempty"`
}

// Under the filter the stage may not be able to do any system call at all, also
// none that hands over the listener's descriptor. So it tells the number through
// shared memory, from which the monitor takes the descriptor (pidfd_getfd(2)).
// The memory is a sealed memfd of MailboxSize bytes, announced by
// MessageListener; it has two words.
const (
	MailboxSize = 4096
	// MailboxNumber is the word with the descriptor's number plus one.
	MailboxNumber = 0
	// MailboxAnswer is the word in which the monitor answers.
	MailboxAnswer = 1

	AnswerTaken   = 1
	AnswerRefused = 2
)

// listenerPatience bounds the wait for the monitor. It polls while the stage
// installs its filter, so that the wait is short.
const listenerPatience = 30 * time.Second

// maxFilter is BPF_MAXINSNS. A longer program's length would be cut to 16 bits,
// and a harmless beginning be installed.
const maxFilter = 4096

func (s *stage) installFilter() error {
	filter := s.Seccomp
	if filter == nil || len(filter.Program) == 0 {
		return nil
	}
	count := len(filter.Program) / int(unsafe.Sizeof(unix.SockFilter{}))
	if count > maxFilter {
		return fmt.Errorf("the filter has %d instructions, more than the kernel's %d", count, maxFilter)
	}
	flags := uintptr(filter.Flags)
	words := s.mailbox
	if words != nil {
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	program := unix.SockFprog{
		Len:    uint16(count),
		Filter: (*unix.SockFilter)(unsafe.Pointer(&filter.Program[0])),
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return errno
	}
	if words == nil {
		return nil
	}
	// No system calls from here: reading the clock is none (vdso(7)).
	words[MailboxNumber].Store(uint32(fd) + 1)
	for end := time.Now().Add(listenerPatience); ; {
		for range 1000 {
			switch words[MailboxAnswer].Load() {
			case AnswerTaken:
				return nil
			case AnswerRefused:
				return errors.New("the seccomp listener was refused")
			}
		}
		if time.Now().After(end) {
			return errors.New("nobody took the seccomp listener")
		}
	}
}

// announceListener sends the monitor the mailbox and waits until it has spoken
// to the agent.
func (s *stage) announceListener() error {
	if s.Seccomp == nil || !s.Seccomp.Notify {
		return nil
	}
	fd, err := unix.MemfdCreate("seccomp listener", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Ftruncate(fd, MailboxSize); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return err
	}
	if s.mailbox, err = MapMailbox(fd); err != nil {
		return err
	}
	if err := unix.Sendmsg(s.sync, []byte{MessageListener}, unix.UnixRights(fd), nil, 0); err != nil {
		return err
	}
	if readOrder(s.sync) != MessageGo {
		os.Exit(1) // nobody wants the program any more
	}
	return nil
}

// MapMailbox maps the words of a mailbox. A memory that could shrink is refused:
// reading it would kill the reader.
func MapMailbox(fd int) (*[2]atomic.Uint32, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if seals&unix.F_SEAL_SHRINK == 0 || st.Size < MailboxSize {
		return nil, errors.New("the mailbox is not sealed")
	}
	page, err := unix.Mmap(fd, 0, MailboxSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*[2]atomic.Uint32)(unsafe.Pointer(&page[0])), nil
}
