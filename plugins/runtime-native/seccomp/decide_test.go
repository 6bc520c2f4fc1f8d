package seccomp

import (
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func ptr[T any](v T) *T { return &v }

// section is a profile that answers as its default says but for some calls.
func section(fallback specs.LinuxSeccompAction, calls ...specs.LinuxSyscall) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: fallback, Syscalls: calls}
}

func call(action specs.LinuxSeccompAction, names ...string) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: names, Action: action}
}

func TestActions(t *testing.T) {
	x86 := uint32(arch.X86_64.ID)
	for _, c := range []struct {
		action specs.LinuxSeccompAction
		errno  *uint
		want   uint32
	}{
		{specs.ActAllow, nil, unix.SECCOMP_RET_ALLOW},
		{specs.ActErrno, nil, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{specs.ActErrno, ptr(uint(38)), unix.SECCOMP_RET_ERRNO | 38},
		{specs.ActErrno, ptr(uint(0)), unix.SECCOMP_RET_ERRNO},
		{specs.ActTrace, nil, unix.SECCOMP_RET_TRACE | uint32(unix.EPERM)},
		{specs.ActTrace, ptr(uint(7)), unix.SECCOMP_RET_TRACE | 7},
		{specs.ActTrap, nil, unix.SECCOMP_RET_TRAP},
		{specs.ActLog, nil, unix.SECCOMP_RET_LOG},
		{specs.ActKill, nil, unix.SECCOMP_RET_KILL_THREAD},
		{specs.ActKillThread, nil, unix.SECCOMP_RET_KILL_THREAD},
		{specs.ActKillProcess, nil, unix.SECCOMP_RET_KILL_PROCESS},
		{specs.ActNotify, nil, unix.SECCOMP_RET_USER_NOTIF},
	} {
		rule := call(c.action, "getpid", "no_kernel_has_this")
		rule.ErrnoRet = c.errno
		profile := section(specs.ActKillThread, rule)
		if c.action == specs.ActKill || c.action == specs.ActKillThread {
			profile.DefaultAction = specs.ActAllow
		}
		profile.ListenerPath = "/run/agent.sock"
		program, _, err := Compile(profile)
		if err != nil {
			t.Fatal(err)
		}
		if got := run(t, program, x86, unix.SYS_GETPID); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.action, got, c.want)
		}
		if c.action == specs.ActNotify {
			continue
		}
		// The same as the default, on a call below the newest that is named.
		profile = section(c.action, call(specs.ActTrap, "getpid"), call(specs.ActAllow, "mseal"))
		profile.DefaultErrnoRet = c.errno
		if program, _, err = Compile(profile); err != nil {
			t.Fatal(err)
		}
		if got := run(t, program, x86, unix.SYS_GETPPID); got != c.want {
			t.Errorf("%s by default: %#x, want %#x", c.action, got, c.want)
		}
	}
}

// TestCallsNewerThanTheProfile: denying profiles answer ENOSYS for numbers above
// the greatest they name, on each architecture by its own numbers.
func TestCallsNewerThanTheProfile(t *testing.T) {
	for _, c := range []struct {
		action specs.LinuxSeccompAction
		want   uint32
	}{
		{specs.ActErrno, missing}, {specs.ActKillProcess, missing}, {specs.ActKill, missing}, {specs.ActTrap, missing},
		{specs.ActAllow, allow}, {specs.ActLog, unix.SECCOMP_RET_LOG}, {specs.ActTrace, unix.SECCOMP_RET_TRACE | uint32(unix.EPERM)},
	} {
		profile := section(c.action, call(specs.ActAllow, "read"), call(specs.ActErrno, "openat2"), call(c.action, "close_range"))
		profile.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
		program, _, err := Compile(profile)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []struct {
			name string
			id   uint32
			mask uint32
		}{{"x86_64", uint32(arch.X86_64.ID), 0}, {"x86", uint32(arch.I386.ID), 0}, {"x32", uint32(arch.X86_64.ID), uint32(arch.X32.SeccompMask)}} {
			// openat2 is 437 everywhere.
			if got := run(t, program, a.id, a.mask|438); got != c.want {
				t.Errorf("%s, %s, a call after the profile's: %#x, want %#x", c.action, a.name, got, c.want)
			}
			if got := run(t, program, a.id, a.mask|437); got != eperm && c.action != specs.ActErrno {
				t.Errorf("%s, %s, openat2: %#x", c.action, a.name, got)
			}
		}
	}
	// Without a single call there is no newest one.
	program, _, err := Compile(section(specs.ActErrno))
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, program, uint32(arch.X86_64.ID), 1); got != eperm {
		t.Errorf("an empty profile answers %#x", got)
	}
}

func TestArchitectures(t *testing.T) {
	profile := section(specs.ActErrno, call(specs.ActAllow, "read"))
	x86, x32, i386 := uint32(arch.X86_64.ID), uint32(arch.X32.SeccompMask), uint32(arch.I386.ID)
	number32 := uint32(arch.I386.SyscallNames["read"])
	killed := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	for _, c := range []struct {
		name              string
		host              string
		list              []specs.Arch
		native, x32, i386 uint32
	}{
		{"native alone", "amd64", nil, allow, missing, killed},
		{"native by name", "amd64", []specs.Arch{specs.ArchX86_64}, allow, missing, killed},
		{"foreign ones", "amd64", []specs.Arch{specs.ArchARM, specs.ArchS390X, specs.ArchRISCV64}, allow, missing, killed},
		{"x86", "amd64", []specs.Arch{specs.ArchX86}, allow, missing, allow},
		{"x32", "amd64", []specs.Arch{specs.ArchX32}, allow, allow, killed},
		{"all", "amd64", []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, allow, allow, allow},
	} {
		profile.Architectures = c.list
		program, _, err := compileFor(profile, c.host)
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range []struct{ id, number, want uint32 }{{x86, 0, c.native}, {x86, x32, c.x32}, {i386, number32, c.i386}} {
			if got := run(t, program, way.id, way.number); got != way.want {
				t.Errorf("%s: architecture %#x, call %#x: %#x, want %#x", c.name, way.id, way.number, got, way.want)
			}
		}
	}
	// The other hosts: the same profile with their own numbers.
	for _, c := range []struct {
		host string
		list []specs.Arch
		info *arch.Info
	}{
		{"arm64", nil, arch.AARCH64}, {"arm64", []specs.Arch{specs.ArchARM}, arch.ARM}, {"arm", nil, arch.ARM}, {"386", nil, arch.I386},
	} {
		profile.Architectures = c.list
		program, _, err := compileFor(profile, c.host)
		if err != nil {
			t.Fatal(err)
		}
		read, open := c.info.SyscallNames["read"], c.info.SyscallNames["close"]
		if got := run(t, program, uint32(c.info.ID), uint32(read)); got != allow {
			t.Errorf("read on %s: %#x", c.info.Name, got)
		}
		if got := run(t, program, uint32(c.info.ID), uint32(open)); got == allow {
			t.Errorf("close on %s is allowed", c.info.Name)
		}
		if got := run(t, program, x86, 0); got != killed {
			t.Errorf("a call of x86_64 on %s: %#x", c.host, got)
		}
	}
	if _, _, err := compileFor(profile, "riscv64"); err == nil {
		t.Error("a host without a table has a filter")
	}
}

// TestRulesOfOneCall: several rules, several conditions on one argument (any may
// hold), on several arguments (all must), and the first rule that holds decides.
func TestRulesOfOneCall(t *testing.T) {
	arg := func(index uint, op specs.LinuxSeccompOperator, value, two uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Op: op, Value: value, ValueTwo: two}
	}
	with := func(action specs.LinuxSeccompAction, errno uint, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{"ioctl"}, Action: action, ErrnoRet: &errno, Args: args}
	}
	profile := section(specs.ActErrno,
		with(specs.ActErrno, 5, arg(1, specs.OpEqualTo, 0x5412, 0)),
		with(specs.ActAllow, 0, arg(1, specs.OpLessThan, 0x6000, 0), arg(0, specs.OpLessEqual, 2, 0)),
		with(specs.ActTrap, 0, arg(2, specs.OpEqualTo, 1, 0), arg(2, specs.OpEqualTo, 2, 0)),
		with(specs.ActLog, 0, arg(3, specs.OpMaskedEqual, 0xff00000000, 0x1200000000)),
	)
	program, _, err := Compile(profile)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []uint64
		want uint32
	}{
		{[]uint64{0, 0x5412, 0, 0}, unix.SECCOMP_RET_ERRNO | 5},
		{[]uint64{2, 0x5413, 0, 0}, allow},
		{[]uint64{3, 0x5413, 0, 0}, eperm},
		{[]uint64{2, 0x6000, 0, 0}, eperm},
		{[]uint64{9, 0x6000, 1, 0}, unix.SECCOMP_RET_TRAP},
		{[]uint64{9, 0x6000, 2, 0}, unix.SECCOMP_RET_TRAP},
		{[]uint64{9, 0x6000, 3, 0x12deadbeef}, unix.SECCOMP_RET_LOG},
		{[]uint64{9, 0x6000, 3, 0x13deadbeef}, eperm},
	} {
		if got := run(t, program, uint32(arch.X86_64.ID), unix.SYS_IOCTL, c.args...); got != c.want {
			t.Errorf("ioctl%#x: %#x, want %#x", c.args, got, c.want)
		}
	}
}

func TestFlagsAndListeners(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*specs.LinuxSeccomp)
		flags  uint
		ok     bool
	}{
		"none":  {func(*specs.LinuxSeccomp) {}, 0, true},
		"tsync": {func(s *specs.LinuxSeccomp) { s.Flags = []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"} }, 0, true},
		"two": {func(s *specs.LinuxSeccomp) {
			s.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow}
		}, unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, true},
		"killable without a listener": {func(s *specs.LinuxSeccomp) {
			s.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}
		}, 0, true},
		"killable": {func(s *specs.LinuxSeccomp) {
			s.Flags, s.ListenerPath = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}, "/run/agent.sock"
			s.Syscalls = []specs.LinuxSyscall{call(specs.ActNotify, "mkdir")}
		}, unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, true},
		"notify without a path":    {func(s *specs.LinuxSeccomp) { s.Syscalls = []specs.LinuxSyscall{call(specs.ActNotify, "mkdir")} }, 0, false},
		"metadata without a path":  {func(s *specs.LinuxSeccomp) { s.ListenerMetadata = "x" }, 0, false},
		"notify by default":        {func(s *specs.LinuxSeccomp) { s.DefaultAction, s.ListenerPath = specs.ActNotify, "/run/agent.sock" }, 0, false},
		"an architecture of mine":  {func(s *specs.LinuxSeccomp) { s.Architectures = []specs.Arch{"SCMP_ARCH_MINE"} }, 0, false},
		"a path that nobody needs": {func(s *specs.LinuxSeccomp) { s.ListenerPath = "/run/agent.sock" }, 0, true},
	} {
		s := section(specs.ActAllow)
		c.change(s)
		_, flags, err := Compile(s)
		if (err == nil) != c.ok || flags != c.flags {
			t.Errorf("%s: flags %#x, %v", name, flags, err)
		}
	}
}
