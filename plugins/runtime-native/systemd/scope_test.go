package systemd_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/systemd"
	"github.com/davit-engine/davit/plugins/runtime-native/systemd/systemdtest"
	"github.com/davit-engine/davit/sdk/monitor/fork"
)

func start(t *testing.T) (*systemdtest.Systemd, systemd.Scope, *fork.Idle) {
	t.Helper()
	fake := systemdtest.Start(t)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", fake.Address)
	idle, err := fork.NewIdle()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if idle.PID != 0 {
			idle.End()
		}
	})
	return fake, systemd.Scope{Name: fmt.Sprintf("davit-test-%d.scope", os.Getpid()), Slice: fmt.Sprintf("davit-test%d.slice", os.Getpid())}, idle
}

func ptr[T any](v T) *T { return &v }

func TestScope(t *testing.T) {
	fake, scope, idle := start(t)
	limits := &specs.LinuxResources{
		Pids:    &specs.LinuxPids{Limit: ptr(int64(33))},
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(136)), Access: "rw"}, {Allow: true, Type: "b", Access: "m"}},
	}
	annotations := map[string]string{"org.systemd.property.TimeoutStopSec": "4"}
	if err := scope.Start(t.Context(), idle.PID, "a box", limits, annotations); err != nil {
		t.Fatal(err)
	}
	for property, want := range map[string]string{
		"Delegate": "true", "DefaultDependencies": "false", "Slice": scope.Slice, "Description": "a box", "PIDs": fmt.Sprintf("[%d]", idle.PID),
		"TasksMax": "33", "TimeoutStopUSec": "4000000", "MemoryAccounting": "true",
	} {
		if got := fmt.Sprint(fake.Get(scope.Name, property)); got != want {
			t.Errorf("%s is %s, want %s", property, got, want)
		}
	}
	policy, allowed := "<nil>", "<nil>"
	if cgroup.Version() == 1 {
		policy, allowed = "strict", "[[/dev/char/1:3 rwm] [char-136 rw] [block-* m]]"
	}
	if got := fmt.Sprint(fake.Get(scope.Name, "DevicePolicy")); got != policy {
		t.Errorf("DevicePolicy is %s, want %s", got, policy)
	}
	if got := fmt.Sprint(fake.Get(scope.Name, "DeviceAllow")); got != allowed {
		t.Errorf("DeviceAllow is %s, want %s", got, allowed)
	}
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", idle.PID))
	if err != nil || !strings.Contains(string(body), scope.Path()+"\n") {
		t.Errorf("the process is in %s, %v; want %s", body, err, scope.Path())
	}

	group, err := cgroup.Create(scope.Path(), limits)
	if err != nil {
		t.Fatal(err)
	}
	// systemd is told of what the kernel has.
	change := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(44))}}
	if err := group.Update(change); err != nil {
		t.Fatal(err)
	}
	if err := scope.Update(t.Context(), group, change); err != nil {
		t.Fatal(err)
	}
	if got := fake.Get(scope.Name, "TasksMax"); got != uint64(44) {
		t.Errorf("after an update TasksMax is %v", got)
	}

	idle.End()
	idle.PID = 0
	if err := scope.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := scope.Stop(t.Context()); err != nil {
		t.Errorf("stopping a scope that is gone: %v", err)
	}
	if err := group.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if left := fake.Units(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestScopeFailures(t *testing.T) {
	fake, scope, idle := start(t)
	if err := scope.Start(t.Context(), idle.PID, "x", nil, map[string]string{"org.systemd.property.Nonsense": "1"}); err == nil || !strings.Contains(err.Error(), "Cannot set property Nonsense") {
		t.Errorf("an unknown property: %v", err)
	}
	fake.Fail("failed")
	if err := scope.Start(t.Context(), idle.PID, "x", nil, nil); err == nil || !strings.Contains(err.Error(), `systemd's job ended as "failed"`) {
		t.Errorf("a job that fails: %v", err)
	}
	fake.Fail("silent")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := scope.Start(ctx, idle.PID, "x", nil, nil); err == nil || ctx.Err() == nil || !strings.Contains(err.Error(), "job does not end") {
		t.Errorf("a job that does not end: %v", err)
	}
	fake.Fail("")
	// There is a unit now, with a process in it, and it stays.
	if err := scope.Start(t.Context(), idle.PID, "x", nil, nil); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a unit that is there: %v", err)
	}
	if err := scope.Ensure(t.Context(), idle.PID, "x"); err != nil {
		t.Errorf("ensuring a unit that is there: %v", err)
	}
}

// A name is free again when systemd has heard of the end of its last process.
func TestScopeThatLeaves(t *testing.T) {
	_, scope, idle := start(t)
	if err := scope.Start(t.Context(), idle.PID, "x", nil, nil); err != nil {
		t.Fatal(err)
	}
	second, err := fork.NewIdle()
	if err != nil {
		t.Fatal(err)
	}
	defer second.End()
	idle.End()
	idle.PID = 0
	if err := scope.Start(t.Context(), second.PID, "x", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := scope.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNoSystemd(t *testing.T) {
	if systemd.Running() {
		t.Skip("systemd runs here")
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none")
	err := systemd.Scope{Name: "davit-x.scope", Slice: "system.slice"}.Stop(t.Context())
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "no systemd is running here") {
		t.Errorf("%v", err)
	}
}
