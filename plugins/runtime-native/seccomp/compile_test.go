package seccomp

import (
	"encoding/binary"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// run executes a program on one call, as the kernel would. x/net/bpf's machine
// reads big-endian, so struct seccomp_data is written for it that way; the upper
// half of an argument keeps its little-endian place.
func run(t *testing.T, program []byte, auditArch, number uint32, args ...uint64) uint32 {
	t.Helper()
	var raw []bpf.RawInstruction
	for i := 0; i < len(program); i += 8 {
		raw = append(raw, bpf.RawInstruction{
			Op: binary.NativeEndian.Uint16(program[i:]), Jt: program[i+2], Jf: program[i+3], K: binary.NativeEndian.Uint32(program[i+4:]),
		})
	}
	instructions, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program has instructions that no assembler knows")
	}
	machine, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[0:], number)
	binary.BigEndian.PutUint32(data[4:], auditArch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(a>>32))
	}
	verdict, err := machine.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(verdict)
}

const (
	allow = uint32(unix.SECCOMP_RET_ALLOW)
	eperm = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
)

func defaultProfile(t *testing.T, capabilities ...string) *specs.LinuxSeccomp {
	t.Helper()
	section, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}}, Linux: &specs.Linux{}})
	if err != nil {
		t.Fatal(err)
	}
	return section
}

func TestDockersDefaultProfile(t *testing.T) {
	program, _, err := Compile(defaultProfile(t, "CAP_CHOWN"))
	if err != nil {
		t.Fatal(err)
	}
	x86, x32 := arch.X86_64, uint32(arch.X32.SeccompMask)
	number := func(name string) uint32 {
		n, ok := x86.SyscallNames[name]
		if !ok {
			t.Fatal("no number for " + name)
		}
		return uint32(n)
	}
	for _, c := range []struct {
		name string
		arch uint32
		nr   uint32
		args []uint64
		want uint32
	}{
		{"read", uint32(x86.ID), number("read"), nil, allow},
		{"mount", uint32(x86.ID), number("mount"), nil, eperm},
		{"reboot", uint32(x86.ID), number("reboot"), nil, eperm},
		{"fork by clone", uint32(x86.ID), number("clone"), []uint64{unix.CLONE_VM | unix.CLONE_FS}, allow},
		{"new user namespace by clone", uint32(x86.ID), number("clone"), []uint64{unix.CLONE_NEWUSER}, eperm},
		{"clone3", uint32(x86.ID), number("clone3"), nil, missing},
		{"personality 0", uint32(x86.ID), number("personality"), []uint64{0}, allow},
		{"personality ADDR_NO_RANDOMIZE", uint32(x86.ID), number("personality"), []uint64{0x40000}, eperm},
		{"personality asked", uint32(x86.ID), number("personality"), []uint64{0xffffffff}, allow},
		{"personality with upper bits", uint32(x86.ID), number("personality"), []uint64{1 << 40}, eperm},
		{"socket AF_INET", uint32(x86.ID), number("socket"), []uint64{unix.AF_INET}, allow},
		{"socket AF_VSOCK", uint32(x86.ID), number("socket"), []uint64{unix.AF_VSOCK}, eperm},
		{"call of the future", uint32(x86.ID), 600, nil, missing},
		{"read by x32", uint32(x86.ID), x32, nil, allow},
		{"exit on i386", uint32(arch.I386.ID), 1, nil, allow},
		{"mount on i386", uint32(arch.I386.ID), 21, nil, eperm},
		{"foreign architecture", uint32(arch.ARM.ID), 1, nil, unix.SECCOMP_RET_KILL_PROCESS},
	} {
		if got := run(t, program, c.arch, c.nr, c.args...); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
	privileged, _, err := Compile(defaultProfile(t, "CAP_SYS_ADMIN"))
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, privileged, uint32(x86.ID), number("mount")); got != allow {
		t.Errorf("mount with CAP_SYS_ADMIN: %#x", got)
	}
}

// TestOperators compares each operator with Go's own comparison, around the
// borders of both halves.
func TestOperators(t *testing.T) {
	values := []uint64{0, 1, 2, 1<<32 - 1, 1 << 32, 1<<32 + 1, 5<<32 + 7, 1<<64 - 1}
	operators := map[specs.LinuxSeccompOperator]func(x, v, two uint64) bool{
		specs.OpEqualTo:      func(x, v, _ uint64) bool { return x == v },
		specs.OpNotEqual:     func(x, v, _ uint64) bool { return x != v },
		specs.OpLessThan:     func(x, v, _ uint64) bool { return x < v },
		specs.OpLessEqual:    func(x, v, _ uint64) bool { return x <= v },
		specs.OpGreaterThan:  func(x, v, _ uint64) bool { return x > v },
		specs.OpGreaterEqual: func(x, v, _ uint64) bool { return x >= v },
		specs.OpMaskedEqual:  func(x, v, two uint64) bool { return x&v == two },
	}
	for operator, want := range operators {
		for _, v := range values {
			for _, two := range []uint64{0, 1, 5 << 32} {
				program, _, err := Compile(&specs.LinuxSeccomp{
					DefaultAction: specs.ActErrno,
					Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{
						{Index: 2, Op: operator, Value: v, ValueTwo: two}, {Index: 0, Op: specs.OpEqualTo, Value: 9},
					}}},
				})
				if err != nil {
					t.Fatal(err)
				}
				for _, x := range values {
					verdict := eperm
					if want(x, v, two) {
						verdict = allow
					}
					if got := run(t, program, uint32(arch.X86_64.ID), 0, 9, 0, x); got != verdict {
						t.Fatalf("%d %s %d (%d): %#x", x, operator, v, two, got)
					}
					if got := run(t, program, uint32(arch.X86_64.ID), 0, 8, 0, x); got != eperm {
						t.Fatalf("the second condition of %s is not looked at", operator)
					}
				}
			}
		}
	}
}

func TestBadProfiles(t *testing.T) {
	for name, section := range map[string]*specs.LinuxSeccomp{
		"action":   {DefaultAction: "SCMP_ACT_DANCE"},
		"flag":     {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"NOPE"}},
		"operator": {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: "?"}}}}},
		"index":    {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
	} {
		if _, _, err := Compile(section); err == nil {
			t.Errorf("a wrong %s is accepted", name)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	section, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}, Linux: &specs.Linux{}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := Compile(section); err != nil {
			b.Fatal(err)
		}
	}
}
