package translate

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// invalid is an error for a value that the runtime-spec does not allow.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// lookUp answers a constant by its name in the runtime-spec.
func lookUp[K ~string, V any](field string, constants map[K]V, name K) (V, error) {
	value, ok := constants[name]
	if !ok {
		return value, invalid("%s %q is unknown (known: %s)", field, name, strings.Join(sorted(constants), ", "))
	}
	return value, nil
}

func sorted[K ~string, V any](constants map[K]V) []string {
	names := make([]string, 0, len(constants))
	for name := range maps.Keys(constants) {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}

// schedulers are the policies of sched(7); SCHED_ISO was never in a kernel.
var schedulers = map[specs.LinuxSchedulerPolicy]uint32{
	specs.SchedOther: unix.SCHED_NORMAL, specs.SchedFIFO: unix.SCHED_FIFO, specs.SchedRR: unix.SCHED_RR,
	specs.SchedBatch: unix.SCHED_BATCH, specs.SchedIdle: unix.SCHED_IDLE, specs.SchedDeadline: unix.SCHED_DEADLINE,
}

var schedulerFlags = map[specs.LinuxSchedulerFlag]uint64{
	specs.SchedFlagResetOnFork: unix.SCHED_FLAG_RESET_ON_FORK, specs.SchedFlagReclaim: unix.SCHED_FLAG_RECLAIM,
	specs.SchedFlagDLOverrun: unix.SCHED_FLAG_DL_OVERRUN, specs.SchedFlagKeepPolicy: unix.SCHED_FLAG_KEEP_POLICY,
	specs.SchedFlagKeepParams: unix.SCHED_FLAG_KEEP_PARAMS, specs.SchedFlagUtilClampMin: unix.SCHED_FLAG_UTIL_CLAMP_MIN,
	specs.SchedFlagUtilClampMax: unix.SCHED_FLAG_UTIL_CLAMP_MAX,
}

func scheduler(s *specs.Scheduler) (*sandbox.Scheduler, error) {
	if s == nil {
		return nil, nil
	}
	policy, err := lookUp("process.scheduler.policy", schedulers, s.Policy)
	if err != nil {
		return nil, err
	}
	realtime := policy == unix.SCHED_FIFO || policy == unix.SCHED_RR
	switch {
	case s.Nice < -20 || s.Nice > 19:
		return nil, invalid("process.scheduler.nice %d is not between -20 and 19", s.Nice)
	case s.Priority != 0 && !realtime:
		return nil, invalid("process.scheduler.priority can only be specified for SchedFIFO or SchedRR policy")
	case s.Priority < 0 || s.Priority > 99:
		return nil, invalid("process.scheduler.priority %d is not between 0 and 99", s.Priority)
	case policy != unix.SCHED_DEADLINE && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0):
		return nil, invalid("process.scheduler runtime/deadline/period can only be specified for SchedDeadline policy")
	}
	result := &sandbox.Scheduler{Policy: policy, Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	for _, name := range s.Flags {
		flag, err := lookUp("process.scheduler.flags", schedulerFlags, name)
		if err != nil {
			return nil, err
		}
		result.Flags |= flag
	}
	return result, nil
}

// ioClasses are those of ioprio_set(2).
var ioClasses = map[specs.IOPriorityClass]int{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}

const ioClassShift = 13 // IOPRIO_CLASS_SHIFT

func ioPriority(p *specs.LinuxIOPriority) (*int, error) {
	if p == nil {
		return nil, nil
	}
	class, err := lookUp("process.ioPriority.class", ioClasses, p.Class)
	if err != nil {
		return nil, err
	}
	if p.Priority < 0 || p.Priority > 7 {
		return nil, invalid("process.ioPriority.priority %d is not between 0 and 7", p.Priority)
	}
	value := class<<ioClassShift | p.Priority
	return &value, nil
}

// personalities are those of personality(2) that the runtime-spec allows.
var personalities = map[specs.LinuxPersonalityDomain]uint32{specs.PerLinux: 0x0, specs.PerLinux32: 0x8}

func personality(p *specs.LinuxPersonality) (*uint32, error) {
	if p == nil {
		return nil, nil
	}
	domain, err := lookUp("linux.personality.domain", personalities, p.Domain)
	if err != nil {
		return nil, err
	}
	if len(p.Flags) > 0 {
		return nil, invalid("linux.personality.flags: additional flags are not supported")
	}
	return &domain, nil
}

var (
	memoryModes = map[specs.MemoryPolicyModeType]int{
		specs.MpolDefault: unix.MPOL_DEFAULT, specs.MpolPreferred: unix.MPOL_PREFERRED, specs.MpolBind: unix.MPOL_BIND,
		specs.MpolInterleave: unix.MPOL_INTERLEAVE, specs.MpolLocal: unix.MPOL_LOCAL, specs.MpolPreferredMany: unix.MPOL_PREFERRED_MANY,
		specs.MpolWeightedInterleave: unix.MPOL_WEIGHTED_INTERLEAVE,
	}
	memoryFlags = map[specs.MemoryPolicyFlagType]int{
		specs.MpolFNumaBalancing: unix.MPOL_F_NUMA_BALANCING, specs.MpolFRelativeNodes: unix.MPOL_F_RELATIVE_NODES, specs.MpolFStaticNodes: unix.MPOL_F_STATIC_NODES,
	}
)

// Highest numbers that lists of processors and memory nodes may name: what the
// kernel can be configured for.
const (
	maxCPU  = 8191
	maxNode = 1023
)

func memoryPolicy(p *specs.LinuxMemoryPolicy) (*sandbox.MemoryPolicy, error) {
	if p == nil {
		return nil, nil
	}
	mode, err := lookUp("linux.memoryPolicy.mode", memoryModes, p.Mode)
	if err != nil {
		return nil, err
	}
	result := &sandbox.MemoryPolicy{Mode: mode}
	for _, name := range p.Flags {
		flag, err := lookUp("linux.memoryPolicy.flags", memoryFlags, name)
		if err != nil {
			return nil, err
		}
		result.Mode |= flag
	}
	nodes, err := numberList(p.Nodes, maxNode)
	if err != nil {
		return nil, fmt.Errorf("linux.memoryPolicy.nodes: %w", err)
	}
	for _, node := range nodes {
		for len(result.Nodes) <= node/64 {
			result.Nodes = append(result.Nodes, 0)
		}
		result.Nodes[node/64] |= 1 << (node % 64)
	}
	return result, nil
}

// CPUAffinity answers the processors of process.execCPUAffinity: before and after
// the new process is in the container's cgroup.
func CPUAffinity(a *specs.CPUAffinity) (initial, final []int, err error) {
	if a == nil {
		return nil, nil, nil
	}
	if initial, err = numberList(a.Initial, maxCPU); err != nil {
		return nil, nil, fmt.Errorf("process.execCPUAffinity.initial: %w", err)
	}
	if final, err = numberList(a.Final, maxCPU); err != nil {
		return nil, nil, fmt.Errorf("process.execCPUAffinity.final: %w", err)
	}
	return initial, final, nil
}

// numberList reads "0-3,7".
func numberList(text string, highest int) ([]int, error) {
	if text == "" {
		return nil, nil
	}
	var numbers []int
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		first, err := strconv.ParseUint(low, 10, 31)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(high, 10, 31)
		}
		if err != nil || last < first || last > uint64(highest) {
			return nil, invalid("%q is not a list of numbers from 0 to %d like \"0-3,7\"", text, highest)
		}
		for n := first; n <= last; n++ {
			numbers = append(numbers, int(n))
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}
