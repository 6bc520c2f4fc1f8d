package cgroup

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf/asm"
	"github.com/containerd/cgroups/v3/cgroup2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// everything is all that one can do with a device node.
const everything = unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE | unix.BPF_DEVCG_ACC_MKNOD

// deviceRule is a rule of the spec with wildcards as -1.
type deviceRule struct {
	kind, major, minor int64
}

// limitDevices attaches a program that decides on each open and mknod of a
// device (BPF_PROG_TYPE_CGROUP_DEVICE). The filter of the cgroups library lets a
// device that may only be read be opened for writing, too, so it is made here.
func limitDevices(dir string, rules []specs.LinuxDeviceCgroup) error {
	if len(rules) == 0 {
		return nil
	}
	program, err := deviceProgram(rules)
	if err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := cgroup2.LoadAttachCgroupDeviceFilter(program, "Apache", int(f.Fd())); err != nil {
		return fmt.Errorf("attaching the device filter: %w", err)
	}
	return nil
}

// deviceProgram is the union of what rules allow, after the last that denies all.
// Other denials take from what the rules before them allow.
func deviceProgram(rules []specs.LinuxDeviceCgroup) (asm.Instructions, error) {
	var order []deviceRule
	allowed := map[deviceRule]int32{}
	for _, r := range rules {
		kind, access, err := deviceKind(r)
		if err != nil {
			return nil, err
		}
		d := deviceRule{kind, wild(r.Major), wild(r.Minor)}
		switch {
		case r.Allow:
			if _, known := allowed[d]; !known {
				order = append(order, d)
			}
			allowed[d] |= access
		default:
			for other := range allowed {
				if d.covers(other) {
					allowed[other] &^= access
				}
			}
		}
	}
	// R2: type, R3: access, R4: major, R5: minor, of struct bpf_cgroup_dev_ctx.
	program := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Half),
		asm.LoadMem(asm.R3, asm.R1, 0, asm.Word), asm.RSh.Imm32(asm.R3, 16),
		asm.LoadMem(asm.R4, asm.R1, 4, asm.Word),
		asm.LoadMem(asm.R5, asm.R1, 8, asm.Word),
	}
	for i, d := range order {
		next := fmt.Sprintf("rule-%d", i+1)
		var rule asm.Instructions
		for _, test := range []struct {
			register asm.Register
			want     int64
		}{{asm.R2, d.kind}, {asm.R4, d.major}, {asm.R5, d.minor}} {
			if test.want >= 0 {
				rule = append(rule, asm.JNE.Imm(test.register, int32(test.want), next))
			}
		}
		if allowed[d] != everything {
			// All that is asked for must be allowed.
			rule = append(rule,
				asm.Mov.Reg32(asm.R1, asm.R3), asm.And.Imm32(asm.R1, ^allowed[d]&everything), asm.JNE.Imm(asm.R1, 0, next))
		}
		always := len(rule) == 0
		rule = append(rule, asm.Mov.Imm32(asm.R0, 1), asm.Return())
		rule[0] = rule[0].WithSymbol(fmt.Sprintf("rule-%d", i))
		program = append(program, rule...)
		if always {
			return program, nil // the kernel refuses code that is never reached
		}
	}
	return append(program, asm.Mov.Imm32(asm.R0, 0).WithSymbol(fmt.Sprintf("rule-%d", len(order))), asm.Return()), nil
}

func (d deviceRule) covers(other deviceRule) bool {
	return (d.kind < 0 || d.kind == other.kind) && (d.major < 0 || d.major == other.major) && (d.minor < 0 || d.minor == other.minor)
}

func wild(number *int64) int64 {
	if number == nil {
		return -1
	}
	return *number
}

func deviceKind(r specs.LinuxDeviceCgroup) (kind int64, access int32, err error) {
	switch r.Type {
	case "", "a":
		kind = -1
	case "c":
		kind = unix.BPF_DEVCG_DEV_CHAR
	case "b":
		kind = unix.BPF_DEVCG_DEV_BLOCK
	default:
		return 0, 0, fmt.Errorf("device rule of type %q is none of a, b, c", r.Type)
	}
	for _, letter := range r.Access {
		switch letter {
		case 'r':
			access |= unix.BPF_DEVCG_ACC_READ
		case 'w':
			access |= unix.BPF_DEVCG_ACC_WRITE
		case 'm':
			access |= unix.BPF_DEVCG_ACC_MKNOD
		default:
			return 0, 0, fmt.Errorf("device access %q is none of r, w, m", letter)
		}
	}
	return kind, access, nil
}
