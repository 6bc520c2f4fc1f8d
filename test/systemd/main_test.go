// Package systemd tests davit where systemd is the init: scopes of the cgroup
// driver, and the unit davitd.service as it is installed. It makes units and restarts
// a service, so it runs only in a guest that is made for it (test/vm/run.sh -systemd).
package systemd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

func TestMain(m *testing.M) {
	if os.Getenv("DAVIT_SYSTEMD_GUEST") == "" {
		fmt.Println("not in the guest of test/vm/run.sh -systemd: nothing is tested")
		return
	}
	os.Exit(m.Run())
}

// output runs a command and answers what it said on both streams, without the space
// at its ends.
func output(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), private.Patience(30*time.Second))
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	// To a file: what a container keeps open is not waited for.
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	err = cmd.Run()
	body, readErr := os.ReadFile(file.Name())
	if readErr != nil {
		t.Fatal(readErr)
	}
	return strings.TrimSpace(string(bytes.ToValidUTF8(body, nil))), err
}

// must is output of a command that has to succeed.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := output(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// property is what systemd knows of a unit.
func property(t *testing.T, unit, name string) string {
	t.Helper()
	return must(t, "systemctl", "show", "--property="+name, "--value", unit)
}

// expect compares properties of a unit.
func expect(t *testing.T, when, unit string, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got := property(t, unit, name); got != value {
			t.Errorf("%s %s of %s is %q, want %q", when, name, unit, got, value)
		}
	}
}

// file is a file of a unit's cgroup: on v1 in the hierarchy of its controller.
func file(t *testing.T, unit, name string) string {
	t.Helper()
	controller, _, _ := strings.Cut(name, ".")
	for _, path := range []string{"/sys/fs/cgroup/system.slice/", "/sys/fs/cgroup/" + controller + "/system.slice/"} {
		if body, err := os.ReadFile(path + unit + "/" + name); err == nil {
			return strings.TrimSpace(string(body))
		}
	}
	t.Errorf("%s has no %s", unit, name)
	return ""
}

// unified says whether this is cgroup v2.
func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// gone checks that systemd and the kernel know nothing of a unit any more.
func gone(t *testing.T, unit string) {
	t.Helper()
	eventually(t, unit+" is gone", func() bool {
		return must(t, "systemctl", "list-units", "--all", "--plain", "--no-legend", unit) == ""
	})
	for _, pattern := range []string{"/sys/fs/cgroup/system.slice/", "/sys/fs/cgroup/*/system.slice/"} {
		if left, err := filepath.Glob(pattern + unit); err != nil || len(left) > 0 {
			t.Errorf("cgroups of %s are left: %v, %v", unit, left, err)
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(private.Patience(20 * time.Second))
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not yet: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
