package e2e

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The most powerful container there is tries to write to the monitor's program,
// which is also the one that sets containers up and joins them.
func TestCVE_2019_5736_TheMonitorsProgramIsNotWritten(t *testing.T) {
	c := newClient(t, "davit", engine)
	program := filepath.Join(engine.Bin, "davit-monitor")
	before := read(t, program)
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	id := c.background("box", "busybox", "sleep", "1000")
	exe := fmt.Sprintf("/proc/%d/exe", monitorOf(t, id))
	script := `exe=` + exe + `
		readlink $exe >/dev/null || echo "the monitor is not seen"
		chmod ` + fmt.Sprintf("%o", info.Mode().Perm()) + ` $exe && echo "mode was changed"
		touch $exe && echo "times were changed"
		(: >>$exe) && echo "opened for writing"
		exec 9<$exe
		(: >>/proc/self/fd/9) && echo "opened for writing by a descriptor"
		mount -o remount,bind,rw none $exe && echo "remounted"
		mount -o remount,bind,rw none /proc/self/fd/9 && echo "remounted by a descriptor"
		echo done`
	r := c.run("run", "--rm", "--privileged", "--pid", "host", "busybox", "sh", "-c", script)
	c.equal(r.out, "done\n")
	c.contains(r.err, "Read-only file system") // not merely busy: that ends with the container
	if after := read(t, program); !bytes.Equal([]byte(before), []byte(after)) {
		t.Error("the program was changed")
	}
	// The way of the CVE: the program of an exec is the one that joins the container.
	c.fails(2, "", "exec", id, "/proc/self/exe")
}

// Working directories that lead out, of a run and of an exec.
func TestCVE_2024_21626_WorkingDirectories(t *testing.T) {
	c := newClient(t, "davit", engine)
	id := c.background("box", "busybox", "sleep", "1000")
	for fd := 3; fd < 9; fd++ {
		dir := fmt.Sprintf("/proc/self/fd/%d", fd)
		if r := c.run("run", "--rm", "-w", dir, "busybox", "ls", "-a"); r.code == 0 {
			t.Errorf("%s is a directory with\n%s", dir, r.out)
		}
		if r := c.run("exec", "-w", dir, id, "ls", "-a"); r.code == 0 {
			t.Errorf("%s of an exec is a directory with\n%s", dir, r.out)
		}
	}
	outside := t.TempDir()
	root := fmt.Sprintf("/proc/%d/root", engine.PID())
	for _, dir := range []string{root, root + outside + "/made"} {
		if r := c.run("run", "--rm", "--pid", "host", "-w", dir, "busybox", "ls", "-a"); r.code == 0 {
			t.Errorf("%s is a directory with\n%s", dir, r.out)
		}
	}
	if _, err := os.Lstat(outside + "/made"); err == nil {
		t.Error("the working directory was made on the host")
	}
}

func TestCVE_2019_16884_VolumesOverProc(t *testing.T) {
	both(t, func(c *client) {
		c.fails(125, "is not of type proc", "run", "--rm", "-v", c.own("v")+":/proc", "busybox", "true")
		c.fails(125, "is inside /proc", "run", "--rm", "-v", c.own("v")+":/proc/self/attr", "busybox", "true")
		c.run("volume", "rm", c.own("v"))
	})
}

// The standard streams and nothing else, and no capability that a program with
// file capabilities would get back.
func TestWhatAProgramStartsWith(t *testing.T) {
	both(t, func(c *client) {
		id := c.background("box", "busybox", "sleep", "1000")
		for _, start := range [][]string{{"run", "--rm", "busybox"}, {"exec", id}} {
			c.equal(c.ok(append(start, "grep", "-E", "CapInh|CapAmb", "/proc/self/status")...), "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000")
			// The fourth is that of ls itself, which reads the directory.
			c.equal(strings.Join(strings.Fields(c.ok(append(start, "ls", "/proc/self/fd")...)), " "), "0 1 2 3")
		}
	})
}

// The engine loads no libraries at all: a container that is copied from has no
// way to bring its own.
func TestCVE_2019_14271_TheEngineIsStatic(t *testing.T) {
	for _, name := range []string{"davitd", "davit-monitor", "davit", "plugins/davit-runtime-native"} {
		f, err := elf.Open(filepath.Join(engine.Bin, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("%s is dynamically linked", name)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Users of the host must not reach the files of containers, among which are
// programs that run as root whoever starts them.
func TestCVE_2021_41091_DataIsNotReachable(t *testing.T) {
	c := newClient(t, "davit", engine)
	c.background("box", "busybox", "sh", "-c", "cp /bin/busybox /bin/su; chmod 4755 /bin/su; sleep 1000")
	for _, dir := range []string{filepath.Join(engine.Root, "drivers"), filepath.Join(engine.Root, "containers"), filepath.Join(engine.Run, "drivers")} {
		reachable := true
		for at := dir; strings.HasPrefix(at, engine.Dir) && at != engine.Dir; at = filepath.Dir(at) {
			info, err := os.Stat(at)
			if err != nil {
				t.Fatal(err)
			}
			reachable = reachable && info.Mode().Perm()&0o001 != 0
		}
		if reachable {
			t.Errorf("%s can be entered by everybody", dir)
		}
	}
}

// Part of a volume: what is asked for, and nothing that a link leads to.
func TestCVE_2021_25741_PartOfAVolume(t *testing.T) {
	c := newClient(t, "davit", engine)
	outside := t.TempDir()
	write(t, outside+"/secret", "secret")
	volume := c.own("v")
	c.Cleanup(func() { c.run("volume", "rm", "-f", volume) })
	c.ok("run", "--rm", "-v", volume+":/v", "busybox", "sh", "-c", "mkdir -p /v/a/b; echo yes >/v/a/b/file; ln -s a/b /v/inside; ln -s "+outside+" /v/out; ln -s ../../../../../../../.."+outside+" /v/up")
	for _, part := range []string{"a/b", "inside"} {
		c.equal(c.ok("run", "--rm", "--mount", "type=volume,source="+volume+",target=/data,volume-subpath="+part, "busybox", "cat", "/data/file"), "yes")
	}
	for _, part := range []string{"out", "up", "nosuch"} {
		if r := c.run("run", "--rm", "--mount", "type=volume,source="+volume+",target=/data,volume-subpath="+part, "busybox", "ls", "/data"); r.code == 0 {
			t.Errorf("part %s of the volume shows\n%s", part, r.out)
		}
	}
}
