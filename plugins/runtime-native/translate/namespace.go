package translate

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/fork"
	"github.com/davit-engine/davit/sdk/monitor/launch"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// namespaceFlags are the CLONE_NEW* flags by their name in the runtime-spec.
var namespaceFlags = map[specs.LinuxNamespaceType]int{
	specs.MountNamespace:   unix.CLONE_NEWNS,
	specs.PIDNamespace:     unix.CLONE_NEWPID,
	specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.IPCNamespace:     unix.CLONE_NEWIPC,
	specs.UTSNamespace:     unix.CLONE_NEWUTS,
	specs.CgroupNamespace:  unix.CLONE_NEWCGROUP,
	specs.UserNamespace:    unix.CLONE_NEWUSER,
	specs.TimeNamespace:    unix.CLONE_NEWTIME,
}

// find answers the spec's namespace of a kind; nil if the container has the
// runtime's.
func find(spec *specs.Spec, kind specs.LinuxNamespaceType) *specs.LinuxNamespace {
	for i := range spec.Linux.Namespaces {
		if spec.Linux.Namespaces[i].Type == kind {
			return &spec.Linux.Namespaces[i]
		}
	}
	return nil
}

func (t *Container) namespaces(spec *specs.Spec, container *sandbox.Container) error {
	seen := 0
	for _, n := range spec.Linux.Namespaces {
		flag, err := lookUp("linux.namespaces", namespaceFlags, n.Type)
		if err != nil {
			return err
		}
		if seen&flag != 0 {
			return invalid("linux.namespaces: %s is there twice", n.Type)
		}
		seen |= flag
		switch {
		case n.Path != "" && !path.IsAbs(n.Path):
			return invalid("linux.namespaces: path %q of the %s namespace is not absolute", n.Path, n.Type)
		case n.Path != "":
			t.Join = append(t.Join, launch.Join{Type: flag, Path: n.Path})
		case n.Type == specs.CgroupNamespace:
			container.Unshare |= flag
		case n.Type == specs.UserNamespace, n.Type == specs.TimeNamespace: // born into, not cloned
		default:
			t.CloneFlags |= uintptr(flag)
		}
	}
	if seen&unix.CLONE_NEWNS == 0 {
		return invalid("a container needs a mount namespace of its own")
	}
	t.OwnPID = seen&unix.CLONE_NEWPID != 0
	container.NetUp = t.CloneFlags&unix.CLONE_NEWNET != 0
	if err := t.userNamespace(spec); err != nil {
		return err
	}
	if err := t.timeNamespace(spec); err != nil {
		return err
	}
	if seen&(unix.CLONE_NEWUSER|unix.CLONE_NEWTIME) != 0 {
		// Only together, and before it is executed, can an exec enter these.
		t.Exec.Enter = sandbox.Namespaces | unix.CLONE_NEWTIME | seen&(unix.CLONE_NEWUSER|unix.CLONE_NEWPID)
		t.Exec.StreamOwner = t.Birth.StreamOwner
	}
	return nil
}

func (t *Container) userNamespace(spec *specs.Spec) error {
	n := find(spec, specs.UserNamespace)
	uids, gids := spec.Linux.UIDMappings, spec.Linux.GIDMappings
	if n == nil {
		if len(uids)+len(gids) > 0 {
			return invalid("linux.uidMappings and gidMappings need a user namespace")
		}
		return nil
	}
	t.user = true
	var err error
	if t.uids, err = idMaps("linux.uidMappings", uids); err != nil {
		return err
	}
	if t.gids, err = idMaps("linux.gidMappings", gids); err != nil {
		return err
	}
	if n.Path != "" {
		return nil // who made it has mapped it
	}
	root, ok := outside(t.uids, 0)
	if _, group := outside(t.gids, 0); !ok || !group {
		return invalid("linux.uidMappings and gidMappings of a new user namespace must map container ID 0")
	}
	t.Birth.UIDs, t.Birth.GIDs, t.Birth.StreamOwner = t.uids, t.gids, int(root)
	return nil
}

// ForExec completes the birth of an exec in a container, and takes from its stage
// what it is born with.
func ForExec(birth launch.Birth, stage *sandbox.Config) launch.Birth {
	if birth.Enter != 0 { // it is in the container before it could do anything
		stage.Join = 0
		birth.OOMScoreAdj, stage.Process.OOMScoreAdj, birth.Rlimits = stage.Process.OOMScoreAdj, nil, stage.Process.Rlimits
	}
	return birth
}

func idMaps(field string, list []specs.LinuxIDMapping) ([]fork.Map, error) {
	result := make([]fork.Map, 0, len(list))
	for _, m := range list {
		if m.Size == 0 || uint64(m.ContainerID)+uint64(m.Size) > 1<<32 || uint64(m.HostID)+uint64(m.Size) > 1<<32 {
			return nil, invalid("%s: %d IDs from %d on cannot be mapped to those from %d on", field, m.Size, m.ContainerID, m.HostID)
		}
		result = append(result, fork.Map{Inside: m.ContainerID, Outside: m.HostID, Size: m.Size})
	}
	return result, nil
}

// outside answers the host's ID for a container's.
func outside(list []fork.Map, id uint32) (uint32, bool) {
	for _, m := range list {
		if id >= m.Inside && uint64(id) < uint64(m.Inside)+uint64(m.Size) {
			return m.Outside + (id - m.Inside), true
		}
	}
	return 0, false
}

func (t *Container) timeNamespace(spec *specs.Spec) error {
	n := find(spec, specs.TimeNamespace)
	if n == nil || n.Path != "" {
		if len(spec.Linux.TimeOffsets) > 0 {
			return invalid("linux.timeOffsets need a new time namespace")
		}
		return nil
	}
	var offsets strings.Builder
	for _, clock := range slices.Sorted(maps.Keys(spec.Linux.TimeOffsets)) {
		offset := spec.Linux.TimeOffsets[clock]
		if clock != "monotonic" && clock != "boottime" {
			return invalid("linux.timeOffsets: clock %q is neither monotonic nor boottime", clock)
		}
		if offset.Nanosecs >= 1e9 {
			return invalid("linux.timeOffsets: %d nanoseconds of %s are a second or more", offset.Nanosecs, clock)
		}
		fmt.Fprintf(&offsets, "%s %d %d\n", clock, offset.Secs, offset.Nanosecs)
	}
	text := offsets.String()
	t.Birth.TimeOffsets = &text
	return nil
}

// mountable are the filesystems that a user namespace may mount; others, and
// binds of what only the host may reach, its parent does.
var mountable = []string{"tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup2", "ramfs"}

// privileges moves what a container in a user namespace may not do to its birth,
// and mounts with mapped owners to its parent.
func (t *Container) privileges(spec *specs.Spec, container *sandbox.Container, process *sandbox.Process) error {
	p := &sandbox.Preparation{Propagation: container.Propagation, Rootfs: container.Rootfs, OwnRoot: t.user}
	for _, m := range container.Root {
		p.OwnRoot = p.OwnRoot || m.IDMap != nil
	}
	if p.OwnRoot {
		p.Root, container.Root, container.PreparedRoot = container.Root, nil, true
	}
	for i := range container.Mounts {
		m := &container.Mounts[i]
		if t.user && m.Type == "sysfs" && t.CloneFlags&unix.CLONE_NEWNET == 0 {
			// A sysfs shows a network, and this one is not the container's to show.
			m.Type, m.Source, m.Recursive, m.Data = "bind", "/sys", true, nil
			m.SetAll, m.ClearAll, m.Set, m.Clear = m.Set|m.SetAll, m.Clear|m.ClearAll, 0, 0
		}
		foreign := m.Type == "bind" || !slices.Contains(mountable, m.Type)
		if !m.Link && !m.Remount && (m.IDMap != nil || t.user && foreign) {
			p.Mounts = append(p.Mounts, *m)
			m.Prepared = true
		}
	}
	if t.user {
		if err := t.devices(p, container.Devices); err != nil {
			return err
		}
		t.Birth.OOMScoreAdj, process.OOMScoreAdj = process.OOMScoreAdj, nil
		t.Birth.Rlimits = process.Rlimits
		if n := find(spec, specs.NetworkNamespace); n != nil && n.Path != "" {
			t.Birth.Sysctls = map[string]string{}
			for key, value := range container.Sysctls {
				if strings.HasPrefix(key, "net/") {
					t.Birth.Sysctls[key] = value
					delete(container.Sysctls, key)
				}
			}
		}
	}
	if container.Prepared = p.Count(); container.Prepared > 0 {
		t.Birth.Prepare = p
	}
	return nil
}

// devices has the parent make nodes, for owners as the host knows them.
func (t *Container) devices(p *sandbox.Preparation, devices []sandbox.Device) error {
	for i := range devices {
		d := devices[i]
		if len(t.uids) > 0 && len(t.gids) > 0 {
			uid, known := outside(t.uids, uint32(d.UID))
			gid, knownToo := outside(t.gids, uint32(d.GID))
			if !known || !knownToo {
				return invalid("device %s: owner %d:%d is not mapped", d.Path, d.UID, d.GID)
			}
			d.UID, d.GID = int(uid), int(gid)
		}
		p.Devices = append(p.Devices, d)
		devices[i].Prepared = true
	}
	return nil
}

// mapOwners gives a mount the map that its options or mappings ask for.
func (t *Container) mapOwners(m *sandbox.Mount, uids, gids []specs.LinuxIDMapping) error {
	if m.IDMap == nil && len(uids)+len(gids) == 0 {
		return nil
	}
	if m.IDMap == nil {
		m.IDMap = &sandbox.IDMap{}
	}
	if m.Type != "bind" && m.Type != "overlay" || m.Remount {
		return invalid("mount of %s: only binds can have ID mappings", m.Target)
	}
	if (len(uids) == 0) != (len(gids) == 0) {
		return invalid("mount of %s: uidMappings and gidMappings only go together", m.Target)
	}
	var err error
	if m.IDMap.UIDs, err = idMaps("uidMappings of the mount of "+m.Target, uids); err != nil {
		return err
	}
	if m.IDMap.GIDs, err = idMaps("gidMappings of the mount of "+m.Target, gids); err != nil {
		return err
	}
	if len(uids) == 0 {
		m.IDMap.UIDs, m.IDMap.GIDs = t.uids, t.gids
	}
	if len(m.IDMap.UIDs) == 0 || len(m.IDMap.GIDs) == 0 {
		return invalid("mount of %s: option idmap needs mappings, its own or those of the container's user namespace", m.Target)
	}
	return nil
}
