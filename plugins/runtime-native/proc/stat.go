// Package proc reads what the kernel says of a process (proc_pid_stat(5)).
package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Exiting is PF_EXITING of linux/sched.h in [Stat.Flags]: the process ends, which
// may take the kernel a while, and executes nothing any more.
const Exiting = 0x4

// Stat is what is known of a process.
type Stat struct {
	State  byte // the letter: 'R', 'S', 'Z' and so on
	Parent int  // its pid
	Flags  uint64
	// Start is when it started, in clock ticks since boot: together with the pid it
	// tells a process from a later one with the same pid.
	Start string
}

// ReadStat reads a process's; fs.ErrNotExist if there is none.
func ReadStat(pid int) (Stat, error) {
	name := "/proc/" + strconv.Itoa(pid) + "/stat"
	body, err := os.ReadFile(name)
	if err != nil {
		return Stat{}, err
	}
	s, err := parse(body)
	if err != nil {
		return Stat{}, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// StartTime is [Stat.Start], or "" if there is no such process.
func StartTime(pid int) string {
	stat, err := ReadStat(pid)
	if err != nil {
		return ""
	}
	return stat.Start
}

func parse(body []byte) (Stat, error) {
	// The command's name may hold anything, spaces and parentheses too.
	fields := bytes.Fields(body[bytes.LastIndexByte(body, ')')+1:])
	if len(fields) < 20 {
		return Stat{}, fmt.Errorf("%d fields after the name, want 20 or more", len(fields))
	}
	parent, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return Stat{}, fmt.Errorf("parent: %w", err)
	}
	flags, err := strconv.ParseUint(string(fields[6]), 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("flags: %w", err)
	}
	return Stat{State: fields[0][0], Parent: parent, Flags: flags, Start: string(fields[19])}, nil
}
