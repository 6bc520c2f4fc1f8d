package cgroup

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// written is settings as "file=value" lines.
func written(list []setting) []string {
	lines := []string{}
	for _, s := range list {
		lines = append(lines, s.file+"="+s.value)
	}
	return lines
}

func throttle(major, minor int64, rate uint64) []specs.LinuxThrottleDevice {
	d := specs.LinuxThrottleDevice{Rate: rate}
	d.Major, d.Minor = major, minor
	return []specs.LinuxThrottleDevice{d}
}

func weightDevice(weight, leaf *uint16) []specs.LinuxWeightDevice {
	d := specs.LinuxWeightDevice{Weight: weight, LeafWeight: leaf}
	d.Major, d.Minor = 8, 0
	return []specs.LinuxWeightDevice{d}
}

// TestWordsOfLimits has one resource after the other in the words of v1 and v2.
func TestWordsOfLimits(t *testing.T) {
	cpu := func(c specs.LinuxCPU) specs.LinuxResources { return specs.LinuxResources{CPU: &c} }
	memory := func(m specs.LinuxMemory) specs.LinuxResources { return specs.LinuxResources{Memory: &m} }
	block := func(b specs.LinuxBlockIO) specs.LinuxResources { return specs.LinuxResources{BlockIO: &b} }
	const none = "-" // an error
	for name, c := range map[string]struct {
		r       specs.LinuxResources
		v1, v2  string
		without bool // of BFQ
	}{
		"nothing":              {specs.LinuxResources{}, "", "", false},
		"empty":                {specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}, BlockIO: &specs.LinuxBlockIO{}, Pids: &specs.LinuxPids{}, Network: &specs.LinuxNetwork{}}, "", "", false},
		"zeroes":               {specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(0)), Quota: ptr(int64(0)), Period: ptr(uint64(0))}, Memory: &specs.LinuxMemory{Limit: ptr(int64(0)), Swap: ptr(int64(0))}}, "", "", false},
		"shares":               {cpu(specs.LinuxCPU{Shares: ptr(uint64(1024))}), "cpu.shares=1024", "cpu.weight=100", false},
		"shares too few":       {cpu(specs.LinuxCPU{Shares: ptr(uint64(1))}), none, none, false},
		"shares too many":      {cpu(specs.LinuxCPU{Shares: ptr(uint64(262145))}), none, none, false},
		"quota and period":     {cpu(specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(200000))}), "cpu.cfs_period_us=200000 cpu.cfs_quota_us=50000", "cpu.max=50000 200000", false},
		"quota":                {cpu(specs.LinuxCPU{Quota: ptr(int64(50000))}), "cpu.cfs_quota_us=50000", "cpu.max=50000", false},
		"no quota":             {cpu(specs.LinuxCPU{Quota: ptr(int64(-1))}), "cpu.cfs_quota_us=-1", "cpu.max=max", false},
		"period":               {cpu(specs.LinuxCPU{Period: ptr(uint64(50000))}), "cpu.cfs_period_us=50000", "cpu.max=max 50000", false},
		"burst":                {cpu(specs.LinuxCPU{Burst: ptr(uint64(0))}), "cpu.cfs_burst_us=0", "cpu.max.burst=0", false},
		"realtime":             {cpu(specs.LinuxCPU{RealtimePeriod: ptr(uint64(1000000)), RealtimeRuntime: ptr(int64(950000))}), "cpu.rt_period_us=1000000 cpu.rt_runtime_us=950000", none, false},
		"idle":                 {cpu(specs.LinuxCPU{Idle: ptr(int64(1)), Shares: ptr(uint64(512))}), "cpu.idle=1", "cpu.idle=1", false},
		"not idle":             {cpu(specs.LinuxCPU{Idle: ptr(int64(0)), Shares: ptr(uint64(2))}), "cpu.shares=2 cpu.idle=0", "cpu.idle=0 cpu.weight=1", false},
		"idle by half":         {cpu(specs.LinuxCPU{Idle: ptr(int64(2))}), none, none, false},
		"cpus and mems":        {cpu(specs.LinuxCPU{Cpus: "0-1,3", Mems: "0"}), "cpuset.cpus=0-1,3 cpuset.mems=0", "cpuset.cpus=0-1,3 cpuset.mems=0", false},
		"memory":               {memory(specs.LinuxMemory{Limit: ptr(int64(1000))}), "memory.limit_in_bytes=1000", "memory.max=1000", false},
		"memory and swap":      {memory(specs.LinuxMemory{Limit: ptr(int64(1000)), Swap: ptr(int64(3000))}), "memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=3000", "memory.max=1000 memory.swap.max=2000", false},
		"no swap":              {memory(specs.LinuxMemory{Limit: ptr(int64(1000)), Swap: ptr(int64(1000))}), "memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=1000", "memory.max=1000 memory.swap.max=0", false},
		"all swap":             {memory(specs.LinuxMemory{Limit: ptr(int64(1000)), Swap: ptr(int64(-1))}), "memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=-1", "memory.max=1000 memory.swap.max=max", false},
		"unlimited":            {memory(specs.LinuxMemory{Limit: ptr(int64(-1))}), "memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1", "memory.max=max memory.swap.max=max", false},
		"swap alone":           {memory(specs.LinuxMemory{Swap: ptr(int64(1000))}), "memory.memsw.limit_in_bytes=1000", none, false},
		"less swap than limit": {memory(specs.LinuxMemory{Limit: ptr(int64(1000)), Swap: ptr(int64(999))}), none, none, false},
		"reservation":          {memory(specs.LinuxMemory{Reservation: ptr(int64(500))}), "memory.soft_limit_in_bytes=500", "memory.low=500", false},
		"swappiness":           {memory(specs.LinuxMemory{Swappiness: ptr(uint64(0))}), "memory.swappiness=0", "", false},
		"too much swappiness":  {memory(specs.LinuxMemory{Swappiness: ptr(uint64(101))}), none, none, false},
		"kernel memory":        {memory(specs.LinuxMemory{Kernel: ptr(int64(1)), KernelTCP: ptr(int64(1))}), "", "", false}, //nolint:staticcheck // deprecated, and to be ignored
		"no OOM killer":        {memory(specs.LinuxMemory{DisableOOMKiller: ptr(true)}), "memory.oom_control=1", "", false},
		"pids":                 {specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(7))}}, "pids.max=7", "pids.max=7", false},
		"all pids":             {specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, "pids.max=max", "pids.max=max", false},
		"weight of BFQ":        {block(specs.LinuxBlockIO{Weight: ptr(uint16(300))}), "blkio.bfq.weight=300", "io.bfq.weight=default 300", false},
		"weight":               {block(specs.LinuxBlockIO{Weight: ptr(uint16(10))}), "blkio.weight=10", "io.weight=default 1", true},
		"greatest weight":      {block(specs.LinuxBlockIO{Weight: ptr(uint16(1000))}), "blkio.weight=1000", "io.weight=default 10000", true},
		"weight too great":     {block(specs.LinuxBlockIO{Weight: ptr(uint16(1001))}), none, none, false},
		"leaf weight":          {block(specs.LinuxBlockIO{LeafWeight: ptr(uint16(20))}), "blkio.leaf_weight=20", "", false},
		"weight of a device":   {block(specs.LinuxBlockIO{WeightDevice: weightDevice(ptr(uint16(500)), ptr(uint16(30)))}), "blkio.weight_device=8:0 500 blkio.leaf_weight_device=8:0 30", "io.weight=8:0 4950", true},
		"BFQ's of a device":    {block(specs.LinuxBlockIO{WeightDevice: weightDevice(ptr(uint16(500)), nil)}), "blkio.bfq.weight_device=8:0 500", "io.bfq.weight=8:0 500", false},
		"read bytes":           {block(specs.LinuxBlockIO{ThrottleReadBpsDevice: throttle(8, 0, 1024)}), "blkio.throttle.read_bps_device=8:0 1024", "io.max=8:0 rbps=1024", false},
		"written bytes":        {block(specs.LinuxBlockIO{ThrottleWriteBpsDevice: throttle(8, 16, 0)}), "blkio.throttle.write_bps_device=8:16 0", "io.max=8:16 wbps=max", false},
		"operations":           {block(specs.LinuxBlockIO{ThrottleReadIOPSDevice: throttle(8, 0, 5), ThrottleWriteIOPSDevice: throttle(8, 0, 6)}), "blkio.throttle.read_iops_device=8:0 5 blkio.throttle.write_iops_device=8:0 6", "io.max=8:0 riops=5 io.max=8:0 wiops=6", false},
		"huge pages":           {specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 1 << 22}}}, "hugetlb.2MB.limit_in_bytes=4194304 hugetlb.2MB.rsvd.limit_in_bytes=4194304", "hugetlb.2MB.max=4194304 hugetlb.2MB.rsvd.max=4194304", false},
		"a path as page size":  {specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../x"}}}, none, none, false},
		"network class":        {specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(0x100001))}}, "net_cls.classid=1048577", none, false},
		"network priorities":   {specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 3}}}}, "net_prio.ifpriomap=eth0 3", none, false},
		"rdma":                 {specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx1": {HcaObjects: ptr(uint32(2))}, "mlx0": {HcaHandles: ptr(uint32(3)), HcaObjects: ptr(uint32(4))}}}, "rdma.max=mlx0 hca_handle=3 hca_object=4 rdma.max=mlx1 hca_object=2", "rdma.max=mlx0 hca_handle=3 hca_object=4 rdma.max=mlx1 hca_object=2", false},
		"unified":              {specs.LinuxResources{Unified: map[string]string{"memory.high": "max", "cpu.weight.nice": "3"}}, none, "cpu.weight.nice=3 memory.high=max", false},
		"unified path":         {specs.LinuxResources{Unified: map[string]string{"../memory.high": "1"}}, none, none, false},
		"unified unknown":      {specs.LinuxResources{Unified: map[string]string{"memory.unknown": "1"}}, none, none, false},
		"unified without dot":  {specs.LinuxResources{Unified: map[string]string{"memory": "1"}}, none, none, false},
	} {
		offers := func(_, file string) bool {
			return !strings.Contains(file, "unknown") && (!c.without || !strings.Contains(file, "bfq"))
		}
		for _, version := range []struct {
			word func(*specs.LinuxResources, has) ([]setting, error)
			want string
		}{{legacySettings, c.v1}, {unifiedSettings, c.v2}} {
			list, err := version.word(&c.r, offers)
			if version.want == none {
				if !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) {
					t.Errorf("%s: %v, want an error", name, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got := strings.Join(written(list), " "); got != version.want {
				t.Errorf("%s: %s\nwant %s", name, got, version.want)
			}
		}
	}
}

func TestWeightMeetsTheKernelsDefaults(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 0, 1: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("%d shares: %d, want %d", shares, got, want)
		}
	}
	last := uint64(0)
	for shares := uint64(2); shares <= 262144; shares += 7 {
		if w := Weight(shares); w < last || w < 1 || w > 10000 {
			t.Fatalf("%d shares: weight %d after %d", shares, w, last)
		} else {
			last = w
		}
	}
}

func TestUsageIsCheckedBeforeALimit(t *testing.T) {
	used := func() (uint64, uint64, error) { return 1000, 1500, nil }
	for _, c := range []struct {
		m  specs.LinuxMemory
		ok bool
	}{
		{specs.LinuxMemory{Limit: ptr(int64(500))}, true}, // not asked to check
		{specs.LinuxMemory{Limit: ptr(int64(1000)), CheckBeforeUpdate: ptr(true)}, false},
		{specs.LinuxMemory{Limit: ptr(int64(1001)), CheckBeforeUpdate: ptr(true)}, true},
		{specs.LinuxMemory{Limit: ptr(int64(1001)), Swap: ptr(int64(1500)), CheckBeforeUpdate: ptr(true)}, false},
		{specs.LinuxMemory{Limit: ptr(int64(-1)), Swap: ptr(int64(-1)), CheckBeforeUpdate: ptr(true)}, true},
	} {
		if err := checkUsage(&c.m, used); (err == nil) != c.ok || err != nil && !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%+v: %v", c.m, err)
		}
	}
}

func TestDeviceListsOfV1(t *testing.T) {
	rule := func(allow bool, text string) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: allow}
		var major, minor int64
		if n, _ := fmt.Sscanf(text, "%s %d:%d %s", &r.Type, &major, &minor, &r.Access); n == 4 {
			r.Major, r.Minor = &major, &minor
		} else if _, err := fmt.Sscanf(text, "%s *:* %s", &r.Type, &r.Access); err != nil {
			t.Fatal(text, err)
		}
		return r
	}
	for name, c := range map[string]struct {
		rules []specs.LinuxDeviceCgroup
		allow bool
		want  []string // nil: an error
	}{
		"deny all":          {[]specs.LinuxDeviceCgroup{rule(false, "a *:* rwm")}, false, []string{}},
		"nothing is denied": {[]specs.LinuxDeviceCgroup{rule(false, "a *:* rwm"), rule(true, "a *:* rwm")}, true, []string{}},
		"some":              {[]specs.LinuxDeviceCgroup{rule(false, "a *:* rwm"), rule(true, "c 1:3 r"), rule(true, "c 1:3 wm"), rule(true, "b *:* m")}, false, []string{"c 1:3 rwm", "b *:* m"}},
		"taken back":        {[]specs.LinuxDeviceCgroup{rule(true, "c 1:3 rwm"), rule(true, "c 1:5 rwm"), rule(false, "c 1:3 wm"), rule(false, "c 1:5 rwm")}, false, []string{"c 1:3 r"}},
		"all but one":       {[]specs.LinuxDeviceCgroup{rule(true, "a *:* rwm"), rule(false, "b 8:0 w")}, true, []string{"b 8:0 w"}},
		"all may be read":   {[]specs.LinuxDeviceCgroup{rule(true, "a *:* r")}, false, []string{"c *:* r", "b *:* r"}},
		"too fine for v1":   {[]specs.LinuxDeviceCgroup{rule(true, "c *:* rwm"), rule(false, "c 1:3 w")}, false, nil},
		"bad type":          {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "x"}}, false, nil},
		"bad access":        {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Access: "rx"}}, false, nil},
	} {
		rules, err := deviceRules(c.rules)
		var list deviceList
		if err == nil {
			list, err = legacyDevices(rules)
		}
		if c.want == nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := []string{}
		for _, e := range list.exceptions {
			got = append(got, e.String())
		}
		if list.allow != c.allow || !cmp.Equal(got, c.want) {
			t.Errorf("%s: %v %q", name, list.allow, got)
		}
	}
}

func TestMountinfo(t *testing.T) {
	const text = `30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:4 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw shared:6 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:7 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 /docker/abc /mnt/with\040space\134 rw - cgroup cgroup rw,memory
35 30 0:30 / /second rw - cgroup cgroup rw,memory
`
	list, err := parseMountinfo(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []mounted{{[]string{"name=systemd"}, "/sys/fs/cgroup/systemd"}, {[]string{"cpu", "cpuacct"}, "/sys/fs/cgroup/cpu,cpuacct"}, {[]string{"memory"}, `/mnt/with space\`}}
	if fmt.Sprint(list) != fmt.Sprint(want) {
		t.Errorf("%v\nwant %v", list, want)
	}
	if _, err := parseMountinfo(strings.NewReader("nonsense\n")); err == nil {
		t.Error("nonsense is accepted")
	}
}
