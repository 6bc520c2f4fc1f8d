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
	return Unmap()
}

// Unmap is the part of Shrink that leaves the heap alone.
func Unmap() error {
	ranges, err := cleanRanges()
	if err != nil {
		return err
	}
	// All at the end: what runs in between would be mapped again.
	for _, r := range ranges {
		// A read-only mapping has no pages but the file's: dropping them loses nothing.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.begin, r.end-r.begin, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise of %x-%x: %w", r.begin, r.end, errno)
		}
	}
	return nil
}

type addresses struct{ begin, end uintptr }

// cleanRanges finds the program's own read-only mappings.
func cleanRanges() ([]addresses, error) {
	file, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer func() { _ = maps.Close() }()
	var ranges []addresses
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		if begin, end, ok := clean(lines.Text(), file); ok {
			ranges = append(ranges, addresses{begin, end})
		}
	}
	return ranges, lines.Err()
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
