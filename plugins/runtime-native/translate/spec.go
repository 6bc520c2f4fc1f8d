// Package translate turns OCI runtime-specs into what monitor and stage do: the
// configuration of package sandbox and how package launch gives birth to it.
// What this runtime cannot do is an error that names it; nothing is ignored that
// changes what a container may do.
package translate

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/sdk/monitor/launch"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
	"github.com/davit-engine/davit/sdk/mount"
)

// namespaceFlags are the CLONE_NEW* flags by their name in the runtime-spec.
var namespaceFlags = map[specs.LinuxNamespaceType]int{
	specs.MountNamespace:   unix.CLONE_NEWNS,
	specs.PIDNamespace:     unix.CLONE_NEWPID,
	specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.IPCNamespace:     unix.CLONE_NEWIPC,
	specs.UTSNamespace:     unix.CLONE_NEWUTS,
	specs.CgroupNamespace:  unix.CLONE_NEWCGROUP,
}

// Container is a spec in the words of stage and launch.
type Container struct {
	Stage      sandbox.Config
	CloneFlags uintptr
	Join       []launch.Join
	// OwnPID says that execs have to enter a pid namespace.
	OwnPID bool
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
	if spec.Hooks != nil && (len(spec.Hooks.CreateRuntime)+len(spec.Hooks.CreateContainer)+len(spec.Hooks.StartContainer)+len(spec.Hooks.Poststart)+len(spec.Hooks.Poststop)+len(spec.Hooks.Prestart) > 0) { //nolint:staticcheck // Prestart is deprecated but still set by callers
		return nil, fmt.Errorf("hooks are not supported by runtime native yet: %w", errdefs.ErrNotImplemented)
	}
	if len(spec.Linux.UIDMappings)+len(spec.Linux.GIDMappings) > 0 {
		return nil, fmt.Errorf("user namespaces are not supported by runtime native yet: %w", errdefs.ErrNotImplemented)
	}
	t := &Container{}
	container := &sandbox.Container{
		Hostname: spec.Hostname, Domainname: spec.Domainname,
		Rootfs:      root,
		Propagation: unix.MS_SLAVE | unix.MS_REC,
		ReadOnly:    spec.Root != nil && spec.Root.Readonly,
		Masked:      spec.Linux.MaskedPaths, ReadOnlyIn: spec.Linux.ReadonlyPaths,
		Sysctls: spec.Linux.Sysctl,
	}
	if err := t.namespaces(spec, container); err != nil {
		return nil, err
	}
	if p := spec.Linux.RootfsPropagation; p != "" {
		flag, ok := propagation[p]
		if !ok {
			return nil, fmt.Errorf("rootfsPropagation %q is unknown: %w", p, errdefs.ErrInvalidArgument)
		}
		container.Propagation = flag | unix.MS_REC
	}
	for _, m := range rootfs {
		converted, err := convertMount(m.Type, m.Source, m.Target, m.Options)
		if err != nil {
			return nil, err
		}
		container.Root = append(container.Root, converted)
	}
	for _, m := range spec.Mounts {
		if m.Type == "cgroup" {
			container.Mounts = append(container.Mounts, cgroupMounts(m, group, t.cgroupNamespace(spec))...)
			continue
		}
		converted, err := convertMount(m.Type, m.Source, m.Destination, m.Options)
		if err != nil {
			return nil, err
		}
		container.Mounts = append(container.Mounts, converted)
	}
	devices, err := convertDevices(spec.Linux.Devices)
	if err != nil {
		return nil, err
	}
	container.Devices = devices
	process, err := Process(spec.Process)
	if err != nil {
		return nil, err
	}
	t.Stage = sandbox.Config{Container: container, Process: process}
	return t, nil
}

func (t *Container) cgroupNamespace(spec *specs.Spec) bool {
	return slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
}

func (t *Container) namespaces(spec *specs.Spec, container *sandbox.Container) error {
	mountNamespace := false
	for _, n := range spec.Linux.Namespaces {
		flag, ok := namespaceFlags[n.Type]
		if !ok {
			return fmt.Errorf("namespace %q is not supported by runtime native yet: %w", n.Type, errdefs.ErrNotImplemented)
		}
		switch {
		case n.Path != "" && (n.Type == specs.MountNamespace || n.Type == specs.CgroupNamespace):
			return fmt.Errorf("joining a %s namespace by path is not supported by runtime native: %w", n.Type, errdefs.ErrNotImplemented)
		case n.Path != "":
			t.Join = append(t.Join, launch.Join{Type: flag, Path: n.Path})
			t.OwnPID = t.OwnPID || n.Type == specs.PIDNamespace
		case n.Type == specs.CgroupNamespace:
			container.Unshare |= flag
		default:
			t.CloneFlags |= uintptr(flag)
			mountNamespace = mountNamespace || n.Type == specs.MountNamespace
			t.OwnPID = t.OwnPID || n.Type == specs.PIDNamespace
			container.NetUp = container.NetUp || n.Type == specs.NetworkNamespace
		}
	}
	if !mountNamespace {
		return fmt.Errorf("a container needs a mount namespace of its own: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}
