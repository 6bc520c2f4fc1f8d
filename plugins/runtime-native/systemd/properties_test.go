package systemd

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/coreos/go-systemd/v22/dbus"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
)

// words writes properties as text, for comparison.
func words(list []dbus.Property) string {
	var all []string
	for _, p := range list {
		all = append(all, fmt.Sprintf("%s=%v", p.Name, p.Value.Value()))
	}
	return strings.Join(all, " ")
}

func TestProperties(t *testing.T) {
	unlimited := fmt.Sprint(uint64(math.MaxUint64))
	for text, want := range map[string]string{
		"memory.max=1048576 memory.swap.max=0 memory.low=4096": "MemoryLow=4096 MemoryMax=1048576 MemorySwapMax=0",
		"memory.max=max pids.max=max":                          "MemoryMax=" + unlimited + " TasksMax=" + unlimited,
		"memory.limit_in_bytes=-1 cpu.shares=512":              "CPUShares=512 MemoryLimit=" + unlimited,
		"memory.high=5 memory.min=3":                           "MemoryHigh=5 MemoryMin=3",
		"pids.max=5 pids.max=7":                                "TasksMax=7",
		"cpu.weight=39":                                        "CPUWeight=39",
		"cpu.weight=39 cpu.idle=1":                             "CPUWeight=0",
		"cpu.idle=0":                                           "",
		"cpu.max=50000_100000":                                 "CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=100000",
		"cpu.max=max_100000":                                   "CPUQuotaPerSecUSec=" + unlimited + " CPUQuotaPeriodUSec=100000",
		"cpu.max=50000":                                        "CPUQuotaPerSecUSec=500000",
		"cpu.max=1_100000":                                     "CPUQuotaPerSecUSec=10000 CPUQuotaPeriodUSec=100000", // a percent is the least
		"cpu.cfs_quota_us=33333 cpu.cfs_period_us=100000":      "CPUQuotaPerSecUSec=340000 CPUQuotaPeriodUSec=100000",
		"cpu.cfs_quota_us=-1":                                  "CPUQuotaPerSecUSec=" + unlimited,
		"cpu.cfs_period_us=20000":                              "CPUQuotaPeriodUSec=20000",
		"io.weight=default_200":                                "IOWeight=200",
		"io.weight=8:0_200":                                    "",
		"blkio.weight=500":                                     "BlockIOWeight=500",
		"hugetlb.2MB.max=5 rdma.max=x io.max=y":                "",
	} {
		var values []cgroup.Value
		for _, pair := range strings.Fields(text) {
			file, value, _ := strings.Cut(pair, "=")
			values = append(values, cgroup.Value{File: file, Text: strings.ReplaceAll(value, "_", " ")})
		}
		if got, err := properties(values); err != nil || words(got) != want {
			t.Errorf("%s: %s, %v; want %s", text, words(got), err, want)
		}
	}
	for _, text := range []string{"pids.max=x", "cpu.max=1 0", "cpu.max=x 5", "cpu.max=99999999999999999999 5", "memory.max="} {
		file, value, _ := strings.Cut(text, "=")
		if got, err := properties([]cgroup.Value{{File: file, Text: value}}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %s, %v; want an error", text, words(got), err)
		}
	}
}

// A spec's limits are those that systemd is told of, on either version of cgroups.
func TestLimitProperties(t *testing.T) {
	ptr := func(n int64) *int64 { return &n }
	shares, period := uint64(1024), uint64(100000)
	got, err := limitProperties(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(1 << 20), Swap: ptr(2 << 20)},
		CPU:    &specs.LinuxCPU{Shares: &shares, Quota: ptr(50000), Period: &period, Cpus: "0"},
		Pids:   &specs.LinuxPids{Limit: ptr(12)},
	})
	want := "CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=100000 CPUShares=1024 MemoryLimit=1048576 TasksMax=12"
	if cgroup.Version() == 2 {
		want = "AllowedCPUs=[1] CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=100000 CPUWeight=100 MemoryMax=1048576 MemorySwapMax=1048576 TasksMax=12"
	}
	if err != nil || words(got) != want {
		t.Errorf("%s, %v; want %s", words(got), err, want)
	}
}

func TestBits(t *testing.T) {
	for list, want := range map[string]string{
		"0": "[1]", "0-3": "[15]", "1,3": "[10]", "7-8": "[128 1]", "0-1, 16": "[3 0 1]", "": "[]", "0,0": "[1]",
	} {
		if got, err := bits(list); err != nil || fmt.Sprintf("%d", got) != want {
			t.Errorf("%q: %v, %v; want %s", list, got, err, want)
		}
	}
	for _, list := range []string{"x", "3-1", "-1", "1-", "99999", "0-4294967295"} {
		if got, err := bits(list); err == nil {
			t.Errorf("%q: %v, want an error", list, got)
		}
	}
}

func TestVersion(t *testing.T) {
	for text, want := range map[string]int{`"252.39-1~deb12u1"`: 252, `"v255"`: 255, "257": 257, `"x"`: 0, "": 0} {
		if got := version(text); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

func TestAnnotated(t *testing.T) {
	got, err := annotated(map[string]string{
		"org.systemd.property.TimeoutStopUSec":   "uint64 5000000",
		"org.systemd.property.TimeoutStartSec":   "2.5",
		"org.systemd.property.RuntimeMaxSec":     "uint32 7",
		"org.systemd.property.CollectMode":       "'inactive'",
		"org.systemd.property.Before":            "['a.service', 'b.service']",
		"org.opencontainers.something.Different": "not a value",
	})
	want := "Before=[a.service b.service] CollectMode=inactive RuntimeMaxUSec=7000000 TimeoutStartUSec=2500000 TimeoutStopUSec=5000000"
	if err != nil || words(got) != want {
		t.Errorf("%s, %v; want %s", words(got), err, want)
	}
	for key, value := range map[string]string{
		"Ab": "1", "Sec": "1", "Non-Letters": "1", "Timeout_Sec": "1", "TimeoutSec": "'five'", "TimeoutStopSec": "-1", "Value": "[1, ", "Nothing": "",
	} {
		if got, err := annotated(map[string]string{annotation + key: value}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s=%s: %s, %v; want an error", key, value, words(got), err)
		}
	}
	// What an annotation says replaces what the runtime would.
	list := override([]dbus.Property{property("CollectMode", "x"), property("Delegate", true)}, got[1:2])
	if words(list) != "Delegate=true CollectMode=inactive" {
		t.Errorf("overridden: %s", words(list))
	}
}

func FuzzAnnotated(f *testing.F) {
	f.Add("TimeoutStopSec", "5")
	f.Add("Before", "['a']")
	f.Add("XSec", "double nan")
	f.Fuzz(func(_ *testing.T, name, value string) {
		_, _ = annotated(map[string]string{annotation + name: value})
	})
}
