package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-engine/davit/test/private"
)

// debianArchive is a small Debian, made once by mmdebstrap and kept beside bin/.
func debianArchive(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("DAVIT_DEBIAN"); path != "" {
		return path
	}
	bin, err := private.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(bin), "build", "debian.tar")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		t.Fatal(err)
	}
	suite := "stable"
	for line := range strings.Lines(string(release)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			suite = name
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(filepath.Dir(path), "debian-new.tar")
	out, err := exec.CommandContext(t.Context(), "mmdebstrap", "--variant=minbase", "--mode=root", "--quiet", suite, fresh).CombinedOutput()
	if err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	if err := os.Rename(fresh, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestADebianImage pulls a whole distribution and works in it.
func TestADebianImage(t *testing.T) {
	t.Parallel()
	c := newClient(t, "docker", engine)
	address := realRegistry(t)
	local, ref := c.own("local"), address+"/debian:stable"
	c.ok("import", "--change", `CMD ["bash"]`, debianArchive(t), local)
	push(t, ref, c.saved(local))
	c.ok("rmi", local)
	c.contains(c.ok("pull", ref), "Downloaded newer image")
	t.Cleanup(func() { c.run("rmi", "-f", ref) })
	run := func(args ...string) string { t.Helper(); return c.ok(append([]string{"run", "--rm"}, args...)...) }

	c.contains(run(ref, "apt-get", "--version"), "apt ")
	c.equal(run(ref, "perl", "-e", `my %h = map { $_ => $_ ** 2 } 1..5; print join(",", map { "$_=$h{$_}" } sort keys %h), "\n"`), "1=1,2=4,3=9,4=16,5=25")
	c.equal(run("-u", "www-data", ref, "bash", "-c", "id -un; id -gn; echo $HOME"), "www-data\nwww-data\n/var/www")
	c.equal(run("-u", "1234:4321", ref, "id"), "uid=1234 gid=4321 groups=4321")
	c.fails(1, "Read-only file system", "run", "--rm", "--read-only", ref, "touch", "/etc/x")
	c.equal(run("--read-only", "--tmpfs", "/tmp", ref, "bash", "-c", "echo written > /tmp/x && cat /tmp/x"), "written")
	c.equal(run("--group-add", "audio", ref, "id", "-Gn"), "root audio")

	oom := c.own("oom")
	t.Cleanup(func() { c.run("rm", "-f", oom) })
	c.fails(137, "", "run", "--name", oom, "--memory", "32m", "--memory-swap", "32m", ref, "perl", "-e", `my @a; push @a, "x" x 1048576 for 1..200; print scalar @a`)
	c.equal(c.ok("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", oom), "true 137")
	c.contains(run("--pids-limit", "20", ref, "perl", "-e", `my $n = 0; for (1..50) { my $p = fork; last unless defined $p; if (!$p) { sleep 2; exit } $n++ } print $n < 20 ? "limited" : "free"`), "limited")
	c.equal(run("--cpus", "0.5", ref, "bash", "-c", "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null | cut -d' ' -f1"), "50000")

	c.fails(1, "Operation not permitted", "run", "--rm", "--cap-drop", "CHOWN", ref, "chown", "nobody", "/tmp")
	c.fails(1, "Operation not permitted", "run", "--rm", ref, "unshare", "--user", "true")
	c.fails(32, "must be superuser to use mount", "run", "--rm", "--cap-add", "SYS_ADMIN", "--security-opt", "no-new-privileges", "-u", "nobody", ref, "mount", "-t", "tmpfs", "x", "/mnt")
	c.equal(run(ref, "perl", "-e", `my $o = ""; my $r = syscall(175, 0, 0, $o); print $r, " ", $!+0`), "-1 1") // init_module: EPERM
	// A layer that a container wrote, through a whole package.
	c.contains(run(ref, "bash", "-c", "dpkg --verify >/dev/null; dpkg -l | wc -l; mkdir /x && mv /etc/apt /x/ && ls /x/apt"), "sources.list")
}
