package engine

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/davit-engine/davit/core/container"
	sdkruntime "github.com/davit-engine/davit/sdk/runtime"
)

// ContainerStats reads a container's resource usage once. A container that does
// not run has no usage, which is no error.
func (e *Engine) ContainerStats(ctx context.Context, name string) (mobycontainer.StatsResponse, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return mobycontainer.StatsResponse{}, err
	}
	r := c.Record()
	response := mobycontainer.StatsResponse{ID: r.ID, Name: "/" + r.Name, OSType: "linux"}
	if !r.Status.Alive() {
		return response, nil
	}
	driver, err := e.Drivers.Runtime(r.RuntimeDriver)
	if err != nil {
		return response, err
	}
	stats, err := driver.Stats(ctx, r.ID)
	if err != nil {
		return response, fmt.Errorf("reading the stats of container %s: %w", r.Name, err)
	}
	system, err := systemCPU()
	if err != nil {
		return response, err
	}
	response.Read = stats.Read
	response.CPUStats = mobycontainer.CPUStats{
		CPUUsage:    mobycontainer.CPUUsage{TotalUsage: stats.CPU.Total, UsageInUsermode: stats.CPU.User, UsageInKernelmode: stats.CPU.System, PercpuUsage: stats.CPU.PerCPU},
		SystemUsage: system, OnlineCPUs: uint32(runtime.NumCPU()),
		ThrottlingData: mobycontainer.ThrottlingData{Periods: stats.CPU.Periods, ThrottledPeriods: stats.CPU.ThrottledPeriods, ThrottledTime: stats.CPU.ThrottledTime},
	}
	response.MemoryStats = mobycontainer.MemoryStats{Usage: stats.Memory.Usage, Limit: stats.Memory.Limit, Failcnt: stats.Memory.Failures, Stats: stats.Memory.Detail}
	if stats.Version == 1 {
		response.MemoryStats.MaxUsage = stats.Memory.MaxUsage
	}
	response.PidsStats = mobycontainer.PidsStats{Current: stats.Pids.Current, Limit: stats.Pids.Limit}
	response.BlkioStats = blkio(stats.BlkIO)
	if !r.HostConfig.NetworkMode.IsHost() {
		response.Networks = interfaces(r)
	}
	return response, nil
}

func blkio(entries []sdkruntime.BlkIOEntry) mobycontainer.BlkioStats {
	var b mobycontainer.BlkioStats
	for _, entry := range entries {
		b.IoServiceBytesRecursive = append(b.IoServiceBytesRecursive, mobycontainer.BlkioStatEntry{Major: entry.Major, Minor: entry.Minor, Op: entry.Op, Value: entry.Bytes})
		b.IoServicedRecursive = append(b.IoServicedRecursive, mobycontainer.BlkioStatEntry{Major: entry.Major, Minor: entry.Minor, Op: entry.Op, Value: entry.IOs})
	}
	return b
}

// systemCPU is the time that all CPUs together have spent, in nanoseconds.
func systemCPU() (uint64, error) {
	body, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(body, []byte("\n"))
	fields := strings.Fields(string(line))
	const tick = 1e9 / 100 // USER_HZ is 100 on every architecture Go runs on
	var total uint64
	for i, field := range fields {
		if i == 0 || i > 7 { // guest time is contained in user time
			continue
		}
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading /proc/stat: %w", err)
		}
		total += n * tick
	}
	return total, nil
}

// interfaces reads the counters of a container's network devices through its
// process.
func interfaces(r container.Record) map[string]mobycontainer.NetworkStats {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", r.PID))
	if err != nil {
		return nil
	}
	networks := map[string]mobycontainer.NetworkStats{}
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(rest)
		name = strings.TrimSpace(name)
		if !ok || name == "lo" || len(fields) < 12 {
			continue
		}
		number := func(i int) uint64 { n, _ := strconv.ParseUint(fields[i], 10, 64); return n }
		networks[name] = mobycontainer.NetworkStats{
			RxBytes: number(0), RxPackets: number(1), RxErrors: number(2), RxDropped: number(3),
			TxBytes: number(8), TxPackets: number(9), TxErrors: number(10), TxDropped: number(11),
		}
	}
	return networks
}
