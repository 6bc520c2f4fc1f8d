package cgroup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// everything is all that one can do with a device node.
const everything = unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE | unix.BPF_DEVCG_ACC_MKNOD

// deviceRule is a rule of the spec with wildcards as -1. Of the rules about a
// device and an access the last one decides; without any it is denied.
type deviceRule struct {
	allow              bool
	kind, major, minor int64
	access             int32
}

// DefaultDevices are the rules that follow those of every container, as runc
// adds them: the standard devices, terminals, and making nodes of any kind.
func DefaultDevices() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
		if major >= 0 {
			r.Major = &major
		}
		if minor >= 0 {
			r.Minor = &minor
		}
		return r
	}
	return []specs.LinuxDeviceCgroup{
		rule("c", -1, -1, "m"), rule("b", -1, -1, "m"),
		rule("c", 1, 3, "rwm"), rule("c", 1, 5, "rwm"), rule("c", 1, 7, "rwm"), rule("c", 1, 8, "rwm"), rule("c", 1, 9, "rwm"),
		rule("c", 5, 0, "rwm"), rule("c", 5, 1, "rwm"), rule("c", 5, 2, "rwm"), rule("c", 136, -1, "rwm"),
	}
}

// WithDefaultDevices is r with the rules every container has behind its own.
func WithDefaultDevices(r *specs.LinuxResources) *specs.LinuxResources {
	var with specs.LinuxResources
	if r != nil {
		with = *r
	}
	with.Devices = append(slices.Clone(with.Devices), DefaultDevices()...)
	return &with
}

func deviceRules(list []specs.LinuxDeviceCgroup) ([]deviceRule, error) {
	rules := make([]deviceRule, 0, len(list))
	for _, r := range list {
		rule := deviceRule{allow: r.Allow, major: wild(r.Major), minor: wild(r.Minor)}
		switch r.Type {
		case "", "a":
			rule.kind = -1
		case "c", "u":
			rule.kind = unix.BPF_DEVCG_DEV_CHAR
		case "b":
			rule.kind = unix.BPF_DEVCG_DEV_BLOCK
		default:
			return nil, invalid("device rule of type %q is none of a, b, c", r.Type)
		}
		for _, letter := range r.Access {
			i := strings.IndexRune(accessLetters, letter)
			if i < 0 {
				return nil, invalid("device access %q is none of r, w, m", letter)
			}
			rule.access |= accessBits[i]
		}
		if rule.major > 1<<12-1 || rule.minor > 1<<20-1 { // the kernel's dev_t
			return nil, invalid("device %d:%d does not exist", rule.major, rule.minor)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

const accessLetters = "rwm"

var accessBits = [...]int32{unix.BPF_DEVCG_ACC_READ, unix.BPF_DEVCG_ACC_WRITE, unix.BPF_DEVCG_ACC_MKNOD}

func wild(number *int64) int64 {
	if number == nil || *number < 0 {
		return -1
	}
	return *number
}

// covers says whether d is about every device that other is about.
func (d deviceRule) covers(other deviceRule) bool {
	return (d.kind < 0 || d.kind == other.kind) && (d.major < 0 || d.major == other.major) && (d.minor < 0 || d.minor == other.minor)
}

// meets says whether there can be a device that both are about.
func (d deviceRule) meets(other deviceRule) bool {
	same := func(a, b int64) bool { return a < 0 || b < 0 || a == b }
	return same(d.kind, other.kind) && same(d.major, other.major) && same(d.minor, other.minor)
}

// all says whether d is about all access to all devices.
func (d deviceRule) all() bool {
	return d.kind < 0 && d.major < 0 && d.minor < 0 && d.access == everything
}

// String is the rule as v1's files and error messages have it.
func (d deviceRule) String() string {
	kind := "a"
	switch d.kind {
	case unix.BPF_DEVCG_DEV_CHAR:
		kind = "c"
	case unix.BPF_DEVCG_DEV_BLOCK:
		kind = "b"
	}
	number := func(n int64) string {
		if n < 0 {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	access := ""
	for i, bit := range accessBits {
		if d.access&bit != 0 {
			access += accessLetters[i : i+1]
		}
	}
	return fmt.Sprintf("%s %s:%s %s", kind, number(d.major), number(d.minor), access)
}
