package cgroup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// has says whether the kernel has a file of a controller.
type has func(controller, file string) bool

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// check refuses what no version of cgroups can do, in runc's words.
func check(r *specs.LinuxResources) error {
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 {
			if *c.Shares > 262144 {
				return invalid("the maximum allowed cpu-shares is 262144")
			}
			if *c.Shares < 2 {
				return invalid("the minimum allowed cpu-shares is 2")
			}
		}
		if c.Idle != nil && *c.Idle != 0 && *c.Idle != 1 {
			return invalid("cpu idle is %d, not 0 or 1", *c.Idle)
		}
	}
	if b := r.BlockIO; b != nil {
		weights := []*uint16{b.Weight, b.LeafWeight}
		for _, d := range b.WeightDevice {
			weights = append(weights, d.Weight, d.LeafWeight)
		}
		for _, w := range weights {
			if w != nil && *w != 0 && (*w < 10 || *w > 1000) {
				return invalid("block IO weight %d is not between 10 and 1000", *w)
			}
		}
	}
	if m := r.Memory; m != nil {
		if m.Swappiness != nil && *m.Swappiness > 100 {
			return invalid("invalid memory swappiness value: %d (valid range is 0-100)", *m.Swappiness)
		}
		if m.Limit != nil && *m.Limit > 0 && m.Swap != nil && *m.Swap > 0 && *m.Swap < *m.Limit {
			return invalid("memory+swap limit should be >= memory limit")
		}
	}
	for _, h := range r.HugepageLimits {
		if h.Pagesize == "" || strings.ContainsAny(h.Pagesize, "/.") {
			return invalid("huge page size %q", h.Pagesize)
		}
	}
	for name := range r.Rdma {
		if name == "" || strings.ContainsAny(name, " \n=") {
			return invalid("rdma device %q", name)
		}
	}
	return nil
}

// usage is the memory that a limit is compared with before it is set.
type usage func() (memory, withSwap uint64, err error)

// checkUsage refuses limits below what is used, if the spec asks for that.
func checkUsage(m *specs.LinuxMemory, read usage) error {
	if m == nil || m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate {
		return nil
	}
	memory, withSwap, err := read()
	if err != nil {
		return fmt.Errorf("reading the memory in use: %w", err)
	}
	if m.Swap != nil && *m.Swap > 0 && uint64(*m.Swap) <= withSwap {
		return fmt.Errorf("rejecting memory+swap limit %d <= usage %d: %w", *m.Swap, withSwap, errdefs.ErrFailedPrecondition)
	}
	if m.Limit != nil && *m.Limit > 0 && uint64(*m.Limit) <= memory {
		return fmt.Errorf("rejecting memory limit %d <= usage %d: %w", *m.Limit, memory, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// given is whether a value is set at all: zero means "leave it", as in runc.
func given[T ~int64 | ~uint64 | ~uint16 | ~uint32](v *T) bool { return v != nil && *v != 0 }

// decimal is a limit as most files want it, or unlimited for a negative one.
func decimal[T ~int64 | ~uint64 | ~uint16 | ~uint32](v T, unlimited string) string {
	if v < 0 {
		return unlimited
	}
	return strconv.FormatUint(uint64(v), 10)
}

func device(major, minor int64) string { return fmt.Sprintf("%d:%d", major, minor) }

// rdma words the limits of each RDMA device, the same on both versions.
func rdma(r *specs.LinuxResources) []setting {
	var list []setting
	names := make([]string, 0, len(r.Rdma))
	for name := range r.Rdma {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := name
		if limit := r.Rdma[name].HcaHandles; limit != nil {
			value += " hca_handle=" + decimal(*limit, "")
		}
		if limit := r.Rdma[name].HcaObjects; limit != nil {
			value += " hca_object=" + decimal(*limit, "")
		}
		list = append(list, setting{controller: "rdma", file: "rdma.max", value: value, before: line(name, "hca_handle=max hca_object=max")})
	}
	return list
}
