package systemd

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
)

func property(name string, value any) dbus.Property {
	return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
}

// numbers are the files with one number whose property has the same
// (systemd.resource-control(5)); of cgroup v1 those under the names that systemd had
// for it.
var numbers = map[string]string{
	"cpu.weight":      "CPUWeight",
	"memory.min":      "MemoryMin",
	"memory.low":      "MemoryLow",
	"memory.high":     "MemoryHigh",
	"memory.max":      "MemoryMax",
	"memory.swap.max": "MemorySwapMax",
	"pids.max":        "TasksMax",

	"cpu.shares":            "CPUShares",
	"memory.limit_in_bytes": "MemoryLimit",
	"blkio.weight":          "BlockIOWeight",
}

// quota is the values that systemd words as one: time of a period, both in µs.
type quota struct{ quota, period string }

// periodUnset is v1's and v2's period where nobody set one.
const periodUnset = 100000

// limitProperties words limits as systemd does.
func limitProperties(r *specs.LinuxResources) ([]dbus.Property, error) {
	values, err := cgroup.Values(r)
	if err != nil {
		return nil, err
	}
	return properties(values)
}

// presentProperties words what the kernel has for the limits that r names.
func presentProperties(group *cgroup.Group, r *specs.LinuxResources) ([]dbus.Property, error) {
	values, err := cgroup.Values(r)
	if err != nil {
		return nil, err
	}
	var present []cgroup.Value
	for _, v := range values {
		files := []string{v.File}
		if v.File == "cpu.cfs_quota_us" || v.File == "cpu.cfs_period_us" {
			files = []string{"cpu.cfs_quota_us", "cpu.cfs_period_us"}
		}
		for _, file := range files {
			if !told(file) {
				continue
			}
			text, err := group.Read(file)
			if err != nil {
				continue // a limit that this kernel does not have and that is none then
			}
			present = append(present, cgroup.Value{File: file, Text: text})
		}
	}
	return properties(present)
}

// told says whether systemd has a word for a file.
func told(file string) bool {
	switch file {
	case "cpu.max", "cpu.idle", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpuset.cpus", "cpuset.mems", "io.weight":
		return true
	}
	return numbers[file] != ""
}

// properties words values; of what systemd has no word for it need not know. The
// last value of a file counts.
func properties(values []cgroup.Value) ([]dbus.Property, error) {
	list := map[string]any{}
	var cpu quota
	for _, v := range values {
		var err error
		switch name := numbers[v.File]; {
		case name != "":
			list[name], err = number(v.Text)
		case v.File == "cpu.max":
			cpu.quota, cpu.period, _ = strings.Cut(v.Text, " ")
		case v.File == "cpu.cfs_quota_us":
			cpu.quota = v.Text
		case v.File == "cpu.cfs_period_us":
			cpu.period = v.Text
		case v.File == "cpu.idle" && v.Text == "1":
			list["CPUWeight"] = uint64(0)
		case v.File == "cpuset.cpus" && cgroup.Version() == 2:
			list["AllowedCPUs"], err = bits(v.Text)
		case v.File == "cpuset.mems" && cgroup.Version() == 2:
			list["AllowedMemoryNodes"], err = bits(v.Text)
		case v.File == "io.weight":
			first, _, _ := strings.Cut(v.Text, "\n")
			if weight, ok := strings.CutPrefix(first, "default "); ok {
				list["IOWeight"], err = number(weight)
			}
		}
		if err != nil {
			return nil, invalid("%s %q: %s", v.File, v.Text, err)
		}
	}
	if err := cpu.add(list); err != nil {
		return nil, err
	}
	var properties []dbus.Property
	for _, name := range slices.Sorted(maps.Keys(list)) {
		properties = append(properties, property(name, list[name]))
	}
	return properties, nil
}

// number reads a limit; "max" and negative ones are none.
func number(text string) (uint64, error) {
	if text == "max" || strings.HasPrefix(text, "-") {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

// second and percent are a second, and the hundredth part of one, in µs.
const (
	second  = 1000000
	percent = second / 100
)

// add words the quota as systemd does, in µs a second. systemd keeps whole percents
// of a CPU in its files, and is told of no less than what the kernel gives.
func (q quota) add(list map[string]any) error {
	if q.quota == "" && q.period == "" {
		return nil
	}
	period := uint64(periodUnset)
	if q.period != "" {
		var err error
		if period, err = strconv.ParseUint(q.period, 10, 64); err != nil || period == 0 {
			return invalid("CPU period %q", q.period)
		}
		list["CPUQuotaPeriodUSec"] = period
	}
	limit, err := number(q.quota)
	if q.quota == "" || err == nil && limit == math.MaxUint64 {
		if q.quota != "" {
			list["CPUQuotaPerSecUSec"] = uint64(math.MaxUint64)
		}
		return nil
	}
	if err != nil || limit > math.MaxUint64/second {
		return invalid("CPU quota %q", q.quota)
	}
	perSecond := limit * second / period
	if rest := perSecond % percent; rest != 0 {
		perSecond += percent - rest
	}
	list["CPUQuotaPerSecUSec"] = perSecond
	return nil
}

// mostBits is more CPUs and memory nodes than any kernel has.
const mostBits = 1 << 14

// bits turns a list like "0-3,7" into a mask, the lowest bit of the first byte
// first.
func bits(list string) ([]byte, error) {
	mask := []byte{}
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		from, to, ranged := strings.Cut(part, "-")
		first, err := strconv.ParseUint(from, 10, 32)
		last := first
		if err == nil && ranged {
			last, err = strconv.ParseUint(to, 10, 32)
		}
		if err != nil || last < first || last >= mostBits {
			return nil, fmt.Errorf("%q is no range of numbers below %d", part, mostBits)
		}
		for n := first; n <= last; n++ {
			for uint64(len(mask)) <= n/8 {
				mask = append(mask, 0)
			}
			mask[n/8] |= 1 << (n % 8)
		}
	}
	return mask, nil
}

// idle is the version of systemd from which on a weight of 0 is an idle group.
const idle = 252

// supported leaves out what an older systemd would refuse.
func supported(conn *dbus.Conn, list []dbus.Property) ([]dbus.Property, error) {
	isIdle := func(p dbus.Property) bool { return p.Name == "CPUWeight" && p.Value.Value() == uint64(0) }
	if !slices.ContainsFunc(list, isIdle) {
		return list, nil
	}
	text, err := conn.GetManagerProperty("Version")
	if err != nil {
		return nil, fmt.Errorf("asking for systemd's version: %w", err)
	}
	if version(text) >= idle {
		return list, nil
	}
	return slices.DeleteFunc(slices.Clone(list), isIdle), nil
}

// version reads texts like `"252.39-1~deb12u1"` or "v255"; 0 for others.
func version(text string) int {
	text = strings.TrimPrefix(strings.Trim(text, `"`), "v")
	end := strings.IndexFunc(text, func(c rune) bool { return c < '0' || c > '9' })
	if end >= 0 {
		text = text[:end]
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

// deviceAllow is an entry of the property DeviceAllow.
type deviceAllow struct{ Path, Access string }

// deviceProperties are the device rules as systemd words them, for cgroup v1: its
// lists have one author, and systemd would allow everything when it writes them
// anew. On v2 a group may have several programs that decide on devices, and systemd
// leaves alone those that it has not made.
func deviceProperties(r *specs.LinuxResources) ([]dbus.Property, error) {
	if cgroup.Version() == 2 || r == nil || len(r.Devices) == 0 {
		return nil, nil
	}
	everything, exceptions, err := cgroup.DeviceList(r.Devices)
	if err != nil {
		return nil, err
	}
	if everything { // of exceptions from that systemd knows nothing
		return []dbus.Property{property("DevicePolicy", "auto"), property("DeviceAllow", []deviceAllow{})}, nil
	}
	allowed := []deviceAllow{}
	for _, e := range exceptions {
		kind := map[string]string{"c": "char", "b": "block"}[e.Kind]
		switch {
		case e.Major >= 0 && e.Minor >= 0:
			allowed = append(allowed, deviceAllow{fmt.Sprintf("/dev/%s/%d:%d", kind, e.Major, e.Minor), e.Access})
		case e.Major >= 0:
			allowed = append(allowed, deviceAllow{fmt.Sprintf("%s-%d", kind, e.Major), e.Access})
		case e.Minor < 0:
			allowed = append(allowed, deviceAllow{kind + "-*", e.Access})
		}
	}
	// An empty list in front: what there was before counts no more.
	return []dbus.Property{property("DevicePolicy", "strict"), property("DeviceAllow", []deviceAllow{}), property("DeviceAllow", allowed)}, nil
}
