package translate

import (
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// standardDevices are those every container has (runtime-spec, "Default
// Devices").
var standardDevices = []sandbox.Device{
	{Path: "/dev/null", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 3},
	{Path: "/dev/zero", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 5},
	{Path: "/dev/full", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 7},
	{Path: "/dev/random", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 8},
	{Path: "/dev/urandom", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 9},
	{Path: "/dev/tty", Mode: unix.S_IFCHR | 0o666, Major: 5, Minor: 0},
}

// Highest numbers of a device (linux/kdev_t.h).
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

func convertDevices(list []specs.LinuxDevice) ([]sandbox.Device, error) {
	devices := slices.Clone(standardDevices)
	for _, d := range list {
		if !path.IsAbs(d.Path) || path.Clean(d.Path) == "/" {
			return nil, invalid("device path %q is not absolute", d.Path)
		}
		if d.Type != "p" && (d.Major < 0 || d.Major > maxMajor || d.Minor < 0 || d.Minor > maxMinor) {
			return nil, invalid("device %s has impossible numbers %d:%d", d.Path, d.Major, d.Minor)
		}
		device := sandbox.Device{Path: d.Path, Major: uint32(d.Major), Minor: uint32(d.Minor), Mode: 0o666}
		if d.FileMode != nil {
			device.Mode = uint32(*d.FileMode) & 0o7777
		}
		if d.UID != nil {
			device.UID = int(*d.UID)
		}
		if d.GID != nil {
			device.GID = int(*d.GID)
		}
		switch d.Type {
		case "c", "u":
			device.Mode |= unix.S_IFCHR
		case "b":
			device.Mode |= unix.S_IFBLK
		case "p":
			device.Mode |= unix.S_IFIFO
		default:
			return nil, invalid("device %s has unknown type %q", d.Path, d.Type)
		}
		if i := slices.IndexFunc(devices, func(known sandbox.Device) bool { return known.Path == d.Path }); i >= 0 {
			devices[i] = device
			continue
		}
		devices = append(devices, device)
	}
	return devices, nil
}
