package cgroup

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/cgroups/v3"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Value is what a file of a group is to have.
type Value struct{ File, Text string }

// Values words limits as Create writes them, for whoever has to say them to
// somebody else, too. The weight of block IO is that for the kernel's own
// schedulers, not BFQ's.
func Values(r *specs.LinuxResources) ([]Value, error) {
	if r == nil {
		return nil, nil
	}
	word := legacySettings
	if Version() == 2 {
		word = unifiedSettings
	}
	list, err := word(r, func(_, file string) bool { return !strings.Contains(file, ".bfq.") })
	if err != nil {
		return nil, err
	}
	values := make([]Value, 0, len(list))
	for _, s := range list {
		values = append(values, Value{s.file, s.value})
	}
	return values, nil
}

// Version is that of this host's cgroups, 1 or 2.
func Version() int {
	if cgroups.Mode() == cgroups.Unified {
		return 2
	}
	return 1
}

// Read answers what a file of the group has.
func (g *Group) Read(file string) (string, error) {
	controller, _, _ := strings.Cut(file, ".")
	body, err := readFile(filepath.Join(g.dir(controller), file))
	return strings.TrimSpace(string(body)), err
}

// DeviceRule is access to devices of one kind, "c" or "b". A negative number is
// any.
type DeviceRule struct {
	Kind         string
	Major, Minor int64
	Access       string // of "rwm"
}

// DeviceList resolves rules of which the last decides into one answer for all
// devices and the exceptions from it. Exceptions from exceptions are
// ErrInvalidArgument.
func DeviceList(list []specs.LinuxDeviceCgroup) (allow bool, exceptions []DeviceRule, err error) {
	rules, err := deviceRules(list)
	if err != nil {
		return false, nil, err
	}
	resolved, err := legacyDevices(rules)
	if err != nil {
		return false, nil, err
	}
	for _, r := range resolved.exceptions {
		fields := strings.Fields(r.String())
		exceptions = append(exceptions, DeviceRule{Kind: fields[0], Major: r.major, Minor: r.minor, Access: fields[2]})
	}
	return resolved.allow, slices.Clip(exceptions), nil
}
