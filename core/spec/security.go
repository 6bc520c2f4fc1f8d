package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/profiles/seccomp"
	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultCapabilities are Docker's.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// knownCapabilities names all that the kernel has; available are those of them
// that this process may hand on.
var knownCapabilities = sync.OnceValues(func() (known, available []string) {
	list, err := capability.ListSupported()
	if err != nil {
		list = capability.ListKnown()
	}
	own, err := capability.NewPid2(0)
	if err == nil {
		err = own.Load()
	}
	for _, c := range list {
		name := "CAP_" + strings.ToUpper(c.String())
		known = append(known, name)
		if err != nil || own.Get(capability.BOUNDING, c) {
			available = append(available, name)
		}
	}
	return known, available
})

// capabilities applies --cap-add and --cap-drop; "ALL" is a name, "CAP_" may be
// left out.
func capabilities(privileged bool, add, drop []string) ([]string, error) {
	known, available := knownCapabilities()
	normalize := func(option string, names []string) (list []string, all bool, err error) {
		for _, name := range names {
			upper := strings.ToUpper(name)
			if upper == "ALL" {
				all = true
				continue
			}
			if !strings.HasPrefix(upper, "CAP_") {
				upper = "CAP_" + upper
			}
			if !slices.Contains(known, upper) {
				return nil, false, invalid("invalid %s: unknown capability: %q", option, name)
			}
			list = append(list, upper)
		}
		return list, all, nil
	}
	added, addAll, err := normalize("CapAdd", add)
	if err != nil {
		return nil, err
	}
	dropped, dropAll, err := normalize("CapDrop", drop)
	if err != nil {
		return nil, err
	}
	var base []string
	switch {
	case privileged:
		return available, nil
	case addAll:
		base = available
	case !dropAll:
		base = defaultCapabilities
	}
	caps := []string{}
	for _, name := range known {
		wanted := slices.Contains(base, name) && !slices.Contains(dropped, name) || slices.Contains(added, name)
		if wanted && slices.Contains(available, name) {
			caps = append(caps, name)
		}
	}
	return caps, nil
}

// security is what --security-opt says.
type security struct {
	noNewPrivileges bool
	writableCgroups bool
	apparmor        string // "": the default, unconfined, or a profile's name
	seccomp         string // "": Docker's profile, "unconfined", or a profile's JSON
}

func parseSecurity(options []string) (security, error) {
	var s security
	for _, option := range options {
		if option == "disable" { // an old way to say label=disable
			continue
		}
		key, value, found := strings.Cut(option, "=")
		if !found {
			key, value, found = strings.Cut(option, ":")
		}
		if !found && key != "no-new-privileges" {
			return s, invalid("invalid --security-opt 1: %q", option)
		}
		switch key {
		case "no-new-privileges":
			s.noNewPrivileges = true
			if found {
				on, err := strconv.ParseBool(value)
				if err != nil {
					return s, invalid("invalid --security-opt 2: %q", option)
				}
				s.noNewPrivileges = on
			}
		case "writable-cgroups":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return s, invalid("invalid --security-opt 2: %q", option)
			}
			s.writableCgroups = on
		case "seccomp":
			s.seccomp = value
			if value == "builtin" {
				s.seccomp = ""
			}
		case "label":
			if value != "disable" {
				return s, fmt.Errorf("--security-opt %s: SELinux labels are not supported: %w", option, errdefs.ErrNotImplemented)
			}
		case "apparmor":
			s.apparmor = value
		default:
			// systempaths=unconfined is the client's word for empty MaskedPaths and
			// ReadonlyPaths.
			return s, invalid("invalid --security-opt 2: %q", option)
		}
	}
	return s, nil
}

// unconfined is Docker's word for no profile.
const unconfined = "unconfined"

// apparmorProfile is the AppArmor profile of a process, empty or unconfined for none.
func (s security) apparmorProfile(privileged bool, ofOthers string) string {
	switch {
	case s.apparmor != "":
		return s.apparmor
	case privileged && ofOthers != "":
		return unconfined
	}
	return ofOthers
}

// AppArmorProfile is the profile that a container has as inspect shows it, where those
// that name none have ofOthers.
func AppArmorProfile(host *container.HostConfig, ofOthers string) string {
	s, err := parseSecurity(host.SecurityOpt)
	if err != nil {
		return ""
	}
	return s.apparmorProfile(host.Privileged, ofOthers)
}

// profiles holds Docker's default profile for each set of capabilities: it is
// the same for nearly every container, and takes longer to make than to use.
var profiles sync.Map // of *specs.LinuxSeccomp by the capabilities' names

// profile is the seccomp section for a container with the spec's capabilities.
func (s security) profile(built *specs.Spec, privileged bool) (*specs.LinuxSeccomp, error) {
	switch {
	case s.seccomp == "unconfined", privileged && s.seccomp == "":
		return nil, nil
	case s.seccomp != "":
		section, err := seccomp.LoadProfile(s.seccomp, built)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		return section, nil
	}
	key := strings.Join(built.Process.Capabilities.Bounding, " ")
	if known, ok := profiles.Load(key); ok {
		return known.(*specs.LinuxSeccomp), nil
	}
	section, err := seccomp.GetDefaultProfile(built)
	if err != nil {
		return nil, fmt.Errorf("making the default seccomp profile: %w", err)
	}
	profiles.Store(key, section)
	return section, nil
}
