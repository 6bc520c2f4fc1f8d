package cgroup

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// legacySettings words limits for v1 (Documentation/admin-guide/cgroup-v1).
// Kernel memory has no limits of its own in any kernel of today and is ignored,
// as the runtime-spec allows.
func legacySettings(r *specs.LinuxResources, has has) ([]setting, error) {
	if err := check(r); err != nil {
		return nil, err
	}
	if len(r.Unified) > 0 {
		return nil, invalid("invalid configuration: cannot use unified on cgroup v1")
	}
	var list []setting
	add := func(controller, file, value string) {
		list = append(list, setting{controller: controller, file: file, value: value})
	}
	if c := r.CPU; c != nil {
		if given(c.Shares) && (c.Idle == nil || *c.Idle == 0) {
			add("cpu", "cpu.shares", decimal(*c.Shares, ""))
		}
		if given(c.RealtimePeriod) {
			add("cpu", "cpu.rt_period_us", decimal(*c.RealtimePeriod, ""))
		}
		if given(c.RealtimeRuntime) {
			add("cpu", "cpu.rt_runtime_us", decimal(*c.RealtimeRuntime, "-1"))
		}
		if given(c.Period) {
			add("cpu", "cpu.cfs_period_us", decimal(*c.Period, ""))
		}
		if given(c.Quota) {
			add("cpu", "cpu.cfs_quota_us", decimal(*c.Quota, "-1"))
		}
		if c.Burst != nil {
			add("cpu", "cpu.cfs_burst_us", decimal(*c.Burst, ""))
		}
		if c.Idle != nil {
			add("cpu", "cpu.idle", decimal(*c.Idle, ""))
		}
		if c.Cpus != "" {
			add("cpuset", "cpuset.cpus", c.Cpus)
		}
		if c.Mems != "" {
			add("cpuset", "cpuset.mems", c.Mems)
		}
	}
	if m := r.Memory; m != nil {
		list = append(list, legacyMemory(m)...)
	}
	if p := r.Pids; p != nil && p.Limit != nil {
		add("pids", "pids.max", decimal(*p.Limit, "max"))
	}
	if b := r.BlockIO; b != nil {
		list = append(list, legacyBlockIO(b, has)...)
	}
	for _, h := range r.HugepageLimits {
		add("hugetlb", "hugetlb."+h.Pagesize+".limit_in_bytes", decimal(h.Limit, ""))
		list = append(list, setting{controller: "hugetlb", file: "hugetlb." + h.Pagesize + ".rsvd.limit_in_bytes", value: decimal(h.Limit, ""), optional: true})
	}
	if n := r.Network; n != nil {
		if given(n.ClassID) {
			add("net_cls", "net_cls.classid", decimal(*n.ClassID, ""))
		}
		for _, p := range n.Priorities {
			list = append(list, setting{controller: "net_prio", file: "net_prio.ifpriomap", value: p.Name + " " + decimal(p.Priority, ""), before: line(p.Name, "0")})
		}
	}
	return append(list, rdma(r)...), nil
}

func legacyMemory(m *specs.LinuxMemory) []setting {
	var list []setting
	add := func(file, value string) {
		list = append(list, setting{controller: "memory", file: file, value: value})
	}
	swap := m.Swap
	if m.Limit != nil && *m.Limit < 0 && !given(swap) {
		swap = m.Limit // unlimited memory below a limit of memory and swap is none
	}
	if given(m.Limit) {
		add("memory.limit_in_bytes", decimal(*m.Limit, "-1"))
	}
	if given(swap) {
		// A kernel may count no swap.
		list = append(list, setting{controller: "memory", file: "memory.memsw.limit_in_bytes", value: decimal(*swap, "-1"), optional: true})
	}
	if given(m.Reservation) {
		add("memory.soft_limit_in_bytes", decimal(*m.Reservation, "-1"))
	}
	if m.DisableOOMKiller != nil {
		value := "0"
		if *m.DisableOOMKiller {
			value = "1"
		}
		// To set what is so anyway is refused by kernels that have no switch.
		list = append(list, setting{controller: "memory", file: "memory.oom_control", value: value, optional: value == "0", before: func(present string) string {
			return strings.TrimPrefix(line("oom_kill_disable", "0")(present), "oom_kill_disable ")
		}})
	}
	if m.Swappiness != nil {
		add("memory.swappiness", decimal(*m.Swappiness, ""))
	}
	return list
}

// legacyBlockIO words weights for the scheduler that has them, and throttling.
// A rate of 0 is none.
func legacyBlockIO(b *specs.LinuxBlockIO, has has) []setting {
	var list []setting
	prefix := "blkio."
	if has("blkio", "blkio.bfq.weight") {
		prefix = "blkio.bfq."
	}
	if given(b.Weight) {
		list = append(list, setting{controller: "blkio", file: prefix + "weight", value: decimal(*b.Weight, "")})
	}
	if given(b.LeafWeight) {
		list = append(list, setting{controller: "blkio", file: "blkio.leaf_weight", value: decimal(*b.LeafWeight, "")})
	}
	keyed := func(file, key, value string) {
		list = append(list, setting{controller: "blkio", file: file, value: key + " " + value, before: line(key, "0")})
	}
	for _, d := range b.WeightDevice {
		if given(d.Weight) {
			keyed(prefix+"weight_device", device(d.Major, d.Minor), decimal(*d.Weight, ""))
		}
		if given(d.LeafWeight) {
			keyed("blkio.leaf_weight_device", device(d.Major, d.Minor), decimal(*d.LeafWeight, ""))
		}
	}
	for _, t := range []struct {
		file  string
		rates []specs.LinuxThrottleDevice
	}{
		{"blkio.throttle.read_bps_device", b.ThrottleReadBpsDevice}, {"blkio.throttle.write_bps_device", b.ThrottleWriteBpsDevice},
		{"blkio.throttle.read_iops_device", b.ThrottleReadIOPSDevice}, {"blkio.throttle.write_iops_device", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.rates {
			keyed(t.file, device(d.Major, d.Minor), strconv.FormatUint(d.Rate, 10))
		}
	}
	return list
}
