package runtime

import "time"

// Stats is a container's resource usage at one time. Times are in nanoseconds,
// sizes in bytes, as the kernel's cgroup files give them.
type Stats struct {
	Read    time.Time
	CPU     CPUStats
	Memory  MemoryStats
	Pids    PidsStats
	BlkIO   []BlkIOEntry
	Version int // cgroup version, 1 or 2
}

// CPUStats is CPU time.
type CPUStats struct {
	Total            uint64 // ns
	User             uint64
	System           uint64 // time in the kernel
	PerCPU           []uint64
	Periods          uint64
	ThrottledPeriods uint64
	ThrottledTime    uint64
}

// MemoryStats is memory use.
type MemoryStats struct {
	Usage    uint64
	MaxUsage uint64 // cgroup v1, or memory.peak
	Limit    uint64 // the host's memory if unlimited
	Failures uint64
	Detail   map[string]uint64 // memory.stat
}

// PidsStats counts tasks.
type PidsStats struct {
	Current uint64
	Limit   uint64 // 0: unlimited
}

// BlkIOEntry counts IO of one device.
type BlkIOEntry struct {
	Major, Minor uint64
	Op           string // "read", "write", ...
	Bytes        uint64
	IOs          uint64
}
