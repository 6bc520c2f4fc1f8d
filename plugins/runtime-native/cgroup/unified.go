package cgroup

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/runtime"
)

// unified is a group on cgroup v2.
type unified struct {
	path  string
	group *cgroup2.Manager
}

func newUnified(path string) (*unified, error) {
	group, err := cgroup2.Load(path)
	return &unified{path, group}, err
}

func (u *unified) version() int   { return 2 }
func (u *unified) dir() string    { return filepath.Join(mountpoint, u.path) }
func (u *unified) procs() string  { return u.dir() }
func (u *unified) memory() string { return filepath.Join(u.dir(), "memory.events") }

func (u *unified) dirs() []string {
	if unix.Access(u.dir(), unix.F_OK) != nil {
		return nil
	}
	return []string{u.dir()}
}

// controllers are those a container is limited and measured by.
var controllers = []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids"}

func (u *unified) create(r *specs.LinuxResources) error {
	if err := os.MkdirAll(u.dir(), 0o755); err != nil {
		return err
	}
	available, err := u.group.RootControllers()
	if err != nil {
		return err
	}
	wanted := slices.DeleteFunc(slices.Clone(controllers), func(c string) bool { return !slices.Contains(available, c) })
	if err := u.group.ToggleControllers(wanted, cgroup2.Enable); err != nil {
		return err
	}
	if err := u.set(r, r.Devices); err != nil {
		_ = removeTree(u.dir())
		return err
	}
	return nil
}

func (u *unified) update(r *specs.LinuxResources) error {
	// A second device program would be attached beside the first.
	return u.set(r, nil)
}

func (u *unified) set(r *specs.LinuxResources, devices []specs.LinuxDeviceCgroup) error {
	limits := cgroup2.ToResources(normal(r))
	limits.Devices = nil // see limitDevices
	if r.Memory != nil && r.Memory.Swap != nil && *r.Memory.Swap < 0 && limits.Memory != nil {
		limits.Memory.Swap = maximum(r.Memory.Swap)
	}
	if _, err := os.Stat(filepath.Join(u.dir(), "memory.swap.max")); err != nil && limits.Memory != nil {
		limits.Memory.Swap = nil // a kernel that counts no swap
	}
	if err := u.group.Update(limits); err != nil {
		return err
	}
	if err := limitDevices(u.dir(), devices); err != nil {
		return err
	}
	for name, value := range r.Unified {
		if strings.ContainsRune(name, '/') {
			return &os.PathError{Op: "write", Path: name, Err: errdefs.ErrInvalidArgument}
		}
		if err := os.WriteFile(filepath.Join(u.dir(), name), []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// normal words v1's limits such that their conversion to v2 is exact: swap beside
// memory instead of the sum of both, "max" for -1, and a period for each quota.
func normal(r *specs.LinuxResources) *specs.LinuxResources {
	n := *r
	if r.Memory != nil {
		memory := *r.Memory
		memory.Limit, memory.Reservation = maximum(memory.Limit), maximum(memory.Reservation)
		if memory.Swap != nil && *memory.Swap < 0 {
			memory.Swap = nil // set below, where no memory is taken from it
		}
		n.Memory = &memory
	}
	if r.CPU != nil && r.CPU.Quota != nil && r.CPU.Period == nil {
		cpu, period := *r.CPU, uint64(100_000)
		cpu.Period = &period
		n.CPU = &cpu
	}
	return &n
}

func maximum(limit *int64) *int64 {
	if limit != nil && *limit < 0 {
		most := int64(math.MaxInt64)
		return &most
	}
	return limit
}

func (u *unified) freeze(frozen bool) error {
	state := "0"
	if frozen {
		state = "1"
	}
	return os.WriteFile(filepath.Join(u.dir(), "cgroup.freeze"), []byte(state), 0o644)
}

func (u *unified) frozen() (bool, error) {
	body, err := os.ReadFile(filepath.Join(u.dir(), "cgroup.events"))
	return bytes.Contains(body, []byte("frozen 1")), err
}

func (u *unified) kill() error {
	return skipGone(os.WriteFile(filepath.Join(u.dir(), "cgroup.kill"), []byte("1"), 0o644))
}

func (u *unified) stats() (runtime.Stats, error) {
	var s runtime.Stats
	m, err := u.group.StatFiltered(cgroup2.StatPids | cgroup2.StatCPU | cgroup2.StatMemory | cgroup2.StatIO)
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
	s.Memory.Detail, err = keyed(filepath.Join(u.dir(), "memory.stat"))
	return s, err
}

func nanoseconds(us uint64) uint64 { return us * uint64(time.Microsecond) }
