package seccomp

import (
	"encoding/binary"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// target is where a comparison goes on.
type target int

const (
	onward target = iota // the next instruction
	holds                // the condition is true: behind its last instruction
	fails                // the rule is not met: behind its action
)

// test is a plain instruction or a comparison with two ways on.
type test struct {
	cond        bpf.JumpTest
	value       uint32
	yes, no     target
	instruction bpf.Instruction // set: no comparison
}

// comparisons word each operator for an argument of 64 bits on a machine that
// compares 32. The upper half comes first.
var comparisons = map[specs.LinuxSeccompOperator]func(specs.LinuxSeccompArg) []test{
	specs.OpEqualTo: func(a specs.LinuxSeccompArg) []test {
		return []test{
			load(a, true), {cond: bpf.JumpEqual, value: high(a.Value), no: fails},
			load(a, false), {cond: bpf.JumpEqual, value: low(a.Value), yes: holds, no: fails},
		}
	},
	specs.OpNotEqual: func(a specs.LinuxSeccompArg) []test {
		return []test{
			load(a, true), {cond: bpf.JumpEqual, value: high(a.Value), no: holds},
			load(a, false), {cond: bpf.JumpEqual, value: low(a.Value), yes: fails, no: holds},
		}
	},
	specs.OpGreaterThan: func(a specs.LinuxSeccompArg) []test {
		return ordered(a, bpf.JumpGreaterThan, bpf.JumpGreaterThan)
	},
	specs.OpGreaterEqual: func(a specs.LinuxSeccompArg) []test {
		return ordered(a, bpf.JumpGreaterThan, bpf.JumpGreaterOrEqual)
	},
	specs.OpLessThan: func(a specs.LinuxSeccompArg) []test {
		return ordered(a, bpf.JumpLessThan, bpf.JumpLessThan)
	},
	specs.OpLessEqual: func(a specs.LinuxSeccompArg) []test {
		return ordered(a, bpf.JumpLessThan, bpf.JumpLessOrEqual)
	},
	// The mask is Value, what must be left under it is ValueTwo.
	specs.OpMaskedEqual: func(a specs.LinuxSeccompArg) []test {
		return []test{
			load(a, true), and(high(a.Value)), {cond: bpf.JumpEqual, value: high(a.ValueTwo), no: fails},
			load(a, false), and(low(a.Value)), {cond: bpf.JumpEqual, value: low(a.ValueTwo), yes: holds, no: fails},
		}
	},
}

// ordered decides by the upper half unless it is equal.
func ordered(a specs.LinuxSeccompArg, upper, lower bpf.JumpTest) []test {
	return []test{
		load(a, true), {cond: upper, value: high(a.Value), yes: holds},
		{cond: bpf.JumpEqual, value: high(a.Value), no: fails},
		load(a, false), {cond: lower, value: low(a.Value), yes: holds, no: fails},
	}
}

func high(v uint64) uint32 { return uint32(v >> 32) }
func low(v uint64) uint32  { return uint32(v) }

func load(a specs.LinuxSeccompArg, upper bool) test {
	offset := uint32(offArgs + 8*a.Index)
	if little := binary.NativeEndian.Uint16([]byte{1, 0}) == 1; upper == little {
		offset += 4
	}
	return test{instruction: bpf.LoadAbsolute{Off: offset, Size: 4}}
}

func and(mask uint32) test { return test{instruction: bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask}} }

// compile is the rule's program: its action if all conditions hold, else on to
// what comes behind. Six conditions of at most six instructions stay within the
// reach of a comparison's jump.
func (r rule) compile() []bpf.Instruction {
	var tests []test
	var ends []int // where each test's condition ends
	for _, condition := range r.conditions {
		code := comparisons[condition.Op](condition)
		tests = append(tests, code...)
		for range code {
			ends = append(ends, len(tests))
		}
	}
	program := make([]bpf.Instruction, 0, len(tests)+1)
	for i, t := range tests {
		if t.instruction != nil {
			program = append(program, t.instruction)
			continue
		}
		skip := func(to target) uint8 {
			switch to {
			case holds:
				return uint8(ends[i] - i - 1)
			case fails:
				return uint8(len(tests) + 1 - i - 1)
			default:
				return 0
			}
		}
		program = append(program, bpf.JumpIf{Cond: t.cond, Val: t.value, SkipTrue: skip(t.yes), SkipFalse: skip(t.no)})
	}
	return append(program, ret(r.action)...)
}
