package native_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/native"
	"github.com/davit-engine/davit/plugins/runtime-native/systemd/systemdtest"
	"github.com/davit-engine/davit/sdk/runtime"
)

// TestScopes: a cgroupsPath in systemd's form is a scope of a stand-in for systemd,
// from creation over adoption by the next driver to removal. The container's monitor
// is in another one.
func TestScopes(t *testing.T) {
	b := newBox(t, "read line; echo $line >/out/said; sleep 600")
	fake := systemdtest.Start(t)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", fake.Address)
	run := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	driver, err := native.New(run, lab.monitor, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { driver.Close() })
	slice := fmt.Sprintf("davitnative%d.slice", os.Getpid())
	b.spec.Linux.CgroupsPath = slice + ":davit:" + b.id
	b.spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(77))}}
	body, err := json.Marshal(b.spec)
	if err != nil {
		t.Fatal(err)
	}
	create := runtime.Create{ID: b.id, Spec: body, Rootfs: b.rootfs, IO: runtime.IO{Stdout: true, Stderr: true, Stdin: true}}
	process, err := driver.Create(b.context(), create)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = driver.Delete(b.context(), b.id, "", true) }()
	unit := "davit-" + b.id + ".scope"
	cgroups := func(pid int) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	// In every hierarchy in which systemd counts processes, too.
	if text := cgroups(process.PID); strings.Count(text, "/"+slice+"/"+unit+"\n") != strings.Count(text, "\n") {
		t.Errorf("the container is in\n%s, want %s everywhere", text, unit)
	}
	if got := fake.Get(unit, "TasksMax"); got != uint64(77) {
		t.Errorf("systemd knows of a limit of %v processes", got)
	}
	var record struct{ Monitor int }
	if text, err := os.ReadFile(filepath.Join(run, b.id, "container.json")); err != nil || json.Unmarshal(text, &record) != nil {
		t.Fatal(string(text), err)
	}
	if text := cgroups(record.Monitor); !strings.Contains(text, "/system.slice/davit-monitors.scope\n") || strings.Contains(text, unit) {
		t.Errorf("the monitor is in\n%s", text)
	}
	if err := driver.Start(b.context(), b.id, ""); err != nil {
		t.Fatal(err)
	}
	// A limit changes for the kernel and for systemd.
	if err := driver.Update(b.context(), b.id, json.RawMessage(`{"pids":{"limit":88}}`)); err != nil {
		t.Fatal(err)
	}
	if got := fake.Get(unit, "TasksMax"); got != uint64(88) {
		t.Errorf("after an update systemd knows of a limit of %v processes", got)
	}
	if stats, err := driver.Stats(b.context(), b.id); err != nil || stats.Pids.Limit != 88 {
		t.Errorf("after an update the kernel's limit is %+v, %v", stats.Pids, err)
	}

	driver.Close()
	if driver, err = native.New(run, lab.monitor, hclog.NewNullLogger()); err != nil {
		t.Fatal(err)
	}
	if state, err := driver.Adopt(b.context(), b.id); err != nil || state.Status != runtime.StatusRunning {
		t.Errorf("the next driver finds %+v, %v", state, err)
	}
	if _, err := driver.Delete(b.context(), b.id, "", true); err != nil {
		t.Fatal(err)
	}
	if left := fake.Get(unit, "Slice"); left != nil {
		t.Errorf("%s is left", unit)
	}
	left, err := filepath.Glob("/sys/fs/cgroup/*/" + slice + "/" + unit)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}

	// A creation that fails leaves no unit.
	b.spec.Process.Cwd = "relative"
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_NONSENSE"}
	if create.Spec, err = json.Marshal(b.spec); err != nil {
		t.Fatal(err)
	}
	if _, err := driver.Create(b.context(), create); err == nil {
		t.Error("nonsense was created")
	}
	if left := fake.Get(unit, "Slice"); left != nil {
		t.Errorf("a failed creation left %s", unit)
	}
}
