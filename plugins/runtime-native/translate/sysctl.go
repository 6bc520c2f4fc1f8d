package translate

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ipcSysctls are those that an IPC namespace has for itself (ipc_namespaces(7)).
var ipcSysctls = []string{
	"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced",
	"kernel/auto_msgmni", "kernel/msg_next_id", "kernel/sem_next_id", "kernel/shm_next_id",
}

// sysctls answers values by their path below /proc/sys. A key that belongs to no
// namespace of the container would change the host and is an error.
func sysctls(spec *specs.Spec) (map[string]string, error) {
	if len(spec.Linux.Sysctl) == 0 {
		return nil, nil
	}
	own := func(kind specs.LinuxNamespaceType) bool {
		return slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
	}
	result := make(map[string]string, len(spec.Linux.Sysctl))
	for key, value := range spec.Linux.Sysctl {
		path := sysctlPath(key)
		var needs specs.LinuxNamespaceType
		switch {
		case path == "" || path[0] == '/' || slices.Contains(strings.Split(path, "/"), ".."):
			return nil, invalid("sysctl %q is not a key", key)
		case strings.HasPrefix(path, "net/"):
			needs = specs.NetworkNamespace
		case strings.HasPrefix(path, "fs/mqueue/"), slices.Contains(ipcSysctls, path):
			needs = specs.IPCNamespace
		case path == "kernel/domainname":
			needs = specs.UTSNamespace
		case path == "kernel/hostname":
			if spec.Hostname != "" {
				return nil, invalid("sysctl %q conflicts with the spec's hostname", key)
			}
			needs = specs.UTSNamespace
		case strings.HasPrefix(path, "user/"):
			needs = specs.UserNamespace
		default:
			return nil, invalid("sysctl %q is not in a separate kernel namespace", key)
		}
		if !own(needs) {
			return nil, invalid("sysctl %q is not allowed without a %s namespace of the container's own", key, needs)
		}
		result[path] = value
	}
	return result, nil
}

// sysctlPath turns a key into a path as sysctl(8) does: the first separator,
// "." or "/", is the key's, and the other one is part of a name.
func sysctlPath(key string) string {
	i := strings.IndexAny(key, "./")
	if i < 0 || key[i] == '/' {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}
