// Package cdi finds the devices that vendors describe by the Container Device
// Interface (CNCF CDI) and puts them into containers' specs. Descriptions are read
// when they are asked for: nothing watches their directories.
package cdi

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// Devices are those described in some directories; those in later directories
// go before those in earlier ones. Without a directory there are none.
type Devices struct{ Dirs []string }

// Drivers that device requests name.
const (
	driverCDI    = "cdi"
	driverNVIDIA = "nvidia"
)

// nvidiaGPU is the kind of devices that --gpus means.
const nvidiaGPU = "nvidia.com/gpu"

func (d Devices) read() (*cdi.Cache, error) {
	cache, err := cdi.NewCache(cdi.WithSpecDirs(d.Dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return nil, fmt.Errorf("reading CDI specs: %w", err)
	}
	return cache, nil
}

// List answers the names of all devices, and what is wrong with files that
// should describe some.
func (d Devices) List() (names, problems []string) {
	if len(d.Dirs) == 0 {
		return nil, nil
	}
	cache, err := d.read()
	if err != nil {
		return nil, []string{err.Error()}
	}
	for path, list := range cache.GetErrors() {
		for _, err := range list {
			if !errors.Is(err, os.ErrNotExist) {
				problems = append(problems, fmt.Sprintf("CDI: %s: %v", path, err))
			}
		}
	}
	slices.Sort(problems)
	return cache.ListDevices(), problems
}

// Check refuses requests that no device can meet whatever is described, with
// ErrInvalidArgument.
func (d Devices) Check(requests []container.DeviceRequest) error {
	for _, r := range requests {
		switch {
		case r.Driver == driverCDI && len(d.Dirs) > 0:
			if r.Count != 0 {
				return invalid("unexpected count in CDI device request")
			}
			if len(r.Options) > 0 {
				return invalid("unexpected options in CDI device request")
			}
		case wantsGPU(r):
			if r.Count != 0 && len(r.DeviceIDs) > 0 {
				return invalid("cannot set both Count and DeviceIDs on device request")
			}
		default:
			return noDriver(r)
		}
	}
	return nil
}

// Inject gives a container the requested devices. ErrInvalidArgument names those
// that nobody describes.
func (d Devices) Inject(s *specs.Spec, requests []container.DeviceRequest) error {
	if len(requests) == 0 {
		return nil
	}
	if err := d.Check(requests); err != nil {
		return err
	}
	cache, err := d.read()
	if err != nil {
		return err
	}
	var names []string
	for _, r := range requests {
		if r.Driver == driverCDI {
			names = append(names, r.DeviceIDs...)
			continue
		}
		gpus, err := selectGPUs(cache.ListDevices(), r)
		if err != nil {
			return err
		}
		names = append(names, gpus...)
	}
	if _, err := cache.InjectDevices(s, names...); err != nil {
		return invalid("CDI device injection failed: %v", err)
	}
	return nil
}

// wantsGPU says whether a request is one of --gpus.
func wantsGPU(r container.DeviceRequest) bool {
	return (r.Driver == "" || r.Driver == driverNVIDIA) && slices.ContainsFunc(r.Capabilities, func(all []string) bool { return slices.Contains(all, "gpu") })
}

// selectGPUs names the devices of a request of --gpus: all, the first ones, or
// those with certain IDs.
func selectGPUs(known []string, r container.DeviceRequest) ([]string, error) {
	if !slices.ContainsFunc(known, func(name string) bool { return strings.HasPrefix(name, nvidiaGPU+"=") }) {
		return nil, noDriver(r)
	}
	ids := r.DeviceIDs
	switch {
	case r.Count < 0:
		ids = []string{"all"}
	case len(ids) == 0:
		for i := range r.Count {
			ids = append(ids, strconv.Itoa(i))
		}
	}
	var names []string
	for _, id := range ids {
		names = append(names, nvidiaGPU+"="+id)
	}
	return names, nil
}

func noDriver(r container.DeviceRequest) error {
	return invalid("could not select device driver %q with capabilities: %v", r.Driver, r.Capabilities)
}

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}
