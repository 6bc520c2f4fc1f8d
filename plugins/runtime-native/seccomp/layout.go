package seccomp

import (
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// missing answers as a kernel without the call does.
const missing = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

// span is the treatment of all system call numbers from first up to the next
// span's first.
type span struct {
	first uint32
	code  []bpf.Instruction
}

// layout puts the architectures' programs one after the other. A call of none of
// them kills.
func layout(list []table) []bpf.Instruction {
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: offArch, Size: 4}}
	for _, t := range list {
		if t.arch == arch.X32 {
			continue // with x86_64, whose architecture it shares
		}
		all := t.spans()
		if t.arch == arch.X86_64 {
			x32 := []span{{uint32(arch.X32.SeccompMask), ret(missing)}}
			if i := slices.IndexFunc(list, func(t table) bool { return t.arch == arch.X32 }); i >= 0 {
				x32 = list[i].spans()
			}
			all = append(all, x32...)
		}
		body := append([]bpf.Instruction{bpf.LoadAbsolute{Off: offNumber, Size: 4}}, search(all)...)
		program = append(program, jumpUnless(bpf.JumpEqual, uint32(t.arch.ID), len(body))...)
		program = append(program, body...)
	}
	return append(program, ret(unix.SECCOMP_RET_KILL_PROCESS)...)
}

func ret(value uint32) []bpf.Instruction { return []bpf.Instruction{bpf.RetConstant{Val: value}} }

// jumpUnless skips the next n instructions if the comparison does not hold. A
// comparison's own jump reaches only 255 instructions.
func jumpUnless(test bpf.JumpTest, value uint32, n int) []bpf.Instruction {
	return []bpf.Instruction{bpf.JumpIf{Cond: test, Val: value, SkipTrue: 1}, bpf.Jump{Skip: uint32(n)}}
}

// spans covers all numbers from the architecture's first on.
func (t table) spans() []span {
	var all []span
	add := func(first uint32, code []bpf.Instruction) {
		// Neighbours that are treated alike become one.
		if n := len(all); n > 0 && slices.Equal(all[n-1].code, code) {
			return
		}
		all = append(all, span{first, code})
	}
	numbers := make([]uint32, 0, len(t.rules))
	for n := range t.rules {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	next := uint32(t.arch.SeccompMask)
	for _, n := range numbers {
		if n > next {
			add(next, ret(t.fallback))
		}
		add(n, t.treatment(t.rules[n]))
		next = n + 1
	}
	if !t.named {
		add(next, ret(t.fallback))
		return all
	}
	if next <= t.newest {
		add(next, ret(t.fallback))
		next = t.newest + 1
	}
	switch t.fallback & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE:
		add(next, ret(t.fallback))
	default: // a profile that denies what it does not know
		add(next, ret(missing))
	}
	return all
}

// treatment is the action of the first rule that holds.
func (t table) treatment(rules []rule) []bpf.Instruction {
	var code []bpf.Instruction
	for _, r := range rules {
		code = append(code, r.compile()...)
		if len(r.conditions) == 0 {
			return code
		}
	}
	return append(code, ret(t.fallback)...)
}

// search is a binary search for the number in the accumulator.
func search(all []span) []bpf.Instruction {
	if len(all) == 1 {
		return all[0].code
	}
	middle := len(all) / 2
	low, high := search(all[:middle]), search(all[middle:])
	program := jumpUnless(bpf.JumpLessThan, all[middle].first, len(low))
	return slices.Concat(program, low, high)
}
