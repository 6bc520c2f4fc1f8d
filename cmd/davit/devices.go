package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

// readDevices reads --device, which names a node of the host or a device of the
// Container Device Interface, and --gpus.
func (f *createFlags) readDevices() error {
	var named []string
	for _, text := range f.devices {
		if parser.IsQualifiedName(text) {
			named = append(named, text)
			continue
		}
		d, err := parseDevice(text)
		if err != nil {
			return fmt.Errorf("invalid argument %q for \"--device\" flag: %w", text, err)
		}
		f.host.Devices = append(f.host.Devices, d)
	}
	if len(named) > 0 {
		f.host.DeviceRequests = append(f.host.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: named})
	}
	if f.gpus != "" {
		request, err := parseGPUs(f.gpus)
		if err != nil {
			return fmt.Errorf("invalid argument %q for \"--gpus\" flag: %w", f.gpus, err)
		}
		f.host.DeviceRequests = append(f.host.DeviceRequests, request)
	}
	f.host.DeviceCgroupRules = f.deviceRules
	return nil
}

// parseDevice reads "host[:container][:permissions]".
func parseDevice(text string) (container.DeviceMapping, error) {
	parts := strings.Split(text, ":")
	d := container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	if len(parts) > 3 || parts[0] == "" {
		return d, fmt.Errorf("bad format for path: %s", text)
	}
	switch {
	case len(parts) == 3 && !permissions(parts[2]):
		return d, fmt.Errorf("bad mode specified: %s", parts[2])
	case len(parts) == 3:
		d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
	case len(parts) == 2 && permissions(parts[1]):
		d.CgroupPermissions = parts[1]
	case len(parts) == 2:
		d.PathInContainer = parts[1]
	}
	if !path.IsAbs(d.PathInContainer) {
		return d, fmt.Errorf("%s is not an absolute path", d.PathInContainer)
	}
	return d, nil
}

// permissions says whether a text is made of r, w and m, each once at most.
func permissions(text string) bool {
	return text != "" && strings.Trim(text, "rwm") == "" && strings.Count(text, "r") < 2 && strings.Count(text, "w") < 2 && strings.Count(text, "m") < 2
}

// parseGPUs reads "all", a number, or the comma separated fields of --gpus.
func parseGPUs(text string) (container.DeviceRequest, error) {
	r := container.DeviceRequest{Capabilities: [][]string{{"gpu"}}, Options: map[string]string{}}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return r, err
	}
	seen := map[string]bool{}
	for _, field := range fields {
		key, value, has := strings.Cut(field, "=")
		if !has {
			key, value = "count", field
		}
		if seen[key] {
			return r, fmt.Errorf("gpu request key '%s' can be specified only once", key)
		}
		seen[key] = true
		switch key {
		case "count":
			if r.Count, err = strconv.Atoi(value); value == "all" {
				r.Count, err = -1, nil
			}
			if err != nil {
				return r, errors.New("count must be an integer")
			}
		case "driver":
			r.Driver = value
		case "device":
			r.DeviceIDs = strings.Split(value, ",")
		case "capabilities":
			r.Capabilities = [][]string{append(strings.Split(value, ","), "gpu")}
		case "options":
			options, err := csv.NewReader(strings.NewReader(value)).Read()
			if err != nil {
				return r, fmt.Errorf("failed to read gpu options: %w", err)
			}
			r.Options = pairs(options)
		default:
			return r, fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		}
	}
	if !seen["count"] && r.DeviceIDs == nil {
		r.Count = 1
	}
	return r, nil
}

// readRates reads the limits of block devices.
func (f *createFlags) readRates() error {
	r := &f.host.Resources
	for _, text := range f.blkioWeights {
		device, weight, ok := strings.Cut(text, ":")
		value, err := strconv.ParseUint(weight, 10, 16)
		switch {
		case !ok || device == "":
			return fmt.Errorf("bad format: %s", text)
		case !strings.HasPrefix(device, "/dev/"):
			return fmt.Errorf("bad format for device path: %s", text)
		case err != nil || value > 0 && (value < 10 || value > 1000):
			return fmt.Errorf("invalid weight for device: %s", text)
		}
		r.BlkioWeightDevice = append(r.BlkioWeightDevice, &blkiodev.WeightDevice{Path: device, Weight: uint16(value)})
	}
	for _, limit := range []struct {
		from  []string
		bytes bool
		to    *[]*blkiodev.ThrottleDevice
	}{{f.readBps, true, &r.BlkioDeviceReadBps}, {f.writeBps, true, &r.BlkioDeviceWriteBps}, {f.readIOps, false, &r.BlkioDeviceReadIOps}, {f.writeIOps, false, &r.BlkioDeviceWriteIOps}} {
		for _, text := range limit.from {
			device, rate, ok := strings.Cut(text, ":")
			value, err := strconv.ParseInt(rate, 10, 64)
			unit := ". Number must be a positive integer"
			if limit.bytes {
				value, err = units.RAMInBytes(rate)
				unit = "[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
			}
			switch {
			case !ok || device == "":
				return fmt.Errorf("bad format: %s", text)
			case !strings.HasPrefix(device, "/dev/"):
				return fmt.Errorf("bad format for device path: %s", text)
			case err != nil || value < 0:
				return fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>%s", text, unit)
			}
			*limit.to = append(*limit.to, &blkiodev.ThrottleDevice{Path: device, Rate: uint64(value)})
		}
	}
	return nil
}
