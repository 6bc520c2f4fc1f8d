package cgroup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

// newGroup makes a group that is gone after the test.
func newGroup(t *testing.T, r *specs.LinuxResources) *Group {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making cgroups needs root")
	}
	g, err := Create(fmt.Sprintf("/davit-test-%d/%s", os.Getpid(), strings.ToLower(t.Name())), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Kill(); err != nil {
			t.Error(err)
		}
		if err := g.Delete(context.Background()); err != nil {
			t.Error(err)
		}
		for _, dir := range g.dirs() {
			t.Errorf("%s is left", dir)
		}
		parent, err := Open(fmt.Sprintf("/davit-test-%d", os.Getpid()))
		if err == nil {
			err = parent.Delete(context.Background())
		}
		if err != nil && !errdefs.IsNotFound(err) {
			t.Error(err)
		}
	})
	return g
}

// command is a shell in the group, by the way of the group's version.
func command(ctx context.Context, g *Group, script string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if g.Version() == 2 {
		// The directory is open until the command is collected.
		_, path := g.Joining()
		dir, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
		cmd.ExtraFiles = []*os.File{dir}
		return cmd, nil
	}
	join := []string{"set -e"}
	for _, file := range g.JoinPaths() {
		join = append(join, "echo 0 > "+file)
	}
	cmd.Args[2] = strings.Join(append(join, "set +e", script), "; ")
	return cmd, nil
}

// everywhere says whether there is a task in each hierarchy: on v1 they are
// joined one by one.
func everywhere(g *Group) bool {
	for _, file := range g.JoinPaths() {
		if body, err := os.ReadFile(file); err == nil && len(body) == 0 {
			return false
		}
	}
	return true
}

// sleeper starts a process in the group and waits until it is there.
func sleeper(t *testing.T, g *Group, script string) *exec.Cmd {
	t.Helper()
	cmd, err := command(t.Context(), g, script)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = g.Kill() // also if it is frozen
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		pids, err := g.Procs()
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) > 0 && everywhere(g) {
			return cmd
		}
		if time.Now().After(deadline) {
			t.Fatal("the process never joined")
		}
	}
}

func TestLimitsAreTheKernels(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(128 << 20))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(33))},
		CPU:    &specs.LinuxCPU{Quota: ptr(int64(50000)), Shares: ptr(uint64(512))},
	})
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.Memory.Limit != 64<<20 || s.Pids.Limit != 33 || s.Version != g.Version() {
		t.Errorf("%+v", s)
	}
	if err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(96 << 20)), Swap: ptr(int64(-1))}}); err != nil {
		t.Fatal(err)
	}
	if s, err = g.Stats(); err != nil || s.Memory.Limit != 96<<20 || s.Pids.Limit != 33 {
		t.Errorf("after the update: %v %+v", err, s)
	}
	if body, err := os.ReadFile(g.OOMEventPath()); err != nil || !strings.Contains(string(body), "oom_kill ") {
		t.Errorf("%s: %v: %s", g.OOMEventPath(), err, body)
	}
	if err := g.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000-5000"}}); err == nil {
		t.Error("CPUs that do not exist are accepted")
	}
}

func TestFrozenProcessesStandStill(t *testing.T) {
	g := newGroup(t, nil)
	counter := t.TempDir() + "/counter"
	sleeper(t, g, "while :; do echo x >> "+counter+"; sleep 0.002; done")
	size := func() int64 {
		info, err := os.Stat(counter)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	moves := func() bool {
		before := size()
		for range 100 {
			time.Sleep(3 * time.Millisecond)
			if size() > before {
				return true
			}
		}
		return false
	}
	if !moves() {
		t.Fatal("the process does nothing")
	}
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if moves() {
		t.Error("a frozen process goes on")
	}
	if err := g.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !moves() {
		t.Error("a thawed process stands still")
	}
}

func TestKillReachesFrozenAndForkingProcesses(t *testing.T) {
	g := newGroup(t, nil)
	cmd := sleeper(t, g, "while :; do sleep 100 & sleep 100 & wait; done")
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended by itself")
	}
	if err := g.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(g.path); !errdefs.IsNotFound(err) {
		t.Errorf("a deleted group is found: %v", err)
	}
}

func TestALivingGroupIsNotDeleted(t *testing.T) {
	g := newGroup(t, nil)
	sleeper(t, g, "sleep 100")
	if err := g.Delete(t.Context()); err == nil {
		t.Error("a group with a process was deleted")
	}
}

func TestDevicesThatAreNotAllowedCannotBeOpened(t *testing.T) {
	node := func(major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: access}
	}
	g := newGroup(t, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"}, {Allow: true, Type: "c", Access: "m"}, node(1, 3, "rwm"), node(1, 5, "r"), node(1, 9, "r"), node(1, 9, "w"),
	}})
	result := t.TempDir() + "/result"
	try := func(name, open string) string {
		return fmt.Sprintf("(exec 3%s%s) 2>/dev/null && printf '%s%s ' >> %s; ", open, name, open, name, result)
	}
	script := ": > " + result + "; " + try("/dev/null", "<>") + try("/dev/zero", "<") + try("/dev/zero", "<>") + try("/dev/urandom", "<>") + try("/dev/full", "<") + "echo done >> " + result + "; sleep 100"
	sleeper(t, g, script)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		body, _ := os.ReadFile(result)
		if strings.Contains(string(body), "done") {
			if got, want := string(body), "<>/dev/null </dev/zero <>/dev/urandom done\n"; got != want {
				t.Errorf("opened %q, want %q", got, want)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the process does not end its tries")
		}
	}
}

func TestAllDevicesCanBeAllowed(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"}, {Allow: true, Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "r"},
	}})
	result := t.TempDir() + "/result"
	sleeper(t, g, "head -c 1 /dev/zero > "+result+".new; mv "+result+".new "+result+"; sleep 100")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if info, err := os.Stat(result); err == nil {
			if info.Size() != 1 {
				t.Error("the device gave nothing")
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the process does not read the device")
		}
	}
}

func TestBadPaths(t *testing.T) {
	for _, path := range []string{"", "/", "relative", "/a/../b", "/a/"} {
		if _, err := Create(path, nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", path, err)
		}
	}
}
