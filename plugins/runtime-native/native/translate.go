package native

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
	"github.com/davit-engine/davit/sdk/monitor/supervise"
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

// translation is a spec in the words of monitor and stage.
type translation struct {
	stage      sandbox.Config
	cloneFlags uintptr
	join       []supervise.Join
	ownPID     bool
}

// translate turns a complete OCI spec into what monitor and stage do. What the
// runtime cannot do is an error that names it.
func translate(spec *specs.Spec, rootfs []mount.Mount, dir string, group *cgroup.Group) (*translation, error) {
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
	t := &translation{}
	container := &sandbox.Container{
		Hostname: spec.Hostname, Domainname: spec.Domainname,
		Rootfs:      filepath.Join(dir, rootfsName),
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
	process, err := convertProcess(spec.Process)
	if err != nil {
		return nil, err
	}
	t.stage = sandbox.Config{Container: container, Process: process}
	return t, nil
}

func (t *translation) cgroupNamespace(spec *specs.Spec) bool {
	return slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
}

func (t *translation) namespaces(spec *specs.Spec, container *sandbox.Container) error {
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
			t.join = append(t.join, supervise.Join{Type: flag, Path: n.Path})
			t.ownPID = t.ownPID || n.Type == specs.PIDNamespace
		case n.Type == specs.CgroupNamespace:
			container.Unshare |= flag
		default:
			t.cloneFlags |= uintptr(flag)
			mountNamespace = mountNamespace || n.Type == specs.MountNamespace
			t.ownPID = t.ownPID || n.Type == specs.PIDNamespace
			container.NetUp = container.NetUp || n.Type == specs.NetworkNamespace
		}
	}
	if !mountNamespace {
		return fmt.Errorf("a container needs a mount namespace of its own: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// Mount options by what they set. An option with neither is the filesystem's.
var (
	propagation = map[string]uintptr{
		"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
		"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
		"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
		"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
	}
	setAttribute = map[string]uint64{
		"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV, "noexec": unix.MOUNT_ATTR_NOEXEC,
		"nodiratime": unix.MOUNT_ATTR_NODIRATIME, "nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
		"noatime": unix.MOUNT_ATTR_NOATIME, "strictatime": unix.MOUNT_ATTR_STRICTATIME, "relatime": unix.MOUNT_ATTR_RELATIME,
	}
	clearAttribute = map[string]uint64{
		"rw": unix.MOUNT_ATTR_RDONLY, "suid": unix.MOUNT_ATTR_NOSUID, "dev": unix.MOUNT_ATTR_NODEV, "exec": unix.MOUNT_ATTR_NOEXEC,
		"diratime": unix.MOUNT_ATTR_NODIRATIME, "symfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
	}
	setRecursive = map[string]uint64{
		"rro": unix.MOUNT_ATTR_RDONLY, "rnosuid": unix.MOUNT_ATTR_NOSUID, "rnodev": unix.MOUNT_ATTR_NODEV, "rnoexec": unix.MOUNT_ATTR_NOEXEC,
	}
	ignored = []string{"defaults", "bind", "rbind", "norelatime", "nostrictatime", "atime", "async", "z", "Z", "nocopy", "private-copy"}
)

const atimeModes = unix.MOUNT_ATTR_NOATIME | unix.MOUNT_ATTR_STRICTATIME | unix.MOUNT_ATTR_RELATIME

func convertMount(kind, source, target string, options []string) (sandbox.Mount, error) {
	m := sandbox.Mount{Type: kind, Source: source, Target: target}
	if slices.Contains(options, "bind") || slices.Contains(options, "rbind") || kind == "none" {
		m.Type = "bind"
	}
	if m.Type == "" {
		return m, fmt.Errorf("mount of %s has no type: %w", target, errdefs.ErrInvalidArgument)
	}
	m.Recursive = slices.Contains(options, "rbind")
	for _, option := range options {
		if flag, ok := setAttribute[option]; ok {
			if flag&atimeModes != 0 || option == "relatime" {
				m.Clear |= unix.MOUNT_ATTR__ATIME
			}
			m.Set |= flag
			continue
		}
		if flag, ok := clearAttribute[option]; ok {
			m.Clear |= flag
			continue
		}
		if flag, ok := setRecursive[option]; ok {
			m.SetAll |= flag
			continue
		}
		if flag, ok := propagation[option]; ok {
			m.Propagation = flag
			continue
		}
		switch {
		case option == "tmpcopyup":
			m.CopyUp = true
		case slices.Contains(ignored, option):
		case m.Type == "bind":
			return m, fmt.Errorf("mount option %q of %s is not supported for a bind mount: %w", option, target, errdefs.ErrInvalidArgument)
		default:
			m.Data = append(m.Data, option)
		}
	}
	m.Clear &^= m.Set
	if m.Set&atimeModes != 0 {
		m.Clear |= unix.MOUNT_ATTR__ATIME // the kernel wants the whole field cleared to set one
	}
	if m.Type == "bind" && !filepath.IsAbs(source) {
		return m, fmt.Errorf("bind source %q is not an absolute path: %w", source, errdefs.ErrInvalidArgument)
	}
	return m, nil
}

// cgroupMounts shows a container its cgroups, read-only unless asked otherwise:
// on v2 the one hierarchy, on v1 a tmpfs with one bind (or, with a cgroup
// namespace, one mount) for each hierarchy.
func cgroupMounts(m specs.Mount, group *cgroup.Group, namespaced bool) []sandbox.Mount {
	var set uint64 = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	readOnly := slices.Contains(m.Options, "ro")
	if readOnly {
		set |= unix.MOUNT_ATTR_RDONLY
	}
	if group.Version() == 2 {
		if namespaced {
			return []sandbox.Mount{{Type: "cgroup2", Source: "cgroup", Target: m.Destination, Set: set}}
		}
		return []sandbox.Mount{{Type: "bind", Source: "/sys/fs/cgroup", Target: m.Destination, Recursive: true, Set: set}}
	}
	mounts := []sandbox.Mount{{Type: "tmpfs", Source: "tmpfs", Target: m.Destination, Set: set &^ unix.MOUNT_ATTR_RDONLY, Data: []string{"mode=755"}}}
	for _, file := range group.JoinPaths() {
		dir := filepath.Dir(file) // /sys/fs/cgroup/<hierarchy>/.../<id>
		rest := strings.TrimPrefix(dir, "/sys/fs/cgroup/")
		hierarchy, _, _ := strings.Cut(rest, "/")
		mounts = append(mounts, sandbox.Mount{Type: "bind", Source: dir, Target: path.Join(m.Destination, hierarchy), Set: set})
		for name := range strings.SplitSeq(hierarchy, ",") {
			if name != hierarchy {
				mounts = append(mounts, sandbox.Mount{Link: true, Source: hierarchy, Target: path.Join(m.Destination, name)})
			}
		}
	}
	return mounts
}

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

func convertDevices(list []specs.LinuxDevice) ([]sandbox.Device, error) {
	devices := slices.Clone(standardDevices)
	for _, d := range list {
		device := sandbox.Device{Path: d.Path, Major: uint32(d.Major), Minor: uint32(d.Minor), Mode: 0o666}
		if d.FileMode != nil {
			device.Mode = uint32(d.FileMode.Perm())
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
			return nil, fmt.Errorf("device %s has unknown type %q: %w", d.Path, d.Type, errdefs.ErrInvalidArgument)
		}
		if i := slices.IndexFunc(devices, func(known sandbox.Device) bool { return known.Path == d.Path }); i >= 0 {
			devices[i] = device
			continue
		}
		devices = append(devices, device)
	}
	return devices, nil
}

var rlimitNumbers = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE,
	"RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

func convertProcess(p *specs.Process) (sandbox.Process, error) {
	result := sandbox.Process{
		Args: p.Args, Env: p.Env, Cwd: p.Cwd, Terminal: p.Terminal, UID: p.User.UID, GID: p.User.GID,
		Groups: p.User.AdditionalGids, Umask: p.User.Umask, NoNewPrivs: p.NoNewPrivileges, OOMScoreAdj: p.OOMScoreAdj,
	}
	if len(p.Args) == 0 {
		return result, fmt.Errorf("process.args is empty: %w", errdefs.ErrInvalidArgument)
	}
	if result.Cwd == "" {
		result.Cwd = "/"
	}
	if p.ConsoleSize != nil {
		result.Width, result.Height = uint16(p.ConsoleSize.Width), uint16(p.ConsoleSize.Height)
	}
	for _, limit := range p.Rlimits {
		number, ok := rlimitNumbers[limit.Type]
		if !ok {
			return result, fmt.Errorf("rlimit %q is unknown: %w", limit.Type, errdefs.ErrInvalidArgument)
		}
		result.Rlimits = append(result.Rlimits, sandbox.Rlimit{Resource: number, Soft: limit.Soft, Hard: limit.Hard})
	}
	if c := p.Capabilities; c != nil {
		caps := &sandbox.Caps{}
		for _, set := range []struct {
			names []string
			mask  *uint64
		}{{c.Bounding, &caps.Bounding}, {c.Effective, &caps.Effective}, {c.Permitted, &caps.Permitted}, {c.Inheritable, &caps.Inheritable}, {c.Ambient, &caps.Ambient}} {
			mask, err := capabilityMask(set.names)
			if err != nil {
				return result, err
			}
			*set.mask = mask
		}
		result.Caps = caps
	}
	return result, nil
}

// capabilityNames in the order of their numbers (linux/capability.h).
var capabilityNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
	SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
	WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

func capabilityMask(names []string) (uint64, error) {
	var mask uint64
	for _, name := range names {
		i := slices.Index(capabilityNames, strings.TrimPrefix(name, "CAP_"))
		if i < 0 {
			return 0, fmt.Errorf("capability %q is unknown: %w", name, errdefs.ErrInvalidArgument)
		}
		mask |= 1 << i
	}
	return mask, nil
}
