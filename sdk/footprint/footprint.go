// Package footprint gives back the memory that only a program's start needed.
//
// A Go program with a gRPC server touches most of its own file while it
// initialises: a dozen megabytes that stay mapped, though a driver that waits for
// calls uses a fraction of them. What is needed again is mapped again from the
// page cache, a few microseconds for each sixteen pages.
package footprint

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Shrink collects garbage, returns free heap to the system, and unmaps the pages
// of the program's own file that hold no changes. Call it once, when a program
// has become ready. Its error changes nothing but memory use.
func Shrink() error {
	debug.FreeOSMemory()
	file, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer func() { _ = maps.Close() }()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		begin, end, ok := clean(lines.Text(), file)
		if !ok {
			continue
		}
		// A read-only mapping has no pages but the file's: dropping them loses nothing.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, begin, end-begin, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise of %s: %w", lines.Text(), errno)
		}
	}
	return lines.Err()
}

// clean reads a line of /proc/<pid>/maps (proc_pid_maps(5)) and answers the
// addresses if it is a mapping of file that cannot be written to.
func clean(line, file string) (begin, end uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || fields[1][1] == 'w' || !strings.HasSuffix(line, " "+file) {
		return 0, 0, false
	}
	low, high, _ := strings.Cut(fields[0], "-")
	first, err := strconv.ParseUint(low, 16, 64)
	if err != nil {
		return 0, 0, false
	}
	last, err := strconv.ParseUint(high, 16, 64)
	return uintptr(first), uintptr(last), err == nil && last > first
}
