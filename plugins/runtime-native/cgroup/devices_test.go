package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func deviceOf(allow bool, minor int64, access string) specs.LinuxDeviceCgroup {
	r := specs.LinuxDeviceCgroup{Allow: allow, Type: "c", Major: ptr(int64(1)), Access: access}
	if minor >= 0 {
		r.Minor = &minor
	}
	return r
}

var denyAll = specs.LinuxDeviceCgroup{Allow: false, Access: "rwm"}

// opens answers which of /dev/null and /dev/zero can be read and written by a
// shell started by run.
func opens(t *testing.T, run func(script string) *exec.Cmd) string {
	t.Helper()
	script := "for d in null zero; do (exec 3< /dev/$d) 2>&- && echo r:$d; (exec 3> /dev/$d) 2>&- && echo w:$d; done; true"
	out, err := run(script).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

func TestDeviceRulesAreReplaced(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{denyAll, deviceOf(true, 3, "rw")}})
	run := func(script string) *exec.Cmd {
		cmd, err := command(t.Context(), g, script)
		if err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	for _, c := range []struct {
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		{nil, "r:null w:null"},
		{[]specs.LinuxDeviceCgroup{denyAll, deviceOf(true, 5, "rw"), deviceOf(true, 3, "r")}, "r:null r:zero w:zero"},
		{[]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, deviceOf(false, 5, "w")}, "r:null w:null r:zero"},
		{[]specs.LinuxDeviceCgroup{denyAll, deviceOf(true, -1, "r")}, "r:null r:zero"},
		{[]specs.LinuxDeviceCgroup{denyAll, deviceOf(true, 3, "rw"), deviceOf(true, 5, "rw"), deviceOf(false, 5, "r")}, "r:null w:null w:zero"},
	} {
		if c.rules != nil {
			if err := g.Update(&specs.LinuxResources{Devices: c.rules}); err != nil {
				t.Fatal(err)
			}
		}
		if got := opens(t, run); got != c.want {
			t.Errorf("%+v: %s, want %s", c.rules, got, c.want)
		}
	}
	if g.Version() == 1 {
		err := g.Update(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{denyAll, deviceOf(true, -1, "rw"), deviceOf(false, 5, "w")}})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("an exception from an exception on v1: %v", err)
		}
	}
}

// TestDevicePrograms runs the programs of v2 also where v2 is only the hierarchy
// beside v1.
func TestDevicePrograms(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making cgroups needs root")
	}
	root := mountpoint
	if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
		root = filepath.Join(mountpoint, "unified")
	}
	dir := filepath.Join(root, fmt.Sprintf("davit-devices-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no cgroup v2 is mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := removeTree(dir); err != nil {
			t.Error(err)
		}
	})
	group, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = group.Close() }()
	run := func(script string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
		return cmd
	}
	for _, c := range []struct {
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		{[]specs.LinuxDeviceCgroup{denyAll, deviceOf(true, 3, "rw")}, "r:null w:null"},
		{[]specs.LinuxDeviceCgroup{deviceOf(true, 3, "r")}, "r:null"}, // what no rule allows is denied
		{[]specs.LinuxDeviceCgroup{denyAll, deviceOf(true, -1, "rw"), deviceOf(false, 5, "w")}, "r:null w:null r:zero"},
		{[]specs.LinuxDeviceCgroup{denyAll, deviceOf(true, 3, "r"), deviceOf(true, 3, "w"), deviceOf(true, 5, "rwm")}, "r:null w:null r:zero w:zero"},
		{[]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, deviceOf(false, 3, "rwm"), deviceOf(true, 3, "w")}, "w:null r:zero w:zero"},
		{[]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, "r:null w:null r:zero w:zero"},
		{[]specs.LinuxDeviceCgroup{denyAll}, ""},
		{append([]specs.LinuxDeviceCgroup{denyAll}, DefaultDevices()...), "r:null w:null r:zero w:zero"},
	} {
		if err := attachDevices(dir, c.rules); err != nil {
			t.Fatalf("%+v: %v", c.rules, err)
		}
		if got := opens(t, run); got != c.want {
			t.Errorf("%+v: %s, want %s", c.rules, got, c.want)
		}
		programs, err := link.QueryPrograms(link.QueryOptions{Target: int(group.Fd()), Attach: ebpf.AttachCGroupDevice})
		if err != nil {
			t.Fatal(err)
		}
		if len(programs.Programs) != 1 {
			t.Errorf("%d programs are attached", len(programs.Programs))
		}
	}
	for _, bad := range []specs.LinuxDeviceCgroup{{Type: "x"}, {Type: "c", Access: "z"}} {
		if err := attachDevices(dir, []specs.LinuxDeviceCgroup{bad}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
