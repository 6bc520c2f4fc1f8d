package command

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"time"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/container"
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
		u, err := a.Usage(id)
		if err != nil {
			return 1, err
		}
		if *once {
			return 0, out.Encode(event{"stats", id, convertUsage(u)})
		}
		return 0, a.Watch(context.Background(), id, *interval, container.Watcher{
			Usage: func(u container.Usage) error { return out.Encode(event{"stats", id, convertUsage(u)}) },
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
		PSI        *pressure  `json:"psi,omitempty"`
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
		PSI    *pressure         `json:"psi,omitempty"`
	}
	pids struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	}
	blkio struct {
		Bytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
		IOs   []blkioEntry `json:"ioServicedRecursive,omitempty"`
		PSI   *pressure    `json:"psi,omitempty"`
	}
	blkioEntry struct {
		Major uint64 `json:"major,omitempty"`
		Minor uint64 `json:"minor,omitempty"`
		Op    string `json:"op,omitempty"`
		Value uint64 `json:"value,omitempty"`
	}
	pressure struct {
		Some stall `json:"some"`
		Full stall `json:"full"`
	}
	stall struct {
		Avg10  float64 `json:"avg10"`
		Avg60  float64 `json:"avg60"`
		Avg300 float64 `json:"avg300"`
		Total  uint64  `json:"total"` // microseconds
	}
)

func convertUsage(s container.Usage) statistics {
	r := statistics{
		CPU: cpu{
			Usage:      cpuUsage{s.CPU.Total, s.CPU.PerCPU, s.CPU.System, s.CPU.User},
			Throttling: throttling{s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime},
			PSI:        convertPressure(s.Pressures, "cpu"),
		},
		Memory: memory{
			Cache: s.Memory.Detail["cache"] + s.Memory.Detail["file"], // v1 and v2 name it differently
			Usage: memoryEntry{s.Memory.Limit, s.Memory.Usage, s.Memory.MaxUsage, s.Memory.Failures},
			Raw:   s.Memory.Detail,
			PSI:   convertPressure(s.Pressures, "memory"),
		},
		Pids:    pids{s.Pids.Current, s.Pids.Limit},
		Hugetlb: map[string]any{}, Network: []any{},
	}
	r.BlkIO.PSI = convertPressure(s.Pressures, "io")
	for _, e := range s.BlkIO {
		r.BlkIO.Bytes = append(r.BlkIO.Bytes, blkioEntry{e.Major, e.Minor, e.Op, e.Bytes})
		r.BlkIO.IOs = append(r.BlkIO.IOs, blkioEntry{e.Major, e.Minor, e.Op, e.IOs})
	}
	return r
}

func convertPressure(all map[string]cgroup.Pressure, resource string) *pressure {
	p, known := all[resource]
	if !known {
		return nil
	}
	convert := func(s cgroup.Stall) stall {
		return stall{s.Avg10, s.Avg60, s.Avg300, uint64(s.Total.Microseconds())}
	}
	return &pressure{convert(p.Some), convert(p.Full)}
}
