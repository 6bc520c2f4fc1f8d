package cgroup

import (
	"math"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	v1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/runtime"
)

// hierarchy lists the controllers whose statistics are read.
var hierarchy = sync.OnceValues(func() ([]cgroup1.Subsystem, error) {
	list, err := cgroup1.Default()
	for i, s := range list {
		if s.Name() == cgroup1.Memory { // a kernel may count no swap
			list[i] = cgroup1.NewMemory(mountpoint, cgroup1.OptionalSwap())
		}
	}
	return list, err
})

func (l *legacy) stats() (runtime.Stats, error) {
	var s runtime.Stats
	group, err := cgroup1.Load(cgroup1.StaticPath(l.path), cgroup1.WithHierarchy(hierarchy))
	if err != nil {
		return s, err
	}
	m, err := group.Stat(cgroup1.IgnoreNotExist)
	if err != nil {
		return s, err
	}
	if usage := m.GetCPU().GetUsage(); usage != nil {
		s.CPU.Total, s.CPU.User, s.CPU.System, s.CPU.PerCPU = usage.Total, usage.User, usage.Kernel, usage.PerCPU
	}
	if t := m.GetCPU().GetThrottling(); t != nil {
		s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime = t.Periods, t.ThrottledPeriods, t.ThrottledTime
	}
	if usage := m.GetMemory().GetUsage(); usage != nil {
		s.Memory = runtime.MemoryStats{Usage: usage.Usage, MaxUsage: usage.Max, Limit: hostLimit(usage.Limit), Failures: usage.Failcnt}
	}
	s.Pids = runtime.PidsStats{Current: m.GetPids().GetCurrent(), Limit: unlimited(m.GetPids().GetLimit())}
	s.BlkIO = blockIO(m.GetBlkio())
	s.Memory.Detail, err = keyed(filepath.Join(l.dir("memory"), "memory.stat"))
	return s, err
}

// blockIO joins the bytes and the operations of each device and direction.
func blockIO(m *v1.BlkIOStat) []runtime.BlkIOEntry {
	type key struct {
		major, minor uint64
		op           string
	}
	var list []runtime.BlkIOEntry
	index := map[key]int{}
	entry := func(e *v1.BlkIOEntry) *runtime.BlkIOEntry {
		k := key{e.Major, e.Minor, e.Op}
		i, ok := index[k]
		if !ok {
			i = len(list)
			index[k] = i
			list = append(list, runtime.BlkIOEntry{Major: e.Major, Minor: e.Minor, Op: e.Op})
		}
		return &list[i]
	}
	for _, e := range m.GetIoServiceBytesRecursive() {
		entry(e).Bytes = e.Value
	}
	for _, e := range m.GetIoServicedRecursive() {
		entry(e).IOs = e.Value
	}
	return list
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
	group, err := cgroup2.Load(u.path)
	if err != nil {
		return s, err
	}
	m, err := group.StatFiltered(cgroup2.StatPids | cgroup2.StatCPU | cgroup2.StatMemory | cgroup2.StatIO)
	if err != nil {
		return s, err
	}
	cpu := m.GetCPU()
	s.CPU = runtime.CPUStats{
		Total: nanoseconds(cpu.GetUsageUsec()), User: nanoseconds(cpu.GetUserUsec()), System: nanoseconds(cpu.GetSystemUsec()),
		Periods: cpu.GetNrPeriods(), ThrottledPeriods: cpu.GetNrThrottled(), ThrottledTime: nanoseconds(cpu.GetThrottledUsec()),
	}
	memory := m.GetMemory()
	s.Memory = runtime.MemoryStats{Usage: memory.GetUsage(), MaxUsage: memory.GetMaxUsage(), Limit: hostLimit(memory.GetUsageLimit())}
	s.Pids = runtime.PidsStats{Current: m.GetPids().GetCurrent(), Limit: unlimited(m.GetPids().GetLimit())}
	for _, e := range m.GetIo().GetUsage() {
		s.BlkIO = append(s.BlkIO,
			runtime.BlkIOEntry{Major: e.Major, Minor: e.Minor, Op: "read", Bytes: e.Rbytes, IOs: e.Rios},
			runtime.BlkIOEntry{Major: e.Major, Minor: e.Minor, Op: "write", Bytes: e.Wbytes, IOs: e.Wios})
	}
	s.Memory.Detail, err = keyed(filepath.Join(u.group(), "memory.stat"))
	return s, err
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
