package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/davit-engine/davit/sdk/runtime"
)

func TestBlockIOFiles(t *testing.T) {
	got := parseIO("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:16 \nx rbytes=1\n8:1 wios=7\n")
	want := []runtime.BlkIOEntry{{Major: 8, Op: "read", Bytes: 1, IOs: 3}, {Major: 8, Op: "write", Bytes: 2, IOs: 4}, {Major: 8, Minor: 1, Op: "read"}, {Major: 8, Minor: 1, Op: "write", IOs: 7}}
	if !slices.Equal(got, want) {
		t.Errorf("v2: %+v", got)
	}
	got = parseBlkIO("8:0 Read 10\n8:0 Write 20\nTotal 30\n", "8:0 Write 2\n8:16 Read 1\nTotal 3\n")
	want = []runtime.BlkIOEntry{{Major: 8, Op: "Read", Bytes: 10}, {Major: 8, Op: "Write", Bytes: 20, IOs: 2}, {Major: 8, Minor: 16, Op: "Read", IOs: 1}}
	if !slices.Equal(got, want) {
		t.Errorf("v1: %+v", got)
	}
}

// write makes a directory of files as a cgroup has them.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStatsOfEitherVersion reads files as kernels write them, whatever is mounted
// here.
func TestStatsOfEitherVersion(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/v2", map[string]string{
		"cpu.stat":       "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\ncore_sched.force_idle_usec 0\nnr_periods 7\nnr_throttled 3\nthrottled_usec 55\nnr_bursts 0\nburst_usec 0\n",
		"memory.current": "4096\n", "memory.peak": "8192\n", "memory.max": "16384\n", "memory.stat": "anon 100\nfile 200\n",
		"pids.current": "2\n", "pids.max": "max\n", "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
	})
	got, err := (&unified{"/../../.." + dir + "/v2"}).stats()
	want := runtime.Stats{
		CPU:    runtime.CPUStats{Total: 1234000, User: 1000000, System: 234000, Periods: 7, ThrottledPeriods: 3, ThrottledTime: 55000},
		Memory: runtime.MemoryStats{Usage: 4096, MaxUsage: 8192, Limit: 16384, Detail: map[string]uint64{"anon": 100, "file": 200}},
		Pids:   runtime.PidsStats{Current: 2},
		BlkIO:  []runtime.BlkIOEntry{{Major: 8, Op: "read", Bytes: 1, IOs: 3}, {Major: 8, Op: "write", Bytes: 2, IOs: 4}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("v2: %+v (%v)", got, err)
	}
	write(t, dir+"/v1/g", map[string]string{
		"cpuacct.usage": "1234567\n", "cpuacct.stat": "user 3\nsystem 4\n", "cpuacct.usage_percpu": "1234500 67 \n",
		"cpu.stat": "nr_periods 7\nnr_throttled 3\nthrottled_time 55\n", "memory.usage_in_bytes": "4096\n", "memory.max_usage_in_bytes": "8192\n",
		"memory.limit_in_bytes": "16384\n", "memory.failcnt": "9\n", "memory.stat": "cache 100\n", "pids.current": "2\n", "pids.max": "50\n",
		"blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\nTotal 10\n", "blkio.throttle.io_serviced_recursive": "8:0 Read 1\nTotal 1\n",
	})
	v1 := &legacy{"/g", []mounted{{[]string{"cpu", "cpuacct", "memory", "pids", "blkio"}, dir + "/v1"}}}
	got, err = v1.stats()
	want = runtime.Stats{
		CPU: runtime.CPUStats{
			Total: 1234567, User: 30000000, System: 40000000, PerCPU: []uint64{1234500, 67}, Periods: 7, ThrottledPeriods: 3, ThrottledTime: 55,
		},
		Memory: runtime.MemoryStats{Usage: 4096, MaxUsage: 8192, Limit: 16384, Failures: 9, Detail: map[string]uint64{"cache": 100}},
		Pids:   runtime.PidsStats{Current: 2, Limit: 50},
		BlkIO:  []runtime.BlkIOEntry{{Major: 8, Op: "Read", Bytes: 10, IOs: 1}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("v1: %+v (%v)", got, err)
	}
	// A kernel without controllers, a group that is gone, a file that is no number.
	write(t, dir+"/empty", nil)
	if got, err := (&unified{"/../../.." + dir + "/empty"}).stats(); err != nil || !reflect.DeepEqual(got, runtime.Stats{}) {
		t.Errorf("without controllers: %+v (%v)", got, err)
	}
	if _, err := (&unified{"/../../.." + dir + "/gone"}).stats(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a group that is gone: %v", err)
	}
	write(t, dir+"/v2", map[string]string{"pids.current": "two\n"})
	if _, err := (&unified{"/../../.." + dir + "/v2"}).stats(); !errors.Is(err, strconv.ErrSyntax) {
		t.Errorf("a file that is no number: %v", err)
	}
}
