package engine

import (
	"fmt"
	"path"
	"strings"

	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/davit-engine/davit/core/container"
)

// checkRequest refuses, in Docker's words, what a create request must not say,
// whatever the image is.
func checkRequest(c *mobycontainer.Config, h *mobycontainer.HostConfig) error {
	if c.StopSignal != "" {
		if _, err := parseSignal(c.StopSignal); err != nil {
			return err
		}
	}
	if h == nil {
		return nil
	}
	if err := checkModes(h); err != nil {
		return err
	}
	shared := h.NetworkMode.IsContainer()
	switch {
	case h.UTSMode.IsHost() && c.Hostname != "":
		return errInvalid.WithMessage("conflicting options: hostname and the UTS mode")
	case shared && c.Hostname != "":
		return errInvalid.WithMessage("conflicting options: hostname and the network mode")
	case shared && len(h.DNS) > 0:
		return errInvalid.WithMessage("conflicting options: dns and the network mode")
	case shared && len(h.ExtraHosts) > 0:
		return errInvalid.WithMessage("conflicting options: custom host-to-IP mapping and the network mode")
	case shared && (len(h.PortBindings) > 0 || h.PublishAllPorts):
		return errInvalid.WithMessage("conflicting options: port publishing and the container type network mode")
	case shared && len(c.ExposedPorts) > 0:
		return errInvalid.WithMessage("conflicting options: port exposing and the container type network mode")
	case !h.Isolation.IsValid():
		return errInvalid.WithMessage(fmt.Sprintf("invalid --isolation: %q - linux only supports 'default'", h.Isolation))
	case len(h.StorageOpt) > 0:
		// Quotas need a filesystem that keeps them, which no storage driver here asks for.
		return errInvalid.WithMessage("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
	}
	if _, ok := h.Annotations[""]; ok {
		return errInvalid.WithMessage("invalid Annotations: the empty string is not permitted as an annotation key")
	}
	for target := range h.Tmpfs {
		if path.Clean(target) == "/" {
			return errInvalid.WithMessage("invalid specification: destination can't be '/'")
		}
	}
	return nil
}

// checkModes refuses namespaces that do not exist.
func checkModes(h *mobycontainer.HostConfig) error {
	for _, mode := range []struct {
		valid       bool
		kind, value string
	}{
		{h.IpcMode.Valid(), "IPC", string(h.IpcMode)}, {h.PidMode.Valid(), "PID", string(h.PidMode)}, {h.UTSMode.Valid(), "UTS", string(h.UTSMode)},
		{h.UsernsMode.Valid(), "user namespace", string(h.UsernsMode)}, {h.CgroupnsMode.Valid(), "cgroup namespace", string(h.CgroupnsMode)},
	} {
		if !mode.valid {
			return errInvalid.WithMessage(fmt.Sprintf("invalid %s mode: %s", mode.kind, mode.value))
		}
	}
	return nil
}

// systemdDriver is the cgroup driver that has systemd make cgroups.
const systemdDriver = "systemd"

// checkCgroupParent refuses what systemd could not find a container's slice by.
func (e *Engine) checkCgroupParent(h *mobycontainer.HostConfig) error {
	const suffix = ".slice"
	if h == nil || e.CgroupDriver != systemdDriver {
		return nil
	}
	if parent := h.CgroupParent; parent != "" && (len(parent) <= len(suffix) || !strings.HasSuffix(parent, suffix)) {
		return errInvalid.WithMessage(`cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`)
	}
	return nil
}

// shareNamespaces words "container:NAME" as "container:ID": names may change.
// Whether that container runs only matters at start.
func (e *Engine) shareNamespaces(h *mobycontainer.HostConfig) {
	id := func(ref string) string {
		other, err := e.containers.Find(ref)
		if err != nil {
			return "container:" + ref
		}
		return "container:" + other.ID
	}
	if h.PidMode.IsContainer() {
		h.PidMode = mobycontainer.PidMode(id(h.PidMode.Container()))
	}
	if h.IpcMode.IsContainer() {
		h.IpcMode = mobycontainer.IpcMode(id(h.IpcMode.Container()))
	}
}

// limits fills in and checks what a container may use at most; the warnings say
// what this host cannot hold it to.
func (e *Engine) limits(r *container.Record) (warnings []string, err error) {
	host := *r.HostConfig
	r.HostConfig = &host
	if host.Memory > 0 && host.MemorySwap == 0 {
		host.MemorySwap = 2 * host.Memory // as much swap as memory
	}
	if host.CPUShares > 0 {
		host.CPUShares = min(max(host.CPUShares, minShares), maxShares)
	}
	if host.OomKillDisable == nil {
		host.OomKillDisable = new(bool)
	}
	host.Resources, warnings, err = e.kernel.Fit(host.Resources)
	return warnings, err
}

// What the kernel takes as CPU shares.
const (
	minShares = 2
	maxShares = 1 << 18
)
