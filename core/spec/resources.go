package spec

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// minMemory is the least memory limit Docker accepts: less does not start.
const minMemory = 6 << 20

// Resources turns Docker's limits into the runtime-spec's, and refuses with
// Docker's words what cannot be (ErrInvalidArgument).
func Resources(r container.Resources) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{Devices: defaultDeviceRules()}
	for _, rule := range r.DeviceCgroupRules {
		parsed, err := parseDeviceRule(rule)
		if err != nil {
			return nil, err
		}
		out.Devices = append(out.Devices, parsed)
	}
	var err error
	if out.Memory, err = memory(r); err != nil {
		return nil, err
	}
	if out.CPU, err = cpu(r); err != nil {
		return nil, err
	}
	if out.BlockIO, err = blockIO(r); err != nil {
		return nil, err
	}
	if _, err := rlimits(r.Ulimits); err != nil {
		return nil, err
	}
	if r.PidsLimit != nil && *r.PidsLimit != 0 {
		limit := max(*r.PidsLimit, -1)
		out.Pids = &specs.LinuxPids{Limit: &limit}
	}
	return out, nil
}

func memory(r container.Resources) (*specs.LinuxMemory, error) {
	switch {
	case r.Memory != 0 && r.Memory < minMemory:
		return nil, invalid("Minimum memory limit allowed is 6MB")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return nil, invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0:
		return nil, invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemoryReservation != 0 && r.MemoryReservation < minMemory:
		return nil, invalid("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return nil, invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < -1 || *r.MemorySwappiness > 100):
		return nil, invalid("Invalid value: %d, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	}
	m := specs.LinuxMemory{}
	if r.Memory > 0 {
		m.Limit = &r.Memory
		swap := 2 * r.Memory // as much swap as memory
		m.Swap = &swap
	}
	if r.MemorySwap != 0 {
		m.Swap = &r.MemorySwap
	}
	if r.MemoryReservation > 0 {
		m.Reservation = &r.MemoryReservation
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		value := uint64(*r.MemorySwappiness)
		m.Swappiness = &value
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		m.DisableOOMKiller = r.OomKillDisable
	}
	if m == (specs.LinuxMemory{}) {
		return nil, nil
	}
	return &m, nil
}

func cpu(r container.Resources) (*specs.LinuxCPU, error) {
	switch {
	case r.NanoCPUs > 0 && (r.CPUPeriod > 0 || r.CPUQuota > 0):
		return nil, invalid("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
	case r.NanoCPUs < 0 || r.NanoCPUs > int64(runtime.NumCPU())*1e9:
		return nil, invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", runtime.NumCPU(), runtime.NumCPU())
	case r.CPUShares < 0:
		return nil, invalid("shares value %d is less than 0", r.CPUShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return nil, invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return nil, invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	c := specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CPUShares > 0 {
		shares := max(uint64(r.CPUShares), 2)
		c.Shares = &shares
	}
	if r.NanoCPUs > 0 {
		period, quota := uint64(100_000), r.NanoCPUs/10_000 // 1e9 is one CPU: 100 ms of each 100 ms
		if quota < 1000 {
			return nil, invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", runtime.NumCPU(), runtime.NumCPU())
		}
		c.Period, c.Quota = &period, &quota
	}
	if r.CPUPeriod > 0 {
		period := uint64(r.CPUPeriod)
		c.Period = &period
	}
	if r.CPUQuota != 0 {
		c.Quota = &r.CPUQuota
	}
	if r.CPURealtimePeriod > 0 {
		period := uint64(r.CPURealtimePeriod)
		c.RealtimePeriod = &period
	}
	if r.CPURealtimeRuntime > 0 {
		c.RealtimeRuntime = &r.CPURealtimeRuntime
	}
	if c == (specs.LinuxCPU{}) {
		return nil, nil
	}
	return &c, nil
}

func blockIO(r container.Resources) (*specs.LinuxBlockIO, error) {
	if r.BlkioWeight != 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return nil, invalid("Range of blkio weight is from 10 to 1000")
	}
	b := &specs.LinuxBlockIO{}
	used := false
	if r.BlkioWeight > 0 {
		b.Weight, used = &r.BlkioWeight, true
	}
	for _, w := range r.BlkioWeightDevice {
		if w == nil {
			return nil, invalid("invalid block IO weight: null")
		}
		major, minor, err := blockDevice(w.Path)
		if err != nil {
			return nil, err
		}
		if w.Weight < 10 || w.Weight > 1000 {
			return nil, invalid("Range of blkio weight is from 10 to 1000")
		}
		device := specs.LinuxWeightDevice{Weight: &w.Weight}
		device.Major, device.Minor = major, minor
		b.WeightDevice, used = append(b.WeightDevice, device), true
	}
	for _, limit := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &b.ThrottleReadBpsDevice}, {r.BlkioDeviceWriteBps, &b.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &b.ThrottleReadIOPSDevice}, {r.BlkioDeviceWriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range limit.from {
			if d == nil {
				return nil, invalid("invalid block IO limit: null")
			}
			major, minor, err := blockDevice(d.Path)
			if err != nil {
				return nil, err
			}
			device := specs.LinuxThrottleDevice{Rate: d.Rate}
			device.Major, device.Minor = major, minor
			*limit.to, used = append(*limit.to, device), true
		}
	}
	if !used {
		return nil, nil
	}
	return b, nil
}

func blockDevice(path string) (major, minor int64, err error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return 0, 0, invalid("%s: %v", path, err)
	}
	return int64(unix.Major(stat.Rdev)), int64(unix.Minor(stat.Rdev)), nil
}

var deviceRule = regexp.MustCompile(`^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$`)

func parseDeviceRule(rule string) (specs.LinuxDeviceCgroup, error) {
	parts := deviceRule.FindStringSubmatch(rule)
	if parts == nil {
		return specs.LinuxDeviceCgroup{}, invalid("invalid device cgroup rule format: '%s'", rule)
	}
	out := specs.LinuxDeviceCgroup{Allow: true, Type: parts[1], Access: parts[4]}
	for i, to := range []**int64{&out.Major, &out.Minor} {
		if text := parts[2+i]; text != "*" {
			number, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return out, invalid("invalid device cgroup rule format: '%s'", rule)
			}
			*to = &number
		}
	}
	return out, nil
}

// addDevices gives a container the host's devices that it asked for; a privileged
// one gets all.
func addDevices(s *specs.Spec, host *container.HostConfig) error {
	if host.Privileged {
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		all, err := devicesBelow("/dev", "/dev", skippedDevices)
		if err != nil {
			return fmt.Errorf("listing the host's devices: %w", err)
		}
		s.Linux.Devices = all
	}
	for _, d := range host.Devices {
		inside := d.PathInContainer
		if inside == "" {
			inside = d.PathOnHost
		}
		access := d.CgroupPermissions
		if access == "" {
			access = "rwm"
		}
		if strings.Trim(access, "rwm") != "" {
			return invalid("error gathering device information while adding custom device %q: invalid cgroup permissions %q", d.PathOnHost, access)
		}
		list, err := devicesBelow(d.PathOnHost, inside, nil)
		if err == nil && len(list) == 0 {
			err = fmt.Errorf("not a device node")
		}
		if err != nil {
			return invalid("error gathering device information while adding custom device %q: %v", d.PathOnHost, err)
		}
		for _, device := range list {
			s.Linux.Devices = append(s.Linux.Devices, device)
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
				Allow: true, Type: device.Type, Major: &device.Major, Minor: &device.Minor, Access: access,
			})
		}
	}
	return nil
}

// skippedDevices are the container's own, or other processes'.
var skippedDevices = []string{"pts", "shm", "fd", "mqueue", "console", "ptmx", ".udev", ".lxc", ".lxd-mounts"}

// devicesBelow is the device node at a path, or all below a directory.
func devicesBelow(root, inside string, skip []string) ([]specs.LinuxDevice, error) {
	var list []specs.LinuxDevice
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest := strings.TrimPrefix(strings.TrimPrefix(name, root), "/")
		for _, skipped := range skip {
			if rest == skipped && entry.IsDir() {
				return filepath.SkipDir
			}
			if rest == skipped {
				return nil
			}
		}
		if entry.Type()&fs.ModeDevice == 0 {
			return nil
		}
		var stat unix.Stat_t
		if err := unix.Lstat(name, &stat); err != nil {
			return err
		}
		mode := os.FileMode(stat.Mode & 0o777)
		device := specs.LinuxDevice{
			Path: filepath.Join(inside, rest), Type: "b", Major: int64(unix.Major(stat.Rdev)), Minor: int64(unix.Minor(stat.Rdev)),
			FileMode: &mode, UID: &stat.Uid, GID: &stat.Gid,
		}
		if entry.Type()&fs.ModeCharDevice != 0 {
			device.Type = "c"
		}
		list = append(list, device)
		return nil
	})
	return list, err
}
