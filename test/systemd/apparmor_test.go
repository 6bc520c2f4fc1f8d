package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func needAppArmor(t *testing.T) {
	t.Helper()
	if body, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err != nil || !strings.HasPrefix(string(body), "Y") {
		t.Skip("the kernel has no AppArmor")
	}
}

// A profile of the spec confines init and execs; one that is not loaded is an error.
func TestAppArmorOCI(t *testing.T) {
	needAppArmor(t)
	profile := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(profile, []byte("profile davit-test flags=(attach_disconnected) {\n file,\n capability,\n network,\n signal,\n deny /tmp/secret w,\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "apparmor_parser", "--skip-cache", "--replace", profile)
	t.Cleanup(func() { _, _ = output(t, "apparmor_parser", "--remove", profile) })
	with := func(name string, args ...string) string {
		return bundle(t, func(s *specs.Spec) { s.Process.Args, s.Process.ApparmorProfile = args, name })
	}
	const script = "cat /proc/self/attr/current; echo x >/tmp/secret; echo x >/tmp/other && echo written"
	for _, out := range []string{must(t, "davit-oci", "run", "--bundle", with("davit-test", "sh", "-c", script), "aa")} {
		if !strings.Contains(out, "davit-test (enforce)") || !strings.Contains(out, "/tmp/secret: Permission denied") || !strings.Contains(out, "written") {
			t.Errorf("a confined container says %q", out)
		}
	}
	must(t, "davit-oci", "run", "--detach", "--bundle", with("davit-test", "sleep", "1000"), "aa")
	t.Cleanup(func() { _, _ = output(t, "davit-oci", "delete", "--force", "aa") })
	if out := must(t, "davit-oci", "exec", "aa", "sh", "-c", script); !strings.Contains(out, "davit-test (enforce)") || !strings.Contains(out, "/tmp/secret: Permission denied") || !strings.Contains(out, "written") {
		t.Errorf("a confined exec says %q", out)
	}
	if out, err := output(t, "davit-oci", "run", "--bundle", with("davit-nosuch", "true"), "bb"); err == nil || !strings.Contains(out, "davit-nosuch") {
		t.Errorf("an unknown profile: %q, %v", out, err)
	}
}

// The engine confines containers by a profile of its own unless they say otherwise.
func TestAppArmorEngine(t *testing.T) {
	needAppArmor(t)
	must(t, "systemctl", "start", "davitd")
	t.Cleanup(func() { _, _ = output(t, "systemctl", "stop", "davitd") })
	must(t, "davit", "import", archive(t), "busybox")
	if out := must(t, "docker", "-H", "unix:///run/davit.sock", "info", "--format", "{{.SecurityOptions}}"); !strings.Contains(out, "name=apparmor") {
		t.Errorf("docker info has the security options %s", out)
	}
	const current = "cat /proc/self/attr/current"
	for _, c := range []struct{ option, want string }{
		{"--rm", "davit-default (enforce)"}, {"--privileged", "unconfined"}, {"--security-opt=apparmor=unconfined", "unconfined"},
	} {
		if out := must(t, "davit", "run", "--rm", c.option, "busybox", "sh", "-c", current); out != c.want {
			t.Errorf("%s: the profile is %q, want %q", c.option, out, c.want)
		}
	}
	if out, err := output(t, "davit", "run", "--rm", "--security-opt", "apparmor=davit-nosuch", "busybox", "true"); err == nil || !strings.Contains(out, "davit-nosuch") {
		t.Errorf("an unknown profile: %q, %v", out, err)
	}
	must(t, "davit", "run", "-d", "--name", "aa", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined", "busybox", "sleep", "1000")
	t.Cleanup(func() { _, _ = output(t, "davit", "rm", "-f", "aa") })
	if out := must(t, "davit", "inspect", "--format", "{{.AppArmorProfile}}", "aa"); out != "davit-default" {
		t.Errorf("inspect shows the profile %q", out)
	}
	if out := must(t, "davit", "exec", "aa", "sh", "-c", current); out != "davit-default (enforce)" {
		t.Errorf("an exec has the profile %q", out)
	}
	if out := must(t, "davit", "exec", "--privileged", "aa", "sh", "-c", current); out != "unconfined" {
		t.Errorf("a privileged exec has the profile %q", out)
	}
	// With every capability and no other filter.
	for _, forbidden := range []string{"echo 1 >/proc/sys/kernel/panic", "echo b >/proc/sysrq-trigger", "busybox mount -t tmpfs none /tmp", "echo 1 >/proc/sys/vm/overcommit_memory"} {
		if out, err := output(t, "davit", "exec", "aa", "sh", "-c", forbidden); err == nil || !strings.Contains(strings.ToLower(out), "permission denied") {
			t.Errorf("%s: %q, %v", forbidden, out, err)
		}
	}
	for _, allowed := range []string{"echo 0 >/proc/self/oom_score_adj", "touch /tmp/x", "echo 4096 >/proc/sys/kernel/shmmni"} {
		if out, err := output(t, "davit", "exec", "aa", "sh", "-c", allowed); err != nil {
			t.Errorf("%s: %q, %v", allowed, out, err)
		}
	}
	if _, err := exec.LookPath("aa-status"); err == nil {
		if out := must(t, "aa-status"); !strings.Contains(out, "davit-default") {
			t.Errorf("aa-status says %s", out)
		}
	}
	must(t, "davit", "stop", "-t", "5", "aa")
}
