// Package seccomp compiles the seccomp section of an OCI runtime-spec into the
// classic BPF program that the kernel runs on each system call (seccomp(2)).
// System call numbers come from github.com/elastic/go-seccomp-bpf/arch; its own
// assembler knows neither masked comparisons nor errno values, both of which
// Docker's default profile needs, so the program is laid out here: a jump for
// the architecture, a binary search over the numbers, then argument rules.
package seccomp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/elastic/go-seccomp-bpf/arch"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// architectures are those whose programs a host of the given GOARCH can run.
var architectures = map[string][]*arch.Info{
	"amd64": {arch.X86_64, arch.X32, arch.I386},
	"arm64": {arch.AARCH64, arch.ARM},
	"386":   {arch.I386},
	"arm":   {arch.ARM},
}

// ociNames are the architectures of the runtime-spec. Those without a table are
// no host's that this package knows, and so without effect.
var ociNames = map[specs.Arch]*arch.Info{
	specs.ArchX86_64: arch.X86_64, specs.ArchX32: arch.X32, specs.ArchX86: arch.I386,
	specs.ArchAARCH64: arch.AARCH64, specs.ArchARM: arch.ARM,
	specs.ArchMIPS: nil, specs.ArchMIPS64: nil, specs.ArchMIPS64N32: nil, specs.ArchMIPSEL: nil, specs.ArchMIPSEL64: nil, specs.ArchMIPSEL64N32: nil,
	specs.ArchPPC: nil, specs.ArchPPC64: nil, specs.ArchPPC64LE: nil, specs.ArchS390: nil, specs.ArchS390X: nil, specs.ArchPARISC: nil, specs.ArchPARISC64: nil,
	specs.ArchRISCV64: nil, specs.ArchLOONGARCH64: nil, specs.ArchM68K: nil, specs.ArchSH: nil, specs.ArchSHEB: nil,
}

// Compile answers the program as an array of struct sock_filter and the flags
// for seccomp(2). Unknown system calls are left out, as in every runtime: a
// profile names calls of all architectures. An unknown action, operator or flag
// is ErrInvalidArgument.
func Compile(section *specs.LinuxSeccomp) (program []byte, flags uint, err error) {
	return compileFor(section, runtime.GOARCH)
}

// Notifies says whether a filter asks a listener.
func Notifies(section *specs.LinuxSeccomp) bool {
	return slices.ContainsFunc(section.Syscalls, func(s specs.LinuxSyscall) bool { return s.Action == specs.ActNotify })
}

func compileFor(section *specs.LinuxSeccomp, host string) (program []byte, flags uint, err error) {
	native := architectures[host]
	if len(native) == 0 {
		return nil, 0, fmt.Errorf("seccomp on %s: %w", host, errdefs.ErrNotImplemented)
	}
	if err := checkListener(section); err != nil {
		return nil, 0, err
	}
	if flags, err = flagBits(section.Flags); err != nil {
		return nil, 0, err
	}
	if !Notifies(section) {
		flags &^= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV // the kernel refuses it without a listener
	}
	fallback, err := action(section.DefaultAction, section.DefaultErrnoRet)
	if err != nil {
		return nil, 0, err
	}
	byNumberSpace, err := tables(section, native, fallback)
	if err != nil {
		return nil, 0, err
	}
	raw, err := bpf.Assemble(layout(byNumberSpace))
	if err != nil {
		return nil, 0, fmt.Errorf("assembling the seccomp program: %w", err)
	}
	if len(raw) > unix.BPF_MAXINSNS {
		return nil, 0, fmt.Errorf("the seccomp profile needs %d instructions, the kernel takes %d: %w", len(raw), unix.BPF_MAXINSNS, errdefs.ErrInvalidArgument)
	}
	var out bytes.Buffer
	for _, i := range raw {
		// struct sock_filter { __u16 code; __u8 jt, jf; __u32 k; }
		if err := binary.Write(&out, binary.NativeEndian, struct {
			Code   uint16
			JT, JF uint8
			K      uint32
		}{i.Op, i.Jt, i.Jf, i.K}); err != nil {
			return nil, 0, err
		}
	}
	return out.Bytes(), flags, nil
}

var flagNames = map[specs.LinuxSeccompFlag]uint{
	specs.LinuxSeccompFlagLog:              unix.SECCOMP_FILTER_FLAG_LOG,
	specs.LinuxSeccompFlagSpecAllow:        unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
	specs.LinuxSeccompFlagWaitKillableRecv: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
	"SECCOMP_FILTER_FLAG_TSYNC":            0, // execve leaves only the thread that has the filter
}

// checkListener refuses listeners that nothing can come of, as runc does.
func checkListener(section *specs.LinuxSeccomp) error {
	switch {
	case section.DefaultAction == specs.ActNotify:
		return fmt.Errorf("SCMP_ACT_NOTIFY cannot be used as default action: %w", errdefs.ErrInvalidArgument)
	case Notifies(section) && section.ListenerPath == "":
		return fmt.Errorf("seccomp action SCMP_ACT_NOTIFY needs listenerPath: %w", errdefs.ErrInvalidArgument)
	case section.ListenerMetadata != "" && section.ListenerPath == "":
		return fmt.Errorf("seccomp listenerMetadata is set without listenerPath: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

func flagBits(names []specs.LinuxSeccompFlag) (uint, error) {
	var flags uint
	for _, name := range names {
		bit, ok := flagNames[name]
		if !ok {
			return 0, fmt.Errorf("seccomp flag %q: %w", name, errdefs.ErrInvalidArgument)
		}
		flags |= bit
	}
	return flags, nil
}

// action is the filter's return value. Errno actions answer EPERM unless told.
func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errno != nil {
		data = uint32(*errno) & unix.SECCOMP_RET_DATA
	}
	switch a {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, fmt.Errorf("seccomp action %q: %w", a, errdefs.ErrInvalidArgument)
}

// table has the rules of one architecture, by system call number.
type table struct {
	arch     *arch.Info
	rules    map[uint32][]rule
	fallback uint32
	// newest is the greatest number that the profile names. What came after the
	// profile was written answers ENOSYS, so that programs fall back.
	newest uint32
	// named: the profile names a call of this architecture at all.
	named bool
}

// rule is an action under conditions that must all hold.
type rule struct {
	conditions []specs.LinuxSeccompArg
	action     uint32
}

func tables(section *specs.LinuxSeccomp, native []*arch.Info, fallback uint32) ([]table, error) {
	wanted := []*arch.Info{native[0]}
	for _, name := range section.Architectures {
		info, known := ociNames[name]
		if !known {
			return nil, fmt.Errorf("seccomp architecture %q: %w", name, errdefs.ErrInvalidArgument)
		}
		if info != nil && slices.Contains(native, info) && !slices.Contains(wanted, info) {
			wanted = append(wanted, info)
		}
	}
	var list []table
	for _, info := range wanted {
		t := table{arch: info, rules: map[uint32][]rule{}, fallback: fallback}
		for _, s := range section.Syscalls {
			act, err := action(s.Action, s.ErrnoRet)
			if err != nil {
				return nil, err
			}
			alternatives, err := split(s.Args)
			if err != nil {
				return nil, err
			}
			for _, name := range s.Names {
				number, ok := info.SyscallNames[name]
				if !ok {
					continue
				}
				n := uint32(number | info.SeccompMask)
				t.newest, t.named = max(t.newest, n), true
				if act == fallback {
					continue
				}
				for _, conditions := range alternatives {
					t.rules[n] = append(t.rules[n], rule{conditions, act})
				}
			}
		}
		list = append(list, t)
	}
	return list, nil
}

// split makes alternatives of conditions on the same argument, as libseccomp's
// users do: one rule cannot compare an argument twice.
func split(args []specs.LinuxSeccompArg) ([][]specs.LinuxSeccompArg, error) {
	seen := map[uint]bool{}
	twice := false
	for _, a := range args {
		if a.Index > 5 {
			return nil, fmt.Errorf("seccomp argument index %d: %w", a.Index, errdefs.ErrInvalidArgument)
		}
		if _, ok := comparisons[a.Op]; !ok {
			return nil, fmt.Errorf("seccomp operator %q: %w", a.Op, errdefs.ErrInvalidArgument)
		}
		twice = twice || seen[a.Index]
		seen[a.Index] = true
	}
	if !twice {
		return [][]specs.LinuxSeccompArg{args}, nil
	}
	var alternatives [][]specs.LinuxSeccompArg
	for _, a := range args {
		alternatives = append(alternatives, []specs.LinuxSeccompArg{a})
	}
	return alternatives, nil
}
