package cgroup

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// unifiedSettings words limits for v2 (Documentation/admin-guide/cgroup-v2.rst).
// The runtime-spec's numbers are those of v1 and are converted. Swappiness, the
// switch of the OOM killer and kernel memory have no counterpart and are ignored,
// as every runtime does; what gives rights and has none is an error.
func unifiedSettings(r *specs.LinuxResources, has has) ([]setting, error) {
	if err := check(r); err != nil {
		return nil, err
	}
	if c := r.CPU; c != nil && (given(c.RealtimePeriod) || given(c.RealtimeRuntime)) {
		return nil, fmt.Errorf("realtime limits are not supported on cgroup v2: %w", errdefs.ErrNotImplemented)
	}
	if n := r.Network; n != nil && (given(n.ClassID) || len(n.Priorities) > 0) {
		return nil, fmt.Errorf("network classes and priorities are not supported on cgroup v2: %w", errdefs.ErrNotImplemented)
	}
	var list []setting
	add := func(controller, file, value string) {
		list = append(list, setting{controller: controller, file: file, value: value})
	}
	if c := r.CPU; c != nil {
		list = append(list, unifiedCPU(c)...)
	}
	if m := r.Memory; m != nil {
		memory, err := unifiedMemory(m)
		if err != nil {
			return nil, err
		}
		list = append(list, memory...)
	}
	if p := r.Pids; p != nil && p.Limit != nil {
		add("pids", "pids.max", decimal(*p.Limit, "max"))
	}
	if b := r.BlockIO; b != nil {
		list = append(list, unifiedBlockIO(b, has)...)
	}
	for _, h := range r.HugepageLimits {
		add("hugetlb", "hugetlb."+h.Pagesize+".max", decimal(h.Limit, ""))
		list = append(list, setting{controller: "hugetlb", file: "hugetlb." + h.Pagesize + ".rsvd.max", value: decimal(h.Limit, ""), optional: true})
	}
	list = append(list, rdma(r)...)
	names := make([]string, 0, len(r.Unified))
	for name := range r.Unified {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		controller, _, ok := strings.Cut(name, ".")
		if !ok || controller == "" || strings.ContainsRune(name, '/') {
			return nil, invalid("unified resource %q must be a file name of cgroup v2", name)
		}
		if !has(controller, name) {
			return nil, invalid("unified resource %q can't be set: the kernel has no such file here", name)
		}
		// memory.max and its like take one line; io.max and its like one for each key.
		add(controller, name, r.Unified[name])
	}
	return list, nil
}

func unifiedCPU(c *specs.LinuxCPU) []setting {
	var list []setting
	add := func(controller, file, value string) {
		list = append(list, setting{controller: controller, file: file, value: value})
	}
	if c.Idle != nil {
		add("cpu", "cpu.idle", decimal(*c.Idle, ""))
	}
	// An idle group has no weight.
	if given(c.Shares) && (c.Idle == nil || *c.Idle == 0) {
		add("cpu", "cpu.weight", strconv.FormatUint(Weight(*c.Shares), 10))
	}
	switch {
	case given(c.Quota) && given(c.Period):
		add("cpu", "cpu.max", decimal(*c.Quota, "max")+" "+decimal(*c.Period, ""))
	case given(c.Quota): // the period stays
		add("cpu", "cpu.max", decimal(*c.Quota, "max"))
	case given(c.Period):
		period := decimal(*c.Period, "")
		list = append(list, setting{controller: "cpu", file: "cpu.max", value: "max " + period, merge: func(present string) string {
			quota, _, _ := strings.Cut(present, " ")
			return quota + " " + period
		}})
	}
	if c.Burst != nil {
		add("cpu", "cpu.max.burst", decimal(*c.Burst, ""))
	}
	if c.Cpus != "" {
		add("cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		add("cpuset", "cpuset.mems", c.Mems)
	}
	return list
}

func unifiedMemory(m *specs.LinuxMemory) ([]setting, error) {
	var list []setting
	swap, set, err := swapMax(m)
	if err != nil {
		return nil, err
	}
	if given(m.Limit) {
		list = append(list, setting{controller: "memory", file: "memory.max", value: decimal(*m.Limit, "max")})
	}
	if set {
		// A kernel may count no swap.
		list = append(list, setting{controller: "memory", file: "memory.swap.max", value: decimal(swap, "max"), optional: true})
	}
	if given(m.Reservation) {
		list = append(list, setting{controller: "memory", file: "memory.low", value: decimal(*m.Reservation, "max")})
	}
	return list, nil
}

// swapMax is the swap beside memory for v1's sum of both; -1 is unlimited.
func swapMax(m *specs.LinuxMemory) (limit int64, set bool, err error) {
	switch {
	case m.Limit != nil && *m.Limit < 0 && !given(m.Swap):
		return -1, true, nil // as on v1, where the sum cannot be less
	case !given(m.Swap):
		return 0, false, nil
	case *m.Swap < 0:
		return -1, true, nil
	case !given(m.Limit) || *m.Limit < 0:
		return 0, false, invalid("unable to set swap limit without memory limit")
	}
	return *m.Swap - *m.Limit, true, nil
}

func unifiedBlockIO(b *specs.LinuxBlockIO, has has) []setting {
	var list []setting
	file, word := "io.weight", ioWeight
	if has("io", "io.bfq.weight") {
		file, word = "io.bfq.weight", func(w uint16) uint64 { return uint64(w) }
	}
	if given(b.Weight) {
		list = append(list, setting{controller: "io", file: file, value: "default " + strconv.FormatUint(word(*b.Weight), 10), before: line("default", "100")})
	}
	for _, d := range b.WeightDevice {
		if given(d.Weight) {
			key := device(d.Major, d.Minor)
			list = append(list, setting{controller: "io", file: file, value: key + " " + strconv.FormatUint(word(*d.Weight), 10), before: line(key, "default")})
		}
	}
	for _, t := range []struct {
		key   string
		rates []specs.LinuxThrottleDevice
	}{
		{"rbps", b.ThrottleReadBpsDevice}, {"wbps", b.ThrottleWriteBpsDevice}, {"riops", b.ThrottleReadIOPSDevice}, {"wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.rates {
			rate := "max" // v1's 0
			if d.Rate > 0 {
				rate = strconv.FormatUint(d.Rate, 10)
			}
			key := device(d.Major, d.Minor)
			list = append(list, setting{controller: "io", file: "io.max", value: key + " " + t.key + "=" + rate, before: line(key, "rbps=max wbps=max riops=max wiops=max")})
		}
	}
	return list
}

// Weight converts v1's cpu.shares (2 to 262144, 1024 by default) to v2's
// cpu.weight (1 to 10000, 100 by default): the curve through these three points
// that runc has taken since 1.3.2. 0 stays 0.
func Weight(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// ioWeight spreads v1's 10 to 1000 over v2's 1 to 10000.
func ioWeight(weight uint16) uint64 { return 1 + (uint64(weight)-10)*9999/990 }
