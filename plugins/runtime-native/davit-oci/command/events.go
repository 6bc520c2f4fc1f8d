package command

import (
	"encoding/json"
	"errors"
	"flag"
	"time"

	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/container"
	"github.com/davit-engine/davit/sdk/runtime"
)

// event is one line of "events", as in runc.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

func events(a *app, f *flag.FlagSet) func([]string) (int, error) {
	interval := f.Duration("interval", 5*time.Second, "time between two statistics")
	once := f.Bool("stats", false, "print the statistics once")
	return func(args []string) (int, error) {
		id := args[0]
		if *interval <= 0 {
			return 1, errors.New("duration interval must be greater than 0")
		}
		out := json.NewEncoder(a.out)
		s, err := a.Stats(id)
		if err != nil {
			return 1, err
		}
		if *once {
			return 0, out.Encode(event{"stats", id, convertStats(s)})
		}
		return 0, a.Watch(id, *interval, container.Watcher{
			Stats: func(s runtime.Stats) error { return out.Encode(event{"stats", id, convertStats(s)}) },
			OOM:   func() error { return out.Encode(event{"oom", id, nil}) },
		})
	}
}

// The statistics in runc's words (its package types).
type (
	statistics struct {
		CPU     cpu            `json:"cpu"`
		CPUSet  struct{}       `json:"cpuset"`
		Memory  memory         `json:"memory"`
		Pids    pids           `json:"pids"`
		BlkIO   blkio          `json:"blkio"`
		Hugetlb map[string]any `json:"hugetlb"`
		RDT     struct{}       `json:"intel_rdt"`
		Network []any          `json:"network_interfaces"`
	}
	cpu struct {
		Usage      cpuUsage   `json:"usage"`
		Throttling throttling `json:"throttling"`
	}
	cpuUsage struct {
		Total  uint64   `json:"total,omitempty"`
		PerCPU []uint64 `json:"percpu,omitempty"`
		Kernel uint64   `json:"kernel"`
		User   uint64   `json:"user"`
	}
	throttling struct {
		Periods   uint64 `json:"periods,omitempty"`
		Throttled uint64 `json:"throttledPeriods,omitempty"`
		Time      uint64 `json:"throttledTime,omitempty"`
	}
	memoryEntry struct {
		Limit   uint64 `json:"limit"`
		Usage   uint64 `json:"usage,omitempty"`
		Max     uint64 `json:"max,omitempty"`
		Failcnt uint64 `json:"failcnt"`
	}
	memory struct {
		Cache  uint64            `json:"cache,omitempty"`
		Usage  memoryEntry       `json:"usage"`
		Swap   memoryEntry       `json:"swap"`
		Kernel memoryEntry       `json:"kernel"`
		TCP    memoryEntry       `json:"kernelTCP"`
		Raw    map[string]uint64 `json:"raw,omitempty"`
	}
	pids struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	}
	blkio struct {
		Bytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
		IOs   []blkioEntry `json:"ioServicedRecursive,omitempty"`
	}
	blkioEntry struct {
		Major uint64 `json:"major,omitempty"`
		Minor uint64 `json:"minor,omitempty"`
		Op    string `json:"op,omitempty"`
		Value uint64 `json:"value,omitempty"`
	}
)

func convertStats(s runtime.Stats) statistics {
	r := statistics{
		CPU: cpu{
			Usage:      cpuUsage{s.CPU.Total, s.CPU.PerCPU, s.CPU.System, s.CPU.User},
			Throttling: throttling{s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime},
		},
		Memory: memory{
			Cache: s.Memory.Detail["cache"] + s.Memory.Detail["file"], // v1 and v2 name it differently
			Usage: memoryEntry{s.Memory.Limit, s.Memory.Usage, s.Memory.MaxUsage, s.Memory.Failures},
			Raw:   s.Memory.Detail,
		},
		Pids:    pids{s.Pids.Current, s.Pids.Limit},
		Hugetlb: map[string]any{}, Network: []any{},
	}
	for _, e := range s.BlkIO {
		r.BlkIO.Bytes = append(r.BlkIO.Bytes, blkioEntry{e.Major, e.Minor, e.Op, e.Bytes})
		r.BlkIO.IOs = append(r.BlkIO.IOs, blkioEntry{e.Major, e.Minor, e.Op, e.IOs})
	}
	return r
}
