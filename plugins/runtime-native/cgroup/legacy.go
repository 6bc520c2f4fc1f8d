package cgroup

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	v1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/runtime"
)

// legacy is a group on cgroup v1.
type legacy struct{ path string }

// placed is a hierarchy that knows its directories.
type placed interface {
	cgroup1.Subsystem
	Path(string) string
}

// hierarchy lists the mounted hierarchies; mounts do not change while an engine
// runs, and reading them takes longer than what is done with them.
var hierarchy = sync.OnceValues(func() ([]cgroup1.Subsystem, error) {
	list, err := cgroup1.Default()
	for i, s := range list {
		if s.Name() == cgroup1.Memory { // a kernel may count no swap
			list[i] = cgroup1.NewMemory(mountpoint, cgroup1.OptionalSwap())
		}
	}
	return list, err
})

func newLegacy(path string) (*legacy, error) {
	_, err := hierarchy()
	return &legacy{path}, err
}

func (l *legacy) version() int { return 1 }

// dir is the group's directory in one hierarchy.
func (l *legacy) dir(name cgroup1.Name) string {
	return filepath.Join(mountpoint, string(name), l.path)
}

func (l *legacy) dirs() []string {
	list, _ := hierarchy()
	var dirs []string
	for _, s := range list {
		p, ok := s.(placed)
		if !ok {
			continue
		}
		if dir := p.Path(l.path); unix.Access(dir, unix.F_OK) == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func (l *legacy) procs() string  { return l.dir(cgroup1.Freezer) }
func (l *legacy) memory() string { return filepath.Join(l.dir(cgroup1.Memory), "memory.oom_control") }

func (l *legacy) create(r *specs.LinuxResources) error {
	_, err := cgroup1.New(cgroup1.StaticPath(l.path), r, cgroup1.WithHierarchy(hierarchy))
	if err != nil {
		for _, dir := range l.dirs() {
			_ = removeTree(dir)
		}
	}
	return err
}

func (l *legacy) update(r *specs.LinuxResources) error {
	group, err := cgroup1.Load(cgroup1.StaticPath(l.path), cgroup1.WithHierarchy(hierarchy))
	if err != nil {
		return err
	}
	changed := *r
	changed.Devices = nil // they were written when the group was made
	return group.Update(&changed)
}

func (l *legacy) freeze(frozen bool) error {
	state := "THAWED"
	if frozen {
		state = "FROZEN"
	}
	return os.WriteFile(filepath.Join(l.dir(cgroup1.Freezer), "freezer.state"), []byte(state), 0o644)
}

func (l *legacy) frozen() (bool, error) {
	body, err := os.ReadFile(filepath.Join(l.dir(cgroup1.Freezer), "freezer.state"))
	// FREEZING is neither: asked to thaw it is not yet done, asked to freeze neither.
	return bytes.HasPrefix(body, []byte("FROZEN")), err
}

// kill goes over the processes until there are none that are not dead: v1 has no
// single kill, and processes fork.
func (l *legacy) kill() error {
	g := Group{l.path, l}
	seen := map[int]bool{}
	for range 100 {
		pids, err := g.Procs()
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return err
			}
			fresh = fresh || !seen[pid]
			seen[pid] = true
		}
		// A frozen process dies only when it runs again.
		if err := l.freeze(false); err != nil && skipGone(err) != nil {
			return err
		}
		if !fresh {
			return nil
		}
		time.Sleep(100 * time.Microsecond)
	}
	return nil
}

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
	s.Memory.Detail, err = keyed(filepath.Join(l.dir(cgroup1.Memory), "memory.stat"))
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
