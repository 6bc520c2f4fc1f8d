// Package translate turns OCI runtime-specs into what monitor and stage do: the
// configuration of package sandbox and how package launch gives birth to it.
// What this runtime cannot do is an error that names it; nothing is ignored that
// changes what a container may do.
package translate

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/sdk/monitor/fork"
	"github.com/davit-engine/davit/sdk/monitor/launch"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
	"github.com/davit-engine/davit/sdk/mount"
)

// Container is a spec in the words of stage and launch.
type Container struct {
	Stage      sandbox.Config
	CloneFlags uintptr
	Join       []launch.Join
	// OwnPID says that execs have to enter a pid namespace.
	OwnPID bool
	// Birth and Exec are how init and execs are born.
	Birth, Exec launch.Birth

	user       bool // it has a user namespace, with these maps if they are known
	uids, gids []fork.Map
}

// Spec translates a complete OCI spec but for its seccomp section. The root
// filesystem is mounted from rootfs over the host's directory root; without any
// mounts that directory is it.
func Spec(spec *specs.Spec, rootfs []mount.Mount, root string, group *cgroup.Group) (*Container, error) {
	if spec.Process == nil || len(spec.Process.Args) == 0 {
		return nil, fmt.Errorf("process.args is empty: %w", errdefs.ErrInvalidArgument)
	}
	if spec.Linux == nil {
		return nil, fmt.Errorf("linux section is missing: %w", errdefs.ErrInvalidArgument)
	}
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	t := &Container{}
	container := &sandbox.Container{
		Hostname: spec.Hostname, Domainname: spec.Domainname,
		Rootfs:      root,
		Propagation: unix.MS_SLAVE | unix.MS_REC,
		ReadOnly:    spec.Root != nil && spec.Root.Readonly,
		Masked:      spec.Linux.MaskedPaths, ReadOnlyIn: spec.Linux.ReadonlyPaths,
	}
	if err := t.namespaces(spec, container); err != nil {
		return nil, err
	}
	if p := spec.Linux.RootfsPropagation; p != "" {
		flag, err := lookUp("linux.rootfsPropagation", propagation, p)
		if err != nil {
			return nil, err
		}
		container.Propagation, container.RootPropagation = flag&^unix.MS_UNBINDABLE|unix.MS_REC, flag
		if flag&unix.MS_UNBINDABLE != 0 {
			container.Propagation |= unix.MS_PRIVATE // what cannot be bound could not be a bind's source
		}
	}
	var err error
	if container.Sysctls, err = sysctls(spec); err != nil {
		return nil, err
	}
	for _, m := range rootfs {
		converted, err := convertMount(m.Type, m.Source, m.Target, m.Options)
		if err != nil {
			return nil, err
		}
		if err := t.mapOwners(&converted, nil, nil); err != nil {
			return nil, err
		}
		container.Root = append(container.Root, converted)
	}
	if err := t.mounts(spec, container, group); err != nil {
		return nil, err
	}
	if err := errors.Join(labelMounts(spec.Linux.MountLabel, container.Root), labelMounts(spec.Linux.MountLabel, container.Mounts)); err != nil {
		return nil, err
	}
	if container.Devices, err = convertDevices(spec.Linux.Devices); err != nil {
		return nil, err
	}
	if container.KeepDev {
		container.Devices = nil // nodes made there would be made on the host
	}
	process, err := Process(spec.Process)
	if err != nil {
		return nil, err
	}
	if process.Personality, err = personality(spec.Linux.Personality); err != nil {
		return nil, err
	}
	if process.MemoryPolicy, err = memoryPolicy(spec.Linux.MemoryPolicy); err != nil {
		return nil, err
	}
	if err := t.privileges(spec, container, &process); err != nil {
		return nil, err
	}
	t.Stage = sandbox.Config{Container: container, Process: process}
	return t, nil
}

// checkSpec refuses what is nonsense or cannot be done.
func checkSpec(spec *specs.Spec) error {
	if v := spec.Version; v != "" && !strings.HasPrefix(v, "1.") {
		return invalid("ociVersion %q is not 1.x", v)
	}
	uts := slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UTSNamespace })
	if spec.Hostname != "" && !uts {
		return invalid("hostname cannot be set without a UTS namespace")
	}
	if spec.Domainname != "" && !uts {
		return invalid("domainname cannot be set without a UTS namespace")
	}
	for _, list := range [][]string{spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths} {
		for _, p := range list {
			if !path.IsAbs(p) {
				return invalid("masked or read-only path %q is not absolute", p)
			}
		}
	}
	return nil
}

func (t *Container) mounts(spec *specs.Spec, container *sandbox.Container, group *cgroup.Group) error {
	for _, m := range spec.Mounts {
		if m.Destination == "" {
			return invalid("a mount of type %q has no destination", m.Type)
		}
		m.Destination = path.Clean("/" + m.Destination)
		if m.Type == "cgroup" || m.Type == "cgroup2" {
			container.Mounts = append(container.Mounts, cgroupMounts(m, group, t.cgroupNamespace(spec))...)
			continue
		}
		converted, err := convertMount(m.Type, m.Source, m.Destination, m.Options)
		if err != nil {
			return err
		}
		if err := t.mapOwners(&converted, m.UIDMappings, m.GIDMappings); err != nil {
			return err
		}
		if m.Destination == "/dev" && converted.Type == "bind" {
			container.KeepDev = true
		}
		container.Mounts = append(container.Mounts, converted)
	}
	return nil
}

func (t *Container) cgroupNamespace(spec *specs.Spec) bool {
	return slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
}
