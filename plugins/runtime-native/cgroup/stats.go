package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/runtime"
)

// tick is the unit of cpuacct.stat: USER_HZ is 100 on every architecture of Linux
// that Go knows.
const tick = uint64(time.Second / 100)

// reader reads the files of statistics. A kernel may be built without any of them:
// what is missing counts as zero. It keeps the first error.
type reader struct{ err error }

func (r *reader) text(path string) string {
	body, err := readFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && r.err == nil {
		r.err = err
	}
	return string(body)
}

// number reads a file with one number; "max" is the greatest there is.
func (r *reader) number(path string) uint64 {
	text := strings.TrimSpace(r.text(path))
	switch text {
	case "":
		return 0
	case "max":
		return math.MaxUint64
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil && r.err == nil {
		r.err = &fs.PathError{Op: "parse", Path: path, Err: err}
	}
	return n
}

// keyed reads a file of lines "key number"; nil for an empty one.
func (r *reader) keyed(path string) map[string]uint64 {
	body := r.text(path)
	if body == "" {
		return nil
	}
	return parseKeyed(body)
}

func (l *legacy) stats() (runtime.Stats, error) {
	var s runtime.Stats
	if len(l.dirs()) == 0 {
		return s, fs.ErrNotExist
	}
	r := &reader{}
	file := func(controller, name string) string { return filepath.Join(l.dir(controller), name) }
	if l.dir("cpuacct") != "" {
		s.CPU.Total = r.number(file("cpuacct", "cpuacct.usage"))
		spent := r.keyed(file("cpuacct", "cpuacct.stat"))
		s.CPU.User, s.CPU.System = spent["user"]*tick, spent["system"]*tick
		for _, text := range strings.Fields(r.text(file("cpuacct", "cpuacct.usage_percpu"))) {
			n, _ := strconv.ParseUint(text, 10, 64) // the kernel writes numbers
			s.CPU.PerCPU = append(s.CPU.PerCPU, n)
		}
	}
	if l.dir("cpu") != "" {
		throttled := r.keyed(file("cpu", "cpu.stat"))
		s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime = throttled["nr_periods"], throttled["nr_throttled"], throttled["throttled_time"]
	}
	if l.dir("memory") != "" {
		s.Memory = runtime.MemoryStats{
			Usage: r.number(file("memory", "memory.usage_in_bytes")), MaxUsage: r.number(file("memory", "memory.max_usage_in_bytes")),
			Limit: hostLimit(r.number(file("memory", "memory.limit_in_bytes"))), Failures: r.number(file("memory", "memory.failcnt")),
			Detail: r.keyed(file("memory", "memory.stat")),
		}
	}
	if l.dir("pids") != "" {
		s.Pids = runtime.PidsStats{Current: r.number(file("pids", "pids.current")), Limit: unlimited(r.number(file("pids", "pids.max")))}
	}
	if l.dir("blkio") != "" {
		// The scheduler CFQ, which kernels before 5.0 had, keeps its own.
		for _, name := range []string{"blkio.%s_recursive", "blkio.throttle.%s_recursive", "blkio.throttle.%s"} {
			bytes := r.text(file("blkio", fmt.Sprintf(name, "io_service_bytes")))
			operations := r.text(file("blkio", fmt.Sprintf(name, "io_serviced")))
			if s.BlkIO = parseBlkIO(bytes, operations); len(s.BlkIO) > 0 {
				break
			}
		}
	}
	return s, r.err
}

// parseBlkIO joins the bytes and the operations of each device and direction:
// lines "major:minor direction number" of v1. Others, such as totals, are left
// out.
func parseBlkIO(bytes, operations string) []runtime.BlkIOEntry {
	var list []runtime.BlkIOEntry
	type key struct{ device, op string }
	index := map[key]int{}
	each := func(body string, set func(e *runtime.BlkIOEntry, value uint64)) {
		for line := range strings.Lines(body) {
			words := strings.Fields(line)
			if len(words) != 3 {
				continue
			}
			major, minor, ok := parseDevice(words[0])
			value, err := strconv.ParseUint(words[2], 10, 64)
			if !ok || err != nil {
				continue
			}
			k := key{words[0], words[1]}
			i, known := index[k]
			if !known {
				i = len(list)
				index[k] = i
				list = append(list, runtime.BlkIOEntry{Major: major, Minor: minor, Op: words[1]})
			}
			set(&list[i], value)
		}
	}
	each(bytes, func(e *runtime.BlkIOEntry, value uint64) { e.Bytes = value })
	each(operations, func(e *runtime.BlkIOEntry, value uint64) { e.IOs = value })
	return list
}

// parseDevice reads "major:minor".
func parseDevice(text string) (major, minor uint64, ok bool) {
	first, second, ok := strings.Cut(text, ":")
	if !ok {
		return 0, 0, false
	}
	major, err := strconv.ParseUint(first, 10, 32)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.ParseUint(second, 10, 32)
	return major, minor, err == nil
}

// unlimited is 0 where the kernel says the greatest number there is.
func unlimited(limit uint64) uint64 {
	if limit == math.MaxUint64 || limit == math.MaxInt64 {
		return 0
	}
	return limit
}

func (u *unified) stats() (runtime.Stats, error) {
	var s runtime.Stats
	if len(u.dirs()) == 0 {
		return s, fs.ErrNotExist
	}
	r := &reader{}
	file := func(name string) string { return filepath.Join(u.group(), name) }
	cpu := r.keyed(file("cpu.stat"))
	s.CPU = runtime.CPUStats{
		Total: nanoseconds(cpu["usage_usec"]), User: nanoseconds(cpu["user_usec"]), System: nanoseconds(cpu["system_usec"]),
		Periods: cpu["nr_periods"], ThrottledPeriods: cpu["nr_throttled"], ThrottledTime: nanoseconds(cpu["throttled_usec"]),
	}
	s.Memory = runtime.MemoryStats{
		Usage: r.number(file("memory.current")), MaxUsage: r.number(file("memory.peak")), Limit: hostLimit(r.number(file("memory.max"))),
		Detail: r.keyed(file("memory.stat")),
	}
	s.Pids = runtime.PidsStats{Current: r.number(file("pids.current")), Limit: unlimited(r.number(file("pids.max")))}
	s.BlkIO = parseIO(r.text(file("io.stat")))
	return s, r.err
}

// parseIO reads io.stat of v2: lines "major:minor name=number...".
func parseIO(body string) []runtime.BlkIOEntry {
	var list []runtime.BlkIOEntry
	for line := range strings.Lines(body) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue // a device that nothing has gone to or come from
		}
		major, minor, ok := parseDevice(words[0])
		if !ok {
			continue
		}
		read, write := runtime.BlkIOEntry{Major: major, Minor: minor, Op: "read"}, runtime.BlkIOEntry{Major: major, Minor: minor, Op: "write"}
		numbers := map[string]*uint64{"rbytes": &read.Bytes, "rios": &read.IOs, "wbytes": &write.Bytes, "wios": &write.IOs}
		for _, word := range words[1:] {
			name, text, _ := strings.Cut(word, "=")
			if number := numbers[name]; number != nil {
				*number, _ = strconv.ParseUint(text, 10, 64) // the kernel writes numbers
			}
		}
		list = append(list, read, write)
	}
	return list
}

func nanoseconds(us uint64) uint64 { return us * uint64(time.Microsecond) }

// hostLimit is the host's memory where a group has no limit of its own.
func hostLimit(limit uint64) uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return limit
	}
	return min(limit, uint64(info.Totalram)*uint64(info.Unit)) //nolint:unconvert // 32 bits wide on some architectures
}
