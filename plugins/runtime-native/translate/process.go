package translate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
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
func Process(p *specs.Process) (sandbox.Process, error) {
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
