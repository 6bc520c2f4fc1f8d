package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Dispositions of a signal (SIG_DFL and SIG_IGN of sigaction(2)).
const (
	signalDefault = 0
	signalIgnored = 1
)

// IgnoreReserved ignores the real-time signals that C libraries keep for
// themselves and that package os/signal leaves alone: a program that does not
// know them dies of them. The stage undoes it before the user's program.
func IgnoreReserved() error { return setReserved(signalIgnored) }

func setReserved(disposition uintptr) error {
	// struct sigaction as the kernel has it: handler, flags, restorer, mask.
	action := [4]uintptr{disposition}
	for number := uintptr(32); number <= 34; number++ {
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, number, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
		if errno != 0 {
			return errno
		}
	}
	return nil
}
