package engine

import (
	"context"
	"slices"

	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/sdk/mount"
)

// remapped says whether a container has a user namespace of its own.
func (e *Engine) remapped(r container.Record) bool {
	return !e.Remap.Empty() && r.HostConfig.UsernsMode.IsPrivate()
}

// checkRemap refuses, in Docker's words, what a container with a user namespace
// may not have of the host.
func (e *Engine) checkRemap(h *mobycontainer.HostConfig) error {
	if e.Remap.Empty() || !h.UsernsMode.IsPrivate() {
		return nil
	}
	switch {
	case h.Privileged:
		return errInvalid.WithMessage("privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode")
	case h.NetworkMode.IsHost():
		return errInvalid.WithMessage("cannot share the host's network namespace when user namespaces are enabled")
	case h.PidMode.IsHost():
		return errInvalid.WithMessage("cannot share the host PID namespace when user namespaces are enabled")
	}
	return nil
}

// mapOwners has the runtime show the owners of a layer as the container's: the
// layer itself is the same with and without a user namespace.
func mapOwners(mounts []mount.Mount) []mount.Mount {
	mapped := slices.Clone(mounts)
	for i, m := range mapped {
		if m.Type == "overlay" || m.Type == "bind" {
			mapped[i].Options = append(slices.Clone(m.Options), "idmap")
		}
	}
	return mapped
}

// adoptNetns takes the network namespace that the runtime has made for a
// container.
func (e *Engine) adoptNetns(r container.Record, pid int, u *undo) (string, error) {
	path, err := e.Networks.AdoptNetns(r.ID, pid)
	if err == nil {
		u.add(func(context.Context) error { e.Networks.FreeNetns(r.ID); return nil })
	}
	return path, err
}
