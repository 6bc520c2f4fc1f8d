package translate

import (
	"math"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

var rlimitNumbers = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE,
	"RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

// Process translates the process section of a spec: of an init or an exec.
// Capabilities that are unknown are left out ([UnknownCapabilities]).
func Process(p *specs.Process) (sandbox.Process, error) {
	result := sandbox.Process{
		Args: p.Args, Env: p.Env, Cwd: p.Cwd, Terminal: p.Terminal, UID: p.User.UID, GID: p.User.GID,
		Groups: p.User.AdditionalGids, Umask: p.User.Umask, NoNewPrivs: p.NoNewPrivileges, OOMScoreAdj: p.OOMScoreAdj,
	}
	if len(p.Args) == 0 {
		return result, invalid("process.args is empty")
	}
	if result.Cwd == "" {
		result.Cwd = "/"
	}
	if p.ConsoleSize != nil && p.ConsoleSize.Width <= math.MaxUint16 && p.ConsoleSize.Height <= math.MaxUint16 {
		result.Width, result.Height = uint16(p.ConsoleSize.Width), uint16(p.ConsoleSize.Height)
	}
	if !path.IsAbs(result.Cwd) {
		return result, invalid("process.cwd %q is not an absolute path", p.Cwd)
	}
	if p.OOMScoreAdj != nil && (*p.OOMScoreAdj < -1000 || *p.OOMScoreAdj > 1000) {
		return result, invalid("process.oomScoreAdj %d is not between -1000 and 1000", *p.OOMScoreAdj)
	}
	var err error
	if result.Rlimits, err = rlimits(p.Rlimits); err != nil {
		return result, err
	}
	if result.Scheduler, err = scheduler(p.Scheduler); err != nil {
		return result, err
	}
	if result.IOPriority, err = ioPriority(p.IOPriority); err != nil {
		return result, err
	}
	if err := labels(p, &result); err != nil {
		return result, err
	}
	// Without the section a process has none, as in runc.
	result.Caps = &sandbox.Caps{}
	if c := p.Capabilities; c != nil {
		caps := result.Caps
		for _, set := range []struct {
			names []string
			mask  *uint64
		}{{c.Bounding, &caps.Bounding}, {c.Effective, &caps.Effective}, {c.Permitted, &caps.Permitted}, {c.Inheritable, &caps.Inheritable}, {c.Ambient, &caps.Ambient}} {
			*set.mask, _ = capabilityMask(set.names)
		}
	}
	return result, nil
}

// capabilityNames in the order of their numbers (linux/capability.h).
var capabilityNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
	SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
	WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

func capabilityMask(names []string) (mask uint64, unknown []string) {
	for _, name := range names {
		i := slices.Index(capabilityNames, strings.TrimPrefix(name, "CAP_"))
		if i < 0 {
			unknown = append(unknown, name)
			continue
		}
		mask |= 1 << i
	}
	return mask, unknown
}

// UnknownCapabilities are those of a process that no kernel has: the
// runtime-spec wants a warning, not an error.
func UnknownCapabilities(p *specs.Process) []string {
	if p == nil || p.Capabilities == nil {
		return nil
	}
	c := p.Capabilities
	_, unknown := capabilityMask(slices.Concat(c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient))
	slices.Sort(unknown)
	return slices.Compact(unknown)
}

func rlimits(list []specs.POSIXRlimit) ([]sandbox.Rlimit, error) {
	var limits []sandbox.Rlimit
	for _, limit := range list {
		number, err := lookUp("process.rlimits", rlimitNumbers, limit.Type)
		switch {
		case err != nil:
			return nil, err
		case limit.Soft > limit.Hard:
			return nil, invalid("process.rlimits: the soft limit of %s is above the hard one", limit.Type)
		case slices.ContainsFunc(limits, func(l sandbox.Rlimit) bool { return l.Resource == number }):
			return nil, invalid("process.rlimits: %s is there twice", limit.Type)
		}
		limits = append(limits, sandbox.Rlimit{Resource: number, Soft: limit.Soft, Hard: limit.Hard})
	}
	return limits, nil
}
