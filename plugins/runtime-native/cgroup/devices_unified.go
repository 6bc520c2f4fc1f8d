package cgroup

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// attachDevices gives a v2 group a program that decides on each open and mknod
// of a device (BPF_PROG_TYPE_CGROUP_DEVICE), in place of the one it has. The
// filter of the cgroups library lets a device that may only be read be opened
// for writing, and adds programs instead of replacing them, so it is made here.
func attachDevices(dir string, list []specs.LinuxDeviceCgroup) error {
	if len(list) == 0 {
		return nil
	}
	rules, err := deviceRules(list)
	if err != nil {
		return err
	}
	group, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = group.Close() }()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "davit_devices", Type: ebpf.CGroupDevice, License: "Apache", Instructions: deviceProgram(rules),
	})
	if err != nil {
		return fmt.Errorf("loading the device filter: %w", err)
	}
	defer func() { _ = program.Close() }() // the group holds it
	if err := replaceProgram(int(group.Fd()), program); err != nil {
		return fmt.Errorf("attaching the device filter: %w", err)
	}
	return nil
}

// replaceProgram leaves program as the only one of the group. Programs of one
// group are asked one after the other and all must agree, so that with others
// beside it there is at no time less protection than before.
func replaceProgram(group int, program *ebpf.Program) error {
	attached, err := link.QueryPrograms(link.QueryOptions{Target: group, Attach: ebpf.AttachCGroupDevice})
	if err != nil {
		return err
	}
	options := link.RawAttachProgramOptions{Target: group, Program: program, Attach: ebpf.AttachCGroupDevice, Flags: unix.BPF_F_ALLOW_MULTI}
	old := make([]*ebpf.Program, 0, len(attached.Programs))
	defer func() {
		for _, p := range old {
			_ = p.Close()
		}
	}()
	for _, a := range attached.Programs {
		p, err := ebpf.NewProgramFromID(a.ID)
		if errors.Is(err, os.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return err
		}
		old = append(old, p)
	}
	if len(old) == 1 {
		options.Anchor = link.ReplaceProgram(old[0])
		if err := link.RawAttachProgram(options); err == nil {
			return nil
		}
		// Kernels before 5.6 cannot replace; a program attached by a link cannot be.
		options.Anchor = nil
	}
	if err := link.RawAttachProgram(options); err != nil {
		return err
	}
	for _, p := range old {
		if err := link.RawDetachProgram(link.RawDetachProgramOptions{Target: group, Program: p, Attach: ebpf.AttachCGroupDevice}); err != nil {
			return fmt.Errorf("detaching the filter before: %w", err)
		}
	}
	return nil
}

// deviceProgram looks at the rules from the last to the first. R3 holds the
// access that no rule has decided on yet.
func deviceProgram(rules []deviceRule) asm.Instructions {
	// R2: type, R3: access, R4: major, R5: minor, of struct bpf_cgroup_dev_ctx.
	program := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Half),
		asm.LoadMem(asm.R3, asm.R1, 0, asm.Word), asm.RSh.Imm32(asm.R3, 16),
		asm.LoadMem(asm.R4, asm.R1, 4, asm.Word),
		asm.LoadMem(asm.R5, asm.R1, 8, asm.Word),
	}
	const allowed, denied = "allowed", "denied"
	last := false // what no rule decides on is denied
	var asked [2]bool
	for i := len(rules) - 1; i >= 0; i-- {
		d := rules[i]
		if d.access == 0 {
			continue
		}
		if d.all() { // nothing before it matters
			last = d.allow
			break
		}
		next := fmt.Sprintf("before-%d", i)
		for _, test := range []struct {
			register asm.Register
			want     int64
		}{{asm.R2, d.kind}, {asm.R4, d.major}, {asm.R5, d.minor}} {
			if test.want >= 0 {
				program = append(program, asm.JNE.Imm(test.register, int32(test.want), next))
			}
		}
		if d.allow {
			asked[0] = true
			program = append(program, asm.And.Imm32(asm.R3, everything&^d.access), asm.JEq.Imm(asm.R3, 0, allowed))
		} else {
			asked[1] = true
			program = append(program, asm.Mov.Reg32(asm.R1, asm.R3), asm.And.Imm32(asm.R1, d.access), asm.JNE.Imm(asm.R1, 0, denied))
		}
		program = append(program, asm.Mov.Imm32(asm.R0, 0).WithSymbol(next))
	}
	ends := []asm.Instructions{
		{asm.Mov.Imm32(asm.R0, 1).WithSymbol(allowed), asm.Return()},
		{asm.Mov.Imm32(asm.R0, 0).WithSymbol(denied), asm.Return()},
	}
	first, second := 1, 0
	if last {
		first, second = 0, 1
	}
	program = append(program, ends[first]...)
	if asked[second] { // the kernel refuses code that is never reached
		program = append(program, ends[second]...)
	}
	return program
}
