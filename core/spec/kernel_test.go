package spec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

var able = Kernel{SwapLimit: true, Swappiness: true, OOMKillDisable: true, RealTime: true, IOWeight: true, CPUs: "0-3,6", Memories: "0"}

func TestWhatTheKernelHoldsIsLeftAlone(t *testing.T) {
	yes := true
	in := container.Resources{
		Memory: 64 * mib, MemorySwap: 128 * mib, MemorySwappiness: new(int64(10)), OomKillDisable: &yes, BlkioWeight: 100,
		BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: "/dev/null", Weight: 50}}, CPURealtimePeriod: 1000, CPURealtimeRuntime: 1000,
		CpusetCpus: "0,1-3,6", CpusetMems: "0",
	}
	out, warnings, err := able.Fit(in)
	if diff := cmp.Diff(in, out); diff != "" || len(warnings) > 0 || err != nil {
		t.Errorf("warnings %q, error %v, changes (-in +out):\n%s", warnings, err, diff)
	}
}

func TestWhatTheKernelCannotHoldIsDroppedWithAWarning(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		in, want container.Resources
		warning  string // empty: none
	}{
		"swap":               {container.Resources{Memory: 8 * mib, MemorySwap: 9 * mib}, container.Resources{Memory: 8 * mib, MemorySwap: -1}, "Memory limited without swap."},
		"unlimited swap":     {container.Resources{Memory: 8 * mib, MemorySwap: -1}, container.Resources{Memory: 8 * mib, MemorySwap: -1}, ""},
		"swappiness":         {container.Resources{MemorySwappiness: new(int64(0))}, container.Resources{}, "Memory swappiness discarded."},
		"usual swappiness":   {container.Resources{MemorySwappiness: new(int64(-1))}, container.Resources{}, ""},
		"no OOM killer":      {container.Resources{OomKillDisable: &yes}, container.Resources{}, "OomKillDisable discarded."},
		"the OOM killer":     {container.Resources{OomKillDisable: &no}, container.Resources{}, ""},
		"weight":             {container.Resources{BlkioWeight: 100}, container.Resources{}, "Weight discarded."},
		"weight of a device": {container.Resources{BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: "/dev/null", Weight: 50}}}, container.Resources{}, "Weight-device discarded."},
		"percent":            {container.Resources{CPUPercent: 10}, container.Resources{}, "Percent discarded."},
	} {
		t.Run(name, func(t *testing.T) {
			out, warnings, err := Kernel{}.Fit(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, out); diff != "" {
				t.Errorf("limits (-want +got):\n%s", diff)
			}
			if (c.warning != "") != (len(warnings) == 1) || !strings.HasSuffix(strings.Join(warnings, "\n"), c.warning) {
				t.Errorf("warnings %q, want %q", warnings, c.warning)
			}
		})
	}
	if _, warnings, _ := able.Fit(container.Resources{OomKillDisable: &yes}); len(warnings) != 1 || !strings.HasPrefix(warnings[0], "OOM killer is disabled") {
		t.Errorf("warnings %q", warnings)
	}
}

func TestWhatIsNotThereIsRefused(t *testing.T) {
	for _, c := range []struct {
		kernel Kernel
		in     container.Resources
		text   string
	}{
		{Kernel{}, container.Resources{CPURealtimePeriod: 1000}, "kernel does not support CPU real-time scheduler"},
		{Kernel{}, container.Resources{CPURealtimeRuntime: 1000}, "kernel does not support CPU real-time scheduler"},
		{able, container.Resources{CPURealtimePeriod: 1000, CPURealtimeRuntime: 1001}, "cpu real-time runtime cannot be higher than cpu real-time period"},
		{able, container.Resources{CpusetCpus: "4"}, "Requested CPUs are not available - requested 4, available: 0-3,6"},
		{able, container.Resources{CpusetCpus: "0-6"}, "Requested CPUs are not available - requested 0-6, available: 0-3,6"},
		{able, container.Resources{CpusetMems: "0,1"}, "Requested memory nodes are not available - requested 0,1, available: 0"},
		{able, container.Resources{CpusetCpus: "x"}, "Invalid value x for cpuset cpus: invalid format: x"},
		{able, container.Resources{CpusetCpus: "3-1"}, "Invalid value 3-1 for cpuset cpus: invalid format: 3-1"},
		{able, container.Resources{CpusetMems: "0,"}, "Invalid value 0, for cpuset mems: invalid format: "},
		{able, container.Resources{IOMaximumIOps: 1}, "invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps"},
	} {
		_, _, err := c.kernel.Fit(c.in)
		refused(t, err, c.text)
	}
}

func FuzzCPUSet(f *testing.F) {
	for _, seed := range []string{"", "0", "0-3,5", "1,0,1-2", "3-1", "0-8191", "-", ",", "0-65535"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		spans, err := parseSet(list)
		for i, s := range spans {
			if err != nil || s.last < s.first || i > 0 && s.first <= spans[i-1].last+1 {
				t.Errorf("%q is read as %v, %v", list, spans, err)
			}
		}
	})
}
