package fork

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making namespaces needs root")
	}
}

// say starts a shell script in the namespaces of c and answers what it prints.
func say(t *testing.T, c Child, script string) string {
	t.Helper()
	shell, err := os.Open("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	defer shell.Close()
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	c.Executable, c.Args, c.Env = int(shell.Fd()), []string{"sh", "-c", script}, []string{"PATH=/usr/bin:/bin"}
	c.Files = []uintptr{null.Fd(), out.Fd(), out.Fd()}
	pid, err := c.Start()
	if err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || status != 0 {
		t.Errorf("the child ended with %#x, %v", status, err)
	}
	body, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(body))
}

func TestUserNamespace(t *testing.T) {
	requireRoot(t)
	maps := []Map{{0, 100000, 1000}, {1000, 200000, 5}}
	fd, err := UserNamespace(maps, maps[:1])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	out := say(t, Child{Enter: []Namespace{{fd, unix.CLONE_NEWUSER}}, Flags: unix.CLONE_NEWUTS | unix.CLONE_NEWPID, CgroupFD: -1},
		"id -u; id -g; id -G; echo $$; cat /proc/self/uid_map /proc/self/gid_map | awk '{print $1, $2, $3}'; hostname inside && hostname")
	if want := "0\n0\n0\n1\n0 100000 1000\n1000 200000 5\n0 100000 1000\ninside"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestTimeNamespace(t *testing.T) {
	requireRoot(t)
	out := say(t, Child{TimeOffsets: []byte("boottime 86400000 0\n"), CgroupFD: -1, OOMScoreAdj: "77"},
		"awk '{print ($1 > 86400000)}' /proc/uptime; cat /proc/self/oom_score_adj; awk '{print $1, $2}' /proc/self/timens_offsets")
	if want := "1\n77\nmonotonic 0\nboottime 86400000"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestFailuresNameTheStep(t *testing.T) {
	requireRoot(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for want, c := range map[string]Child{
		"executing: ":               {},
		"joining a namespace: ":     {Enter: []Namespace{{int(null.Fd()), unix.CLONE_NEWUSER}}},
		"setting the time offsets:": {TimeOffsets: []byte("nonsense\n")},
		"cloning: ":                 {Flags: unix.CLONE_NEWNS | unix.CLONE_FS},
	} {
		c.CgroupFD, c.Executable, c.Args, c.Files = -1, int(null.Fd()), []string{"x"}, []uintptr{null.Fd()}
		if pid, err := c.Start(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("want an error with %q, got %d, %v", want, pid, err)
		}
	}
	if _, err := UserNamespace([]Map{{0, 0, 0}}, nil); err == nil {
		t.Error("a map of nothing was taken")
	}
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("child %d is left, %v", pid, err)
	}
}

func TestIdle(t *testing.T) {
	idle, err := NewIdle()
	if err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", idle.PID))
	for try := 0; err == nil && len(fds) != 1 && try < 1000; try++ { // it has only just been forked
		time.Sleep(time.Millisecond)
		fds, err = os.ReadDir(fmt.Sprintf("/proc/%d/fd", idle.PID))
	}
	if err != nil || len(fds) != 1 {
		t.Errorf("descriptors of an idle process: %v, %v; want its end of a pipe and nothing else", fds, err)
	}
	idle.End()
	if err := unix.Kill(idle.PID, 0); err != unix.ESRCH {
		t.Errorf("signalling an idle process that has ended: %v", err)
	}
}
