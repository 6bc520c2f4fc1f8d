package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3"
	"github.com/moby/moby/api/types/container"
)

// Kernel says which of the limits that a container may ask for this host's
// cgroups can hold.
type Kernel struct {
	SwapLimit, Swappiness, OOMKillDisable bool
	RealTime, IOWeight                    bool
	CPUs, Memories                        string // those there are, as lists ("0-3,5"); empty: not known
}

// DetectKernel looks at the cgroup hierarchies of this host.
func DetectKernel() Kernel {
	const root = "/sys/fs/cgroup"
	read := func(path string) string {
		body, _ := os.ReadFile(path)
		return strings.TrimSpace(string(body))
	}
	if cgroups.Mode() == cgroups.Unified {
		// Neither swappiness, nor the OOM killer, nor real-time is a matter of v2.
		return Kernel{
			SwapLimit: true, IOWeight: true,
			CPUs: read(filepath.Join(root, "cpuset.cpus.effective")), Memories: read(filepath.Join(root, "cpuset.mems.effective")),
		}
	}
	has := func(path string) bool {
		_, err := os.Stat(filepath.Join(root, path))
		return err == nil
	}
	return Kernel{
		SwapLimit: has("memory/memory.memsw.limit_in_bytes"), Swappiness: has("memory/memory.swappiness"), OOMKillDisable: has("memory/memory.oom_control"),
		RealTime: has("cpu/cpu.rt_runtime_us"), IOWeight: has("blkio/blkio.weight") || has("blkio/blkio.bfq.weight"),
		CPUs: read(filepath.Join(root, "cpuset/cpuset.cpus")), Memories: read(filepath.Join(root, "cpuset/cpuset.mems")),
	}
}

// Fit takes out of limits what the kernel cannot hold, with Docker's warnings. A
// limit whose absence would break the container is an error of kind
// ErrInvalidArgument instead.
func (k Kernel) Fit(r container.Resources) (container.Resources, []string, error) {
	var warnings []string
	drop := func(what string) { warnings = append(warnings, "Your kernel does not support "+what) }
	if r.Memory > 0 && r.MemorySwap != -1 && !k.SwapLimit {
		drop("swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
		r.MemorySwap = -1
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness == -1 {
		r.MemorySwappiness = nil // how older clients say "unchanged"
	}
	if r.MemorySwappiness != nil && !k.Swappiness {
		drop("memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
		r.MemorySwappiness = nil
	}
	if r.OomKillDisable != nil && !k.OOMKillDisable {
		if *r.OomKillDisable {
			drop("OomKillDisable. OomKillDisable discarded.")
		}
		r.OomKillDisable = nil
	}
	if r.OomKillDisable != nil && *r.OomKillDisable && r.Memory == 0 {
		warnings = append(warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	if r.BlkioWeight > 0 && !k.IOWeight {
		drop("Block I/O weight or the cgroup is not mounted. Weight discarded.")
		r.BlkioWeight = 0
	}
	if len(r.BlkioWeightDevice) > 0 && !k.IOWeight {
		drop("Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.")
		r.BlkioWeightDevice = nil
	}
	if r.CPUPercent > 0 {
		warnings = append(warnings, runtime.GOOS+" does not support CPU percent. Percent discarded.")
		r.CPUPercent = 0
	}
	switch {
	case r.IOMaximumBandwidth != 0 || r.IOMaximumIOps != 0:
		return r, nil, invalid("invalid QoS settings: %s does not support Maximum IO Bandwidth or Maximum IO IOps", runtime.GOOS)
	case (r.CPURealtimePeriod > 0 || r.CPURealtimeRuntime > 0) && !k.RealTime:
		return r, nil, invalid("kernel does not support CPU real-time scheduler")
	case r.CPURealtimePeriod > 0 && r.CPURealtimeRuntime > r.CPURealtimePeriod:
		return r, nil, invalid("cpu real-time runtime cannot be higher than cpu real-time period")
	}
	for _, set := range []struct{ wanted, there, name, things string }{
		{r.CpusetCpus, k.CPUs, "cpus", "CPUs"}, {r.CpusetMems, k.Memories, "mems", "memory nodes"},
	} {
		wanted, err := parseSet(set.wanted)
		if err != nil {
			return r, nil, invalid("Invalid value %s for cpuset %s: %v", set.wanted, set.name, err)
		}
		there, err := parseSet(set.there)
		if err != nil || len(there) == 0 {
			continue
		}
		for _, one := range wanted {
			if !slices.ContainsFunc(there, func(s span) bool { return s.first <= one.first && one.last <= s.last }) {
				return r, nil, invalid("Requested %s are not available - requested %s, available: %s", set.things, set.wanted, set.there)
			}
		}
	}
	return r, warnings, nil
}

// span is a range of numbers, both ends included.
type span struct{ first, last uint16 }

// parseSet reads a cpuset list such as "0-2,7" (cpuset(7), "List format"). Spans
// that touch are one.
func parseSet(list string) ([]span, error) {
	var spans []span
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	for item := range strings.SplitSeq(list, ",") {
		from, to, ranged := strings.Cut(strings.TrimSpace(item), "-")
		if !ranged {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 13) // as many as Linux can be built for
		if err != nil {
			return nil, fmt.Errorf("invalid format: %s", item)
		}
		last, err := strconv.ParseUint(to, 10, 13)
		if err != nil || last < first {
			return nil, fmt.Errorf("invalid format: %s", item)
		}
		spans = append(spans, span{uint16(first), uint16(last)})
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.first) - int(b.first) })
	joined := spans[:1]
	for _, s := range spans[1:] {
		if end := &joined[len(joined)-1]; s.first <= end.last+1 {
			end.last = max(end.last, s.last)
			continue
		}
		joined = append(joined, s)
	}
	return joined, nil
}
