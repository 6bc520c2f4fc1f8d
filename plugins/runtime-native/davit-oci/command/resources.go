package command

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/docker/go-units"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// limits are update's flags, as words: an empty one changes nothing.
type limits struct {
	file                                                                        string
	weight, period, quota, burst, shares, rtPeriod, rtRuntime, cpus, mems, idle string
	memory, reservation, swap, kernel, kernelTCP, pids, l3, bandwidth           string
}

func update(a *app, f *flag.FlagSet) func([]string) (int, error) {
	l := &limits{}
	for _, name := range []string{"resources", "r"} {
		f.StringVar(&l.file, name, "", "`file` with the resources as JSON, - for standard input; other flags then do not count")
	}
	for _, option := range []struct {
		name, usage string
		value       *string
	}{
		{"blkio-weight", "weight of block IO, 10 to 1000", &l.weight},
		{"cpu-period", "CFS period in µs", &l.period},
		{"cpu-quota", "CFS quota in µs a period", &l.quota},
		{"cpu-burst", "CFS burst in µs", &l.burst},
		{"cpu-share", "relative weight of CPU time", &l.shares},
		{"cpu-rt-period", "realtime period in µs", &l.rtPeriod},
		{"cpu-rt-runtime", "realtime runtime in µs a period", &l.rtRuntime},
		{"cpuset-cpus", "CPUs to use", &l.cpus},
		{"cpuset-mems", "memory nodes to use", &l.mems},
		{"cpu-idle", "SCHED_IDLE for the cgroup: 0 or 1", &l.idle},
		{"memory", "memory limit in bytes", &l.memory},
		{"memory-reservation", "soft memory limit in bytes", &l.reservation},
		{"memory-swap", "limit of memory and swap in bytes, -1 for none", &l.swap},
		{"kernel-memory", "obsolete: does nothing, as in current kernels", &l.kernel},
		{"kernel-memory-tcp", "limit of TCP buffers in bytes", &l.kernelTCP},
		{"pids-limit", "number of processes, -1 for no limit", &l.pids},
		{"l3-cache-schema", "not supported", &l.l3},
		{"mem-bw-schema", "not supported", &l.bandwidth},
	} {
		f.StringVar(option.value, option.name, "", option.usage)
	}
	return func(args []string) (int, error) {
		resources, err := l.resources(os.Stdin)
		if err != nil {
			return 1, err
		}
		return 0, a.Update(args[0], resources)
	}
}

func (l *limits) resources(stdin io.Reader) (*specs.LinuxResources, error) {
	if l.file != "" {
		return readResources(l.file, stdin)
	}
	if l.l3 != "" || l.bandwidth != "" {
		return nil, fmt.Errorf("Intel RDT is not supported: neither --l3-cache-schema nor --mem-bw-schema can be set")
	}
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{Cpus: l.cpus, Mems: l.mems}}
	for _, n := range []struct {
		text, name string
		value      **int64
		parse      func(string) (int64, error)
	}{
		{l.quota, "cpu-quota", &r.CPU.Quota, number}, {l.rtRuntime, "cpu-rt-runtime", &r.CPU.RealtimeRuntime, number}, {l.idle, "cpu-idle", &r.CPU.Idle, number},
		{l.memory, "memory", &r.Memory.Limit, bytes}, {l.reservation, "memory-reservation", &r.Memory.Reservation, bytes},
		{l.swap, "memory-swap", &r.Memory.Swap, bytes}, {l.kernelTCP, "kernel-memory-tcp", &r.Memory.KernelTCP, bytes},
	} {
		if n.text == "" {
			continue
		}
		v, err := n.parse(n.text)
		if err != nil {
			return nil, fmt.Errorf("invalid value for %s: %w", n.name, err)
		}
		*n.value = &v
	}
	for _, n := range []struct {
		text, name string
		value      **uint64
	}{{l.period, "cpu-period", &r.CPU.Period}, {l.shares, "cpu-share", &r.CPU.Shares}, {l.rtPeriod, "cpu-rt-period", &r.CPU.RealtimePeriod}, {l.burst, "cpu-burst", &r.CPU.Burst}} {
		if n.text == "" {
			continue
		}
		v, err := strconv.ParseUint(n.text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("invalid value for %s: %w", n.name, err)
		}
		*n.value = &v
	}
	if l.weight != "" {
		v, err := strconv.ParseUint(l.weight, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("invalid value for blkio-weight: %w", err)
		}
		weight := uint16(v)
		r.BlockIO = &specs.LinuxBlockIO{Weight: &weight}
	}
	if l.pids != "" {
		v, err := number(l.pids)
		if err != nil {
			return nil, fmt.Errorf("invalid value for pids-limit: %w", err)
		}
		r.Pids = &specs.LinuxPids{Limit: &v}
	}
	return r, nil
}

func readResources(file string, stdin io.Reader) (*specs.LinuxResources, error) {
	source := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		source = f
	}
	r := &specs.LinuxResources{}
	if err := json.NewDecoder(source).Decode(r); err != nil {
		return nil, fmt.Errorf("reading the resources: %w", err)
	}
	return r, nil
}

func number(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }

// bytes is a size as Docker writes it; -1 is no limit.
func bytes(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	return units.RAMInBytes(s)
}
