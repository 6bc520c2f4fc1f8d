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
)

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
