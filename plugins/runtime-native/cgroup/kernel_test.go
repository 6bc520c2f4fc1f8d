package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// file is the group's file of that version, trimmed; a missing one skips nothing:
// the caller asks only for what the kernel must have.
func file(t *testing.T, g *Group, v1, v2 string) string {
	t.Helper()
	path := filepath.Join(mountpoint, g.path, v2)
	if g.Version() == 1 {
		controller, _, _ := strings.Cut(v1, ".")
		path = filepath.Join(g.hierarchies.(*legacy).dir(controller), v1)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(body))
}

func expect(t *testing.T, g *Group, v1, v1Value, v2, v2Value string) {
	t.Helper()
	name, want := v1, v1Value
	if g.Version() == 2 {
		name, want = v2, v2Value
	}
	if name == "" {
		return
	}
	if got := file(t, g, v1, v2); got != want {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
}

func TestLimitsAreInTheKernelsFiles(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(20000)), Period: ptr(uint64(50000)), Burst: ptr(uint64(10000)), Cpus: "0", Mems: "0"},
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Reservation: ptr(int64(32 << 20)), Swap: ptr(int64(96 << 20))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(33))},
	})
	expect(t, g, "cpu.shares", "512", "cpu.weight", "59")
	expect(t, g, "cpu.cfs_quota_us", "20000", "cpu.max", "20000 50000")
	expect(t, g, "cpu.cfs_period_us", "50000", "", "")
	expect(t, g, "cpu.cfs_burst_us", "10000", "cpu.max.burst", "10000")
	expect(t, g, "cpuset.cpus", "0", "cpuset.cpus", "0")
	expect(t, g, "cpuset.mems", "0", "cpuset.mems", "0")
	expect(t, g, "memory.limit_in_bytes", "67108864", "memory.max", "67108864")
	expect(t, g, "memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432")
	expect(t, g, "memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432")
	expect(t, g, "pids.max", "33", "pids.max", "33")

	// Each of these is only possible in one order: both ways up and down.
	update := func(r specs.LinuxResources) {
		t.Helper()
		if err := g.Update(&r); err != nil {
			t.Fatal(err)
		}
	}
	update(specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(256 << 20)), Swap: ptr(int64(512 << 20))}, CPU: &specs.LinuxCPU{Quota: ptr(int64(100000)), Burst: ptr(uint64(90000))}})
	expect(t, g, "memory.limit_in_bytes", "268435456", "memory.max", "268435456")
	expect(t, g, "cpu.cfs_burst_us", "90000", "cpu.max.burst", "90000")
	update(specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(32 << 20)), Swap: ptr(int64(32 << 20))}, CPU: &specs.LinuxCPU{Quota: ptr(int64(10000)), Burst: ptr(uint64(0))}})
	expect(t, g, "memory.memsw.limit_in_bytes", "33554432", "memory.swap.max", "0")
	expect(t, g, "cpu.cfs_quota_us", "10000", "cpu.max", "10000 50000")
	update(specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(40000))}})
	expect(t, g, "cpu.cfs_period_us", "40000", "cpu.max", "10000 40000")
	update(specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}, CPU: &specs.LinuxCPU{Quota: ptr(int64(-1))}, Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}})
	expect(t, g, "cpu.cfs_quota_us", "-1", "cpu.max", "max 40000")
	expect(t, g, "pids.max", "max", "pids.max", "max")
	if s, err := g.Stats(); err != nil || s.Memory.Limit < 256<<20 || s.Pids.Limit != 0 {
		t.Errorf("%v %+v", err, s)
	}
	update(specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(1))}})
	expect(t, g, "cpu.idle", "1", "cpu.idle", "1")
}

func TestARefusedUpdateChangesNothing(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{
		CPU: &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(20000)), Period: ptr(uint64(50000))}, Pids: &specs.LinuxPids{Limit: ptr(int64(33))},
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20))},
	})
	err := g.Update(&specs.LinuxResources{
		CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(30000)), Period: ptr(uint64(60000)), Cpus: "4000-5000"}, Pids: &specs.LinuxPids{Limit: ptr(int64(44))},
		Memory: &specs.LinuxMemory{Limit: ptr(int64(128 << 20)), Swap: ptr(int64(256 << 20))},
	})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `writing "4000-5000" to cpuset.cpus`) {
		t.Fatalf("CPUs that do not exist: %v", err)
	}
	expect(t, g, "cpu.shares", "512", "cpu.weight", "59")
	expect(t, g, "cpu.cfs_quota_us", "20000", "cpu.max", "20000 50000")
	expect(t, g, "cpu.cfs_period_us", "50000", "", "")
	expect(t, g, "pids.max", "33", "pids.max", "33")
	expect(t, g, "memory.limit_in_bytes", "67108864", "memory.max", "67108864")
	expect(t, g, "memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432")

	if _, err := Create(g.path+"/below", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000-5000"}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a group on CPUs that do not exist: %v", err)
	}
	if _, err := Open(g.path + "/below"); !errdefs.IsNotFound(err) {
		t.Errorf("a creation that failed leaves a group: %v", err)
	}
}

func TestUnifiedFiles(t *testing.T) {
	g := newGroup(t, nil)
	err := g.Update(&specs.LinuxResources{Unified: map[string]string{"memory.high": "33554432", "pids.max": "12"}})
	if g.Version() == 1 {
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "unified") {
			t.Errorf("unified on v1: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	expect(t, g, "", "", "memory.high", "33554432")
	expect(t, g, "", "", "pids.max", "12")
	for _, name := range []string{"memory.nothing", "nothing.max", "memory", "../cgroup.procs"} {
		if err := g.Update(&specs.LinuxResources{Unified: map[string]string{name: "1"}}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBlockIO throttles the device of the root filesystem, or any disk.
func TestBlockIO(t *testing.T) {
	names, err := filepath.Glob("/sys/block/*/dev")
	if err != nil || len(names) == 0 {
		t.Skip("this machine has no block device")
	}
	var major, minor int64
	found := false
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil || strings.Contains(name, "/zram") || strings.Contains(name, "/loop") || strings.Contains(name, "/ram") {
			continue
		}
		if _, err := fmt.Sscanf(string(body), "%d:%d", &major, &minor); err == nil {
			found = true
			break
		}
	}
	if !found {
		t.Skip("this machine has no disk")
	}
	dev := device(major, minor)
	g := newGroup(t, &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
		ThrottleReadBpsDevice: throttle(major, minor, 1<<20), ThrottleWriteBpsDevice: throttle(major, minor, 2<<20),
		ThrottleReadIOPSDevice: throttle(major, minor, 100), ThrottleWriteIOPSDevice: throttle(major, minor, 200),
	}})
	expect(t, g, "blkio.throttle.read_bps_device", dev+" 1048576", "io.max", dev+" rbps=1048576 wbps=2097152 riops=100 wiops=200")
	expect(t, g, "blkio.throttle.write_iops_device", dev+" 200", "", "")
	// A refused update puts a device's line back; 0 takes it away.
	err = g.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}, BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: throttle(major, minor, 5<<20)}})
	if err == nil {
		t.Error("CPU 4000 is accepted")
	}
	expect(t, g, "blkio.throttle.read_bps_device", dev+" 1048576", "io.max", dev+" rbps=1048576 wbps=2097152 riops=100 wiops=200")
	if err := g.Update(&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: throttle(major, minor, 0)}}); err != nil {
		t.Fatal(err)
	}
	expect(t, g, "blkio.throttle.read_bps_device", "", "io.max", dev+" rbps=max wbps=2097152 riops=100 wiops=200")
	err = g.Update(&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: throttle(4000, 0, 5)}})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("a device that does not exist: %v", err)
	}
}

func TestHugePages(t *testing.T) {
	sizes, _ := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-2048kB")
	g := newGroup(t, nil)
	if len(sizes) == 0 || g.Version() == 1 && g.hierarchies.(*legacy).dir("hugetlb") == "" {
		err := g.Update(&specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}})
		if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "hugetlb") {
			t.Errorf("without the controller: %v", err)
		}
		return
	}
	if err := g.Update(&specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}); err != nil {
		t.Fatal(err)
	}
	expect(t, g, "hugetlb.2MB.limit_in_bytes", "4194304", "hugetlb.2MB.max", "4194304")
	expect(t, g, "hugetlb.2MB.rsvd.limit_in_bytes", "4194304", "hugetlb.2MB.rsvd.max", "4194304")
}

func TestAGroupOfSomebodyElseIsNotTaken(t *testing.T) {
	g := newGroup(t, nil)
	if err := Vacant(g.path); err != nil {
		t.Errorf("an empty group: %v", err)
	}
	if err := Vacant(g.path + "/none"); err != nil {
		t.Errorf("no group: %v", err)
	}
	sleeper(t, g, "sleep 100")
	if err := Vacant(g.path); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a group with a process: %v", err)
	}
	if err := Vacant(filepath.Dir(g.path)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a group above one with a process: %v", err)
	}
}

// bomb forks as fast as it can; under the group's limit its forks fail, and it
// tries again.
const bomb = `f() { f & f & wait; }; while :; do f 2>/dev/null; done`

func TestAForkBombIsPausedAndKilled(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(60))}, CPU: &specs.LinuxCPU{Shares: ptr(uint64(2))}})
	cmd := sleeper(t, g, bomb)
	count := func() int {
		pids, err := g.Procs()
		if err != nil {
			t.Fatal(err)
		}
		return len(pids)
	}
	for deadline := time.Now().Add(20 * time.Second); count() < 40; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("only %d processes", count())
		}
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := g.Freeze(ctx); err != nil {
			t.Fatal(err)
		}
		before, err := g.Procs()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
		after, err := g.Procs()
		if err != nil {
			t.Fatal(err)
		}
		if len(before) > 60 || fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("a frozen bomb goes on: %d processes, then %d", len(before), len(after))
		}
		if err := g.Thaw(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(20 * time.Second); count() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d processes live after Kill", count())
		}
	}
}

// TestKillEachWithoutCgroupKill kills a bomb one by one, as on kernels without
// cgroup.kill.
func TestKillEachWithoutCgroupKill(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(60))}})
	sleeper(t, g, bomb)
	time.Sleep(20 * time.Millisecond)
	if err := g.killEach(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		pids, err := g.Procs()
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d processes live", len(pids))
		}
	}
}

func TestADoubleForkIsKilledToo(t *testing.T) {
	g := newGroup(t, nil)
	mark := t.TempDir() + "/pid"
	sleeper(t, g, "(setsid sh -c 'trap : TERM HUP INT; echo $$ > "+mark+".new; mv "+mark+".new "+mark+"; while :; do sleep 1; done' &) ; exit 0")
	var pid int
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if body, err := os.ReadFile(mark); err == nil {
			if _, err := fmt.Sscan(string(body), &pid); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the grandchild does not start")
		}
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		// Nobody may reap it here: dead is enough.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Is(err, os.ErrNotExist) || err == nil && bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d lives: %s", pid, stat)
		}
	}
}

// TestCreateAndKillRaces makes a thousand groups with a forking process and kills
// them at once, several at a time; nothing may be left. A slow machine does fewer.
func TestCreateAndKillRaces(t *testing.T) {
	parent := newGroup(t, nil)
	total, enough := 1000, 64
	if testing.Short() {
		total = 100
	}
	const workers = 8
	end := time.Now().Add(12 * time.Second)
	failed := make(chan error, workers)
	for w := range workers {
		go func() {
			for i := w; i < total && (i < enough || time.Now().Before(end)); i += workers {
				if err := race(fmt.Sprintf("%s/%d", parent.path, i), i%2 == 0); err != nil {
					failed <- fmt.Errorf("race %d: %w", i, err)
					return
				}
			}
			failed <- nil
		}()
	}
	for range workers {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(parent.procs(), "*/cgroup.procs"))
	if err != nil || len(left) > 0 {
		t.Errorf("groups are left: %v %v", left, err)
	}
}

func race(path string, frozen bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	g, err := Create(path, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(20))}})
	if err != nil {
		return err
	}
	cmd, err := command(ctx, g, "sleep 100 & sleep 100 & wait")
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return errors.Join(err, g.Delete(ctx))
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	if frozen {
		if err := g.Freeze(ctx); err != nil {
			return err
		}
	}
	for { // the process may still be on its way in
		if err := g.Kill(); err != nil {
			return err
		}
		select {
		case <-ended:
			// Its children are orphans, which may come after the first look, and take
			// their time to die on a busy machine.
			for {
				err := errors.Join(g.Kill(), g.Delete(ctx))
				if !errors.Is(err, unix.EBUSY) || ctx.Err() != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}
