package spec

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const mib = 1 << 20

func limits(t *testing.T, r container.Resources) *specs.LinuxResources {
	t.Helper()
	out, err := Resources(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMemoryLimits(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		in   container.Resources
		want *specs.LinuxMemory
	}{
		"none":                {container.Resources{}, nil},
		"as much swap":        {container.Resources{Memory: 64 * mib}, &specs.LinuxMemory{Limit: new(int64(64 * mib)), Swap: new(int64(128 * mib))}},
		"the least":           {container.Resources{Memory: 6 * mib}, &specs.LinuxMemory{Limit: new(int64(6 * mib)), Swap: new(int64(12 * mib))}},
		"some swap":           {container.Resources{Memory: 64 * mib, MemorySwap: 65 * mib}, &specs.LinuxMemory{Limit: new(int64(64 * mib)), Swap: new(int64(65 * mib))}},
		"no swap":             {container.Resources{Memory: 64 * mib, MemorySwap: 64 * mib}, &specs.LinuxMemory{Limit: new(int64(64 * mib)), Swap: new(int64(64 * mib))}},
		"any swap":            {container.Resources{Memory: 64 * mib, MemorySwap: -1}, &specs.LinuxMemory{Limit: new(int64(64 * mib)), Swap: new(int64(-1))}},
		"any swap, no limit":  {container.Resources{MemorySwap: -1}, &specs.LinuxMemory{Swap: new(int64(-1))}},
		"reservation":         {container.Resources{MemoryReservation: 8 * mib}, &specs.LinuxMemory{Reservation: new(int64(8 * mib))}},
		"reservation and all": {container.Resources{Memory: 8 * mib, MemoryReservation: 8 * mib}, &specs.LinuxMemory{Limit: new(int64(8 * mib)), Swap: new(int64(16 * mib)), Reservation: new(int64(8 * mib))}},
		"swappiness":          {container.Resources{MemorySwappiness: new(int64(0))}, &specs.LinuxMemory{Swappiness: new(uint64(0))}},
		"usual swappiness":    {container.Resources{MemorySwappiness: new(int64(-1))}, nil},
		"no OOM killer":       {container.Resources{OomKillDisable: &yes}, &specs.LinuxMemory{DisableOOMKiller: &yes}},
		"the OOM killer":      {container.Resources{OomKillDisable: &no}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, limits(t, c.in).Memory); diff != "" {
				t.Errorf("memory (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCPULimits(t *testing.T) {
	for name, c := range map[string]struct {
		in   container.Resources
		want *specs.LinuxCPU
	}{
		"none":        {container.Resources{}, nil},
		"one CPU":     {container.Resources{NanoCPUs: 1e9}, &specs.LinuxCPU{Period: new(uint64(100_000)), Quota: new(int64(100_000))}},
		"the least":   {container.Resources{NanoCPUs: 1e7}, &specs.LinuxCPU{Period: new(uint64(100_000)), Quota: new(int64(1000))}},
		"a part":      {container.Resources{CPUPeriod: 50_000, CPUQuota: 25_000}, &specs.LinuxCPU{Period: new(uint64(50_000)), Quota: new(int64(25_000))}},
		"no quota":    {container.Resources{CPUQuota: -1}, &specs.LinuxCPU{Quota: new(int64(-1))}},
		"shares":      {container.Resources{CPUShares: 512}, &specs.LinuxCPU{Shares: new(uint64(512))}},
		"least share": {container.Resources{CPUShares: 1}, &specs.LinuxCPU{Shares: new(uint64(2))}}, // the kernel refuses less
		"sets":        {container.Resources{CpusetCpus: "0-1", CpusetMems: "0"}, &specs.LinuxCPU{Cpus: "0-1", Mems: "0"}},
		"realtime":    {container.Resources{CPURealtimePeriod: 1000, CPURealtimeRuntime: 500}, &specs.LinuxCPU{RealtimePeriod: new(uint64(1000)), RealtimeRuntime: new(int64(500))}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, limits(t, c.in).CPU); diff != "" {
				t.Errorf("CPU (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLimitsOfTheNumberOfProcesses(t *testing.T) {
	for in, want := range map[int64]int64{1: 1, 100: 100, -1: -1, -7: -1} {
		got := limits(t, container.Resources{PidsLimit: &in}).Pids
		if got == nil || got.Limit == nil || *got.Limit != want {
			t.Errorf("%d processes are written as %+v", in, got)
		}
	}
	for _, none := range []*int64{nil, new(int64)} {
		if got := limits(t, container.Resources{PidsLimit: none}).Pids; got != nil {
			t.Errorf("no limit is written as %+v", got)
		}
	}
}

func TestLimitsOfBlockDevices(t *testing.T) {
	// Any node will do: only its numbers are read.
	number := specs.LinuxThrottleDevice{Rate: 1000}
	number.Major, number.Minor = 1, 3
	throttle := []*blkiodev.ThrottleDevice{{Path: "/dev/null", Rate: 1000}}
	weight := specs.LinuxWeightDevice{Weight: new(uint16(50))}
	weight.Major, weight.Minor = 1, 3
	for name, c := range map[string]struct {
		in   container.Resources
		want *specs.LinuxBlockIO
	}{
		"none":               {container.Resources{}, nil},
		"weight":             {container.Resources{BlkioWeight: 10}, &specs.LinuxBlockIO{Weight: new(uint16(10))}},
		"weight of a device": {container.Resources{BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: "/dev/null", Weight: 50}}}, &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{weight}}},
		"bytes read":         {container.Resources{BlkioDeviceReadBps: throttle}, &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{number}}},
		"bytes written":      {container.Resources{BlkioDeviceWriteBps: throttle}, &specs.LinuxBlockIO{ThrottleWriteBpsDevice: []specs.LinuxThrottleDevice{number}}},
		"reads":              {container.Resources{BlkioDeviceReadIOps: throttle}, &specs.LinuxBlockIO{ThrottleReadIOPSDevice: []specs.LinuxThrottleDevice{number}}},
		"writes":             {container.Resources{BlkioDeviceWriteIOps: throttle}, &specs.LinuxBlockIO{ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{number}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, limits(t, c.in).BlockIO); diff != "" {
				t.Errorf("block I/O (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWrongLimitsAreRefusedInDockersWords(t *testing.T) {
	cpus := runtime.NumCPU()
	bounds := fmt.Sprintf("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	const period = "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
	const conflict = "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set"
	nosuch := []*blkiodev.ThrottleDevice{{Path: "/dev/nosuch"}}
	for _, c := range []struct {
		in   container.Resources
		text string
	}{
		{container.Resources{Memory: 6*mib - 1}, "Minimum memory limit allowed is 6MB"},
		{container.Resources{Memory: -1}, "Minimum memory limit allowed is 6MB"},
		{container.Resources{Memory: 8 * mib, MemorySwap: 7 * mib}, "Minimum memoryswap limit should be larger than memory limit, see usage"},
		{container.Resources{MemorySwap: 8 * mib}, "You should always set the Memory limit when using Memoryswap limit, see usage"},
		{container.Resources{MemoryReservation: 1}, "Minimum memory reservation allowed is 6MB"},
		{container.Resources{Memory: 8 * mib, MemoryReservation: 9 * mib}, "Minimum memory limit can not be less than memory reservation limit, see usage"},
		{container.Resources{MemorySwappiness: new(int64(101))}, "Invalid value: 101, valid memory swappiness range is 0-100"},
		{container.Resources{MemorySwappiness: new(int64(-2))}, "Invalid value: -2, valid memory swappiness range is 0-100"},
		{container.Resources{NanoCPUs: 1e9, CPUPeriod: 1000}, conflict},
		{container.Resources{NanoCPUs: 1e9, CPUQuota: 1000}, conflict},
		{container.Resources{NanoCPUs: -1}, bounds},
		{container.Resources{NanoCPUs: 1e7 - 1}, bounds},
		{container.Resources{NanoCPUs: int64(cpus)*1e9 + 1}, bounds},
		{container.Resources{NanoCPUs: math.MaxInt64}, bounds},
		{container.Resources{CPUShares: -1}, "shares value -1 is less than 0"},
		{container.Resources{CPUPeriod: 999}, period},
		{container.Resources{CPUPeriod: 1_000_001}, period},
		{container.Resources{CPUPeriod: -1}, period},
		{container.Resources{CPUQuota: 999}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"},
		{container.Resources{BlkioWeight: 9}, "Range of blkio weight is from 10 to 1000"},
		{container.Resources{BlkioWeight: 1001}, "Range of blkio weight is from 10 to 1000"},
		{container.Resources{BlkioDeviceReadBps: nosuch}, "/dev/nosuch: no such file or directory"},
		{container.Resources{BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: "/dev/nosuch"}}}, "/dev/nosuch: no such file or directory"},
		{container.Resources{DeviceCgroupRules: []string{"x"}}, "invalid device cgroup rule format: 'x'"},
	} {
		out, err := Resources(c.in)
		refused(t, err, c.text)
		if err != nil && (err.Error() != c.text || out != nil) {
			t.Errorf("%q with %+v, want %q alone", err, out, c.text)
		}
		// A container is refused as its resources are.
		_, err = Build(input(func(in *Input) { in.HostConfig.Resources = c.in }))
		refused(t, err, c.text)
	}
}

// JSON can hold null where Docker's types hold a pointer.
func TestANullDeviceLimitIsRefused(t *testing.T) {
	for _, r := range []container.Resources{{BlkioWeightDevice: []*blkiodev.WeightDevice{nil}}, {BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{nil}}} {
		_, err := Resources(r)
		refused(t, err, "")
	}
}

func TestDevicesAreGivenWithTheirRule(t *testing.T) {
	s := build(t, func(in *Input) {
		in.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/mine", CgroupPermissions: "r"}, {PathOnHost: "/dev/zero"}}
	})
	var stat unix.Stat_t
	if err := unix.Stat("/dev/null", &stat); err != nil {
		t.Fatal(err)
	}
	mode := os.FileMode(stat.Mode & 0o777)
	if len(s.Linux.Devices) != 2 {
		t.Fatalf("devices %+v", s.Linux.Devices)
	}
	want := specs.LinuxDevice{Path: "/dev/mine", Type: "c", Major: 1, Minor: 3, FileMode: &mode, UID: &stat.Uid, GID: &stat.Gid}
	if diff := cmp.Diff(want, s.Linux.Devices[0]); diff != "" {
		t.Errorf("device (-want +got):\n%s", diff)
	}
	if d := s.Linux.Devices[1]; d.Path != "/dev/zero" || d.Minor != 5 {
		t.Errorf("device without a path inside %+v", d)
	}
	rules := s.Linux.Resources.Devices[len(defaultDeviceRules()):]
	wantRules := []specs.LinuxDeviceCgroup{
		{Allow: true, Type: "c", Major: new(int64(1)), Minor: new(int64(3)), Access: "r"}, {Allow: true, Type: "c", Major: new(int64(1)), Minor: new(int64(5)), Access: "rwm"},
	}
	if diff := cmp.Diff(wantRules, rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

func TestADirectoryOfDevicesIsGivenWhole(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("device nodes need root")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]uint32{"sub/c": unix.S_IFCHR, "b": unix.S_IFBLK} {
		if err := unix.Mknod(filepath.Join(dir, name), kind|0o600, int(unix.Mkdev(240, 7))); err != nil {
			t.Skipf("device nodes cannot be made: %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{dir, link} {
		s := build(t, func(in *Input) {
			in.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: from, PathInContainer: "/dev/box"}}
		})
		got := map[string]string{}
		for _, d := range s.Linux.Devices {
			got[d.Path] = fmt.Sprintf("%s %d:%d", d.Type, d.Major, d.Minor)
		}
		if diff := cmp.Diff(map[string]string{"/dev/box/sub/c": "c 240:7", "/dev/box/b": "b 240:7"}, got); diff != "" {
			t.Errorf("devices (-want +got):\n%s", diff)
		}
	}
}

func TestWhatIsNoDeviceIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, why := range map[string]string{"/dev/nosuch": "lstat /dev/nosuch: no such file or directory", file: "not a device node"} {
		_, err := Build(input(func(in *Input) { in.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: path}} }))
		refused(t, err, fmt.Sprintf("error gathering device information while adding custom device %q: %s", path, why))
	}
}
