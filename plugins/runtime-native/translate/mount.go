package translate

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
	"github.com/davit-engine/davit/sdk/runtime"
)

// propagation are the mount options that say who sees a mount's mounts.
var propagation = map[string]uintptr{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// change is what an option does to the attributes of a mount.
type change struct{ set, clear uint64 }

// attributes are the options of one mount; with "r" before them they apply to
// all mounts below it, too.
var attributes = map[string]change{
	"ro": {set: unix.MOUNT_ATTR_RDONLY}, "rw": {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid": {set: unix.MOUNT_ATTR_NOSUID}, "suid": {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev": {set: unix.MOUNT_ATTR_NODEV}, "dev": {clear: unix.MOUNT_ATTR_NODEV},
	"noexec": {set: unix.MOUNT_ATTR_NOEXEC}, "exec": {clear: unix.MOUNT_ATTR_NOEXEC},
	"nodiratime": {set: unix.MOUNT_ATTR_NODIRATIME}, "diratime": {clear: unix.MOUNT_ATTR_NODIRATIME},
	"nosymfollow": {set: unix.MOUNT_ATTR_NOSYMFOLLOW}, "symfollow": {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
	// One field of three values: the kernel wants all of it cleared to set one.
	"noatime":       {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	"strictatime":   {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"relatime":      {clear: unix.MOUNT_ATTR__ATIME},
	"atime":         {clear: unix.MOUNT_ATTR__ATIME},
	"nostrictatime": {clear: unix.MOUNT_ATTR__ATIME},
	"norelatime":    {},
}

// superblock are the options that a filesystem has once for all its mounts; a
// bind mount cannot change them and ignores them, as mount(8) does.
var superblock = []string{"sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"}

// ignored are options without a meaning for the kernel here: defaults, how loud
// it is, inode versions (which filesystems keep without being asked), and words of
// Docker that the engine has acted on.
var ignored = []string{"defaults", "silent", "loud", "iversion", "noiversion", "z", "Z", "nocopy"}

// Options are all mount options with a meaning of their own; all others are the
// filesystem's.
func Options() []string {
	list := slices.Concat([]string{"bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"}, superblock, ignored[:5])
	for name := range propagation {
		list = append(list, name)
	}
	for name := range attributes {
		list = append(list, name, "r"+name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// apply changes a pair of sets; what comes later wins.
func (c change) apply(set, clear *uint64) {
	*set, *clear = *set&^c.clear|c.set, *clear&^c.set|c.clear
	if c.set&unix.MOUNT_ATTR__ATIME != 0 {
		*clear |= unix.MOUNT_ATTR__ATIME
	}
}

// Mount translates a mount of a spec whose owners are not mapped.
func Mount(m specs.Mount) (sandbox.Mount, error) {
	return convertMount(m.Type, m.Source, m.Destination, m.Options)
}

func convertMount(kind, source, target string, options []string) (sandbox.Mount, error) {
	m := sandbox.Mount{Type: kind, Source: source, Target: target}
	m.Recursive = slices.Contains(options, "rbind")
	m.Remount = slices.Contains(options, "remount")
	if m.Recursive || slices.Contains(options, "bind") || kind == "none" && !m.Remount {
		m.Type = "bind"
	}
	if m.Type == "" && !m.Remount {
		return m, fmt.Errorf("mount of %s has no type: %w", target, errdefs.ErrInvalidArgument)
	}
	for _, option := range options {
		if err := addOption(&m, option); err != nil {
			return m, err
		}
	}
	if m.Type == "bind" && !m.Remount && !filepath.IsAbs(source) {
		return m, fmt.Errorf("bind source %q is not an absolute path: %w", source, errdefs.ErrInvalidArgument)
	}
	if m.CopyUp && m.Type != "tmpfs" {
		return m, fmt.Errorf("mount option tmpcopyup of %s is for tmpfs only: %w", target, errdefs.ErrInvalidArgument)
	}
	return m, nil
}

func addOption(m *sandbox.Mount, option string) error {
	if c, ok := attributes[option]; ok {
		c.apply(&m.Set, &m.Clear)
		if (option == "ro" || option == "rw") && m.Type != "bind" && (filepath.IsAbs(m.Source) || m.Remount) {
			// A device's filesystem must not be written to at all, not only through this
			// mount.
			m.Data = append(m.Data, option)
		}
		return nil
	}
	if c, ok := attributes[strings.TrimPrefix(option, "r")]; ok {
		c.apply(&m.SetAll, &m.ClearAll)
		return nil
	}
	if flag, ok := propagation[option]; ok {
		m.Propagation = append(m.Propagation, flag)
		return nil
	}
	if subdir, ok := strings.CutPrefix(option, runtime.SubdirOption); ok {
		if m.Type != "bind" || !filepath.IsLocal(subdir) {
			return fmt.Errorf("mount option %q of %s: %w", option, m.Target, errdefs.ErrInvalidArgument)
		}
		m.Subdir = subdir
		return nil
	}
	switch {
	case option == "tmpcopyup":
		m.CopyUp = true
	case option == "idmap", option == "ridmap":
		m.IDMap = &sandbox.IDMap{Recursive: option == "ridmap"}
	case option == "bind", option == "rbind", option == "remount", slices.Contains(ignored, option):
	case option == "":
		return fmt.Errorf("an option of the mount of %s is empty: %w", m.Target, errdefs.ErrInvalidArgument)
	case m.Type == "bind" && (slices.Contains(superblock, option) || strings.Contains(option, "=")):
		// A filesystem's, and the filesystem is there already.
	case m.Type == "bind":
		return fmt.Errorf("mount option %q of %s is not supported for a bind mount: %w", option, m.Target, errdefs.ErrInvalidArgument)
	default:
		m.Data = append(m.Data, option)
	}
	return nil
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
		// With all below it: a hierarchy of somebody's own may be mounted there.
		return []sandbox.Mount{{Type: "bind", Source: "/sys/fs/cgroup", Target: m.Destination, Recursive: true, SetAll: set}}
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
	if readOnly {
		mounts = append(mounts, sandbox.Mount{Type: "bind", Remount: true, Target: m.Destination, Set: unix.MOUNT_ATTR_RDONLY})
	}
	return mounts
}
