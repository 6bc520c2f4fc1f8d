// Package spec turns a container's Docker configuration into a complete OCI
// runtime-spec, with Docker's defaults. A runtime never sees Docker's words; what
// it does not do is asked of no other package.
package spec

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/core/userns"
)

// Input is everything a container's spec depends on.
type Input struct {
	ID                   string
	Hostname, Domainname string
	Config               *container.Config     // merged with the image's
	HostConfig           *container.HostConfig // defaults filled in
	Passwd, Group        []byte                // the image's files; nil if it has none
	CgroupPath           string
	Netns, PIDNS, IPCNS  string // namespaces to join, by path
	HostNetwork          bool
	Init                 string // host's path of an init to run the command under; empty: none
	HostPID, HostIPC     bool
	HostUTS              bool
	HostCgroupns         bool
	IDs                  user.IdentityMapping // of a user namespace; empty: the host's
	UserNS               string               // that of another container with the same IDs, by path; empty: a new one
	Shm                  string               // host's directory to mount as /dev/shm; empty: a tmpfs of its own
	Mounts               []specs.Mount        // besides the defaults
	AppArmor             string               // profile of containers that name none
}

// Build makes the spec. Errors are ErrInvalidArgument and say which setting is
// wrong.
func Build(in Input) (*specs.Spec, error) {
	host := in.HostConfig
	security, err := parseSecurity(host.SecurityOpt)
	if err != nil {
		return nil, err
	}
	process, err := buildProcess(processInput{
		config: in.Config, host: host, security: security, apparmor: in.AppArmor, passwd: in.Passwd, group: in.Group,
		args: arguments(in), user: in.Config.User, cwd: in.Config.WorkingDir,
		terminal: in.Config.Tty, size: &host.ConsoleSize, privileged: host.Privileged, hostname: in.Hostname, env: in.Config.Env,
	})
	if err != nil {
		return nil, err
	}
	resources, err := Resources(host.Resources)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version: specs.Version, Process: process, Domainname: in.Domainname, Annotations: host.Annotations,
		Root:  &specs.Root{Path: "rootfs", Readonly: host.ReadonlyRootfs},
		Linux: &specs.Linux{CgroupsPath: in.CgroupPath, Resources: resources, Namespaces: namespaces(in)},
	}
	if !in.HostUTS {
		s.Hostname = in.Hostname
	}
	if !in.IDs.Empty() {
		s.Linux.UIDMappings, s.Linux.GIDMappings = userns.Mappings(in.IDs.UIDMaps), userns.Mappings(in.IDs.GIDMaps)
	}
	if s.Linux.Sysctl, err = sysctls(in); err != nil {
		return nil, err
	}
	if err := addDevices(s, host); err != nil {
		return nil, err
	}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = hiddenPaths(host)
	s.Mounts = mounts(in, host.Privileged || security.writableCgroups)
	s.Linux.RootfsPropagation = rootPropagation(in.Mounts)
	if s.Linux.Seccomp, err = security.profile(s, host.Privileged); err != nil {
		return nil, err
	}
	return s, nil
}

// initPath is where a container finds its init: Docker's place.
const initPath = "/sbin/docker-init"

// arguments are the command's, behind those of the init if there is one.
func arguments(in Input) []string {
	args := slices.Concat(in.Config.Entrypoint, in.Config.Cmd)
	if in.Init == "" || len(args) == 0 {
		return args
	}
	return slices.Concat([]string{initPath, "--"}, args)
}

// Marshal is the spec as JSON.
func Marshal(s *specs.Spec) ([]byte, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("writing the OCI spec: %w", err)
	}
	return body, nil
}

func namespaces(in Input) []specs.LinuxNamespace {
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	add := func(kind specs.LinuxNamespaceType, host bool, path string) {
		if !host {
			list = append(list, specs.LinuxNamespace{Type: kind, Path: path})
		}
	}
	add(specs.NetworkNamespace, in.HostNetwork, in.Netns)
	add(specs.PIDNamespace, in.HostPID, in.PIDNS)
	add(specs.IPCNamespace, in.HostIPC, in.IPCNS)
	add(specs.UTSNamespace, in.HostUTS, "")
	add(specs.UserNamespace, in.IDs.Empty(), in.UserNS)
	mode := in.HostConfig.CgroupnsMode
	// As in Docker: private where there is one hierarchy, the host's on v1.
	private := mode.IsPrivate() || mode.IsEmpty() && cgroups.Mode() == cgroups.Unified
	add(specs.CgroupNamespace, in.HostCgroupns || !private, "")
	return list
}

// sysctls are Docker's two network defaults and the user's, which may only touch
// what is the container's own.
func sysctls(in Input) (map[string]string, error) {
	values := map[string]string{}
	ownNetwork := !in.HostNetwork && !in.HostConfig.NetworkMode.IsContainer()
	if ownNetwork {
		values["net.ipv4.ip_unprivileged_port_start"] = "0"
		if in.IDs.Empty() { // the kernel takes no groups that are not mapped
			values["net.ipv4.ping_group_range"] = "0 2147483647"
		}
	}
	for key, value := range in.HostConfig.Sysctls {
		name := strings.ReplaceAll(key, "/", ".")
		switch {
		case strings.HasPrefix(name, "net."):
			if in.HostNetwork {
				return nil, invalid("sysctl '%s' not allowed in host network namespace", key)
			}
		case strings.HasPrefix(name, "fs.mqueue."), slices.Contains(ipcSysctls, name):
			if in.HostIPC {
				return nil, invalid("sysctl '%s' not allowed in host ipc namespace", key)
			}
		case name == "kernel.domainname":
			if in.HostUTS {
				return nil, invalid("sysctl '%s' not allowed in host uts namespace", key)
			}
		default:
			return nil, invalid("sysctl '%s' is not in a separate kernel namespace", key)
		}
		values[name] = value
	}
	return values, nil
}

var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// maskedPaths and readonlyPaths are what moby's oci package hides of proc and
// sysfs.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func hiddenPaths(host *container.HostConfig) (masked, readonly []string) {
	if host.Privileged {
		return nil, nil
	}
	masked, readonly = maskedPaths, readonlyPaths
	if host.MaskedPaths != nil {
		masked = host.MaskedPaths
	}
	if host.ReadonlyPaths != nil {
		readonly = host.ReadonlyPaths
	}
	return masked, readonly
}

// defaultMounts are those of the runtime-spec's Linux containers, in the order
// in which they have to be made.
func defaultMounts(in Input, writableCgroups bool) []specs.Mount {
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", in.HostConfig.ShmSize)}},
	}
	for i := range list {
		m := &list[i]
		switch {
		case in.HostConfig.Privileged && m.Type == "sysfs", writableCgroups && m.Type == "cgroup":
			m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
		case in.HostIPC && (m.Destination == "/dev/shm" || m.Destination == "/dev/mqueue"):
			*m = specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Destination, Options: []string{"rbind", "nosuid", "noexec", "nodev"}}
		}
	}
	if in.Shm != "" {
		list[len(list)-1] = specs.Mount{Destination: "/dev/shm", Type: "bind", Source: in.Shm, Options: []string{"rbind", "nosuid", "noexec", "nodev"}}
	}
	if in.HostConfig.IpcMode.IsNone() {
		list = slices.DeleteFunc(list, func(m specs.Mount) bool { return m.Destination == "/dev/shm" })
	}
	return list
}

// mounts are the defaults that the user does not replace, the user's, and the
// init.
func mounts(in Input, writableCgroups bool) []specs.Mount {
	own := map[string]bool{}
	for _, m := range in.Mounts {
		own[path.Clean(m.Destination)] = true
	}
	list := slices.DeleteFunc(defaultMounts(in, writableCgroups), func(m specs.Mount) bool {
		// A /dev of the user's own has no use for what is mounted below it.
		return own[m.Destination] || own["/dev"] && strings.HasPrefix(m.Destination, "/dev/")
	})
	list = append(list, in.Mounts...)
	if in.Init != "" {
		list = append(list, specs.Mount{Destination: initPath, Type: "bind", Source: in.Init, Options: []string{"bind", "ro"}})
	}
	return list
}

// rootPropagation is the widest that one of the mounts needs.
func rootPropagation(list []specs.Mount) string {
	wanted := ""
	for _, m := range list {
		for _, option := range m.Options {
			switch mount.Propagation(option) {
			case mount.PropagationShared, mount.PropagationRShared:
				return "shared"
			case mount.PropagationSlave, mount.PropagationRSlave:
				wanted = "rslave"
			default:
			}
		}
	}
	return wanted
}

// mergeEnv gives each variable its last value; an entry without "=" removes one.
func mergeEnv(lists ...[]string) []string {
	var keys []string
	values := map[string]string{}
	for entry := range slices.Values(slices.Concat(lists...)) {
		key, _, set := strings.Cut(entry, "=")
		if _, known := values[key]; !known && set {
			keys = append(keys, key)
		}
		values[key] = entry
		if !set {
			delete(values, key)
			keys = slices.DeleteFunc(keys, func(k string) bool { return k == key })
		}
	}
	env := make([]string, 0, len(keys))
	for _, key := range keys {
		env = append(env, values[key])
	}
	return env
}

// defaultDevices are what every container may open, as in moby's default spec:
// making any node is allowed, opening only these.
func defaultDeviceRules() []specs.LinuxDeviceCgroup {
	number := func(n int64) *int64 { return &n }
	rules := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"}, {Allow: true, Type: "b", Access: "m"},
		{Allow: true, Type: "c", Major: number(136), Access: "rwm"}, // pts
	}
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}} {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(d[0]), Minor: number(d[1]), Access: "rwm"})
	}
	return rules
}

var rlimitNames = func() map[string]string {
	names := map[string]string{}
	for _, name := range []string{"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"} {
		names[name] = "RLIMIT_" + strings.ToUpper(name)
	}
	return names
}()

func rlimits(list []*container.Ulimit) ([]specs.POSIXRlimit, error) {
	var limits []specs.POSIXRlimit
	for _, u := range list {
		if u == nil {
			return nil, invalid("invalid ulimit: null")
		}
		name, ok := rlimitNames[strings.ToLower(u.Name)]
		if !ok {
			return nil, invalid("invalid ulimit type: %s (known: %s)", u.Name, strings.Join(slices.Sorted(maps.Keys(rlimitNames)), ", "))
		}
		if u.Hard >= 0 && (u.Soft > u.Hard || u.Soft < 0) {
			return nil, invalid("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
		limits = append(limits, specs.POSIXRlimit{Type: name, Hard: uint64(u.Hard), Soft: uint64(u.Soft)})
	}
	return limits, nil
}
