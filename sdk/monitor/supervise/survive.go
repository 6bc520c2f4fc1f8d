package supervise

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/footprint"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// lastToDie is the monitor's OOM score: it is small, and its death is its whole
// container's. One above the kernel's exemption, so that a monitor that does grow
// can still be killed.
const lastToDie = "-999"

// survive makes the process deaf to every signal that can be caught: what ends a
// monitor is the end of its container. It asks the kernel to look for memory
// elsewhere, if it may; a stage sets its own score first of all.
func survive() {
	// Notify and not Ignore: ignored signals stay ignored across execve, and the
	// container's processes are to start with the defaults. Nobody reads the channel.
	signal.Notify(make(chan os.Signal, 1), catchable()...)
	if err := sandbox.IgnoreReserved(); err != nil {
		complain("ignoring signals", err)
	}
	err := os.WriteFile("/proc/self/oom_score_adj", []byte(lastToDie), 0o644)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		complain("setting the OOM score", err)
	}
}

// catchable lists all signals but those that cannot be caught and those that
// mean something here: children's, and the Go scheduler's.
func catchable() []os.Signal {
	var list []os.Signal
	for number := syscall.Signal(1); number <= 64; number++ {
		switch number {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, unix.SIGCONT, unix.SIGWINCH:
		default:
			list = append(list, number)
		}
	}
	return list
}

// idleAfter is how long nothing is asked of a monitor before it gives memory
// back: longer than a short-lived container lives.
const idleAfter = time.Second

// whenIdle returns a timer that gives memory back, to be reset by whoever makes
// the monitor busy.
func whenIdle() *time.Timer { return time.AfterFunc(idleAfter, giveBack) }

// saveMemory chooses when garbage is collected. The collector's own memory, once
// it has run, is more than what starting leaves behind: it runs only when there
// is much to collect, and never by the clock.
func saveMemory() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(heapLimit)
}

const (
	// heapLimit is for the runtime and its heap together: five megabytes are the
	// runtime's, mapped but hardly touched.
	heapLimit = 8 << 20
	// worthwhile is how much memory the heap must hold to be collected when the
	// monitor is idle.
	worthwhile = 1 << 20
)

// giveBack returns memory to the system that starting or answering needed.
func giveBack() {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	if memory.HeapSys-memory.HeapReleased >= worthwhile {
		collect()
		return
	}
	if err := footprint.Unmap(); err != nil {
		complain("giving memory back", err)
	}
}

// collect is for after a burst of output, whose buffers are garbage for certain.
func collect() {
	if err := footprint.Shrink(); err != nil {
		complain("giving memory back", err)
	}
}

// acceptAgain says whether a failure of accept passes by: descriptors or memory
// ran out, or the client was gone already. It waits a little.
func acceptAgain(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	time.Sleep(10 * time.Millisecond)
	return true
}

// complain writes to the monitor's own log, which the driver shows if the
// monitor dies early.
func complain(what string, err error) {
	_, _ = os.Stderr.WriteString(what + ": " + err.Error() + "\n")
}
