package sandbox_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/launch"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// tryExec joins a container by a further process.
func (b *box) tryExec(init *stage, change func(*sandbox.Process)) (*stage, error) {
	b.Helper()
	pidfd, err := unix.PidfdOpen(init.PID, 0)
	b.check(err)
	defer func() { _ = unix.Close(pidfd) }()
	config := sandbox.Config{Process: b.config.Process, Join: sandbox.Namespaces}
	change(&config.Process)
	return b.start(launch.ExecName, config, 0, pidfd)
}

func (b *box) exec(init *stage, change func(*sandbox.Process)) *stage {
	b.Helper()
	s, err := b.tryExec(init, change)
	b.check(err)
	return s
}

// mountPoint is a line of mountinfo.
type mountPoint struct{ root, path, kind string }

func mountInfo(t *testing.T, pid int) string {
	t.Helper()
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func mountPoints(t *testing.T, pid int) []mountPoint {
	t.Helper()
	var list []mountPoint
	for line := range strings.Lines(mountInfo(t, pid)) {
		before, after, _ := strings.Cut(line, " - ")
		f := strings.Fields(before)
		list = append(list, mountPoint{root: f[3], path: f[4], kind: strings.Fields(after)[0]})
	}
	return list
}

// domainname reads what the uts namespace of a process has.
func domainname(t *testing.T, pid int) string {
	t.Helper()
	name := make(chan string, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is in the wrong namespace
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/uts", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWUTS)
			_ = unix.Close(fd)
		}
		var uts unix.Utsname
		if err == nil {
			err = unix.Uname(&uts)
		}
		if err != nil {
			name <- err.Error()
			return
		}
		name <- unix.ByteSliceToString(uts.Domainname[:])
	}()
	return <-name
}

// inChild runs the calling test again in a process of its own, whose parent
// thread was changed before, and answers whether this is that process.
func inChild(t *testing.T, change func() error) bool {
	t.Helper()
	const mark = "DAVIT_TEST_CHILD"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("namespaces and mounts need root")
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := change()
		if err == nil {
			child := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1")
			child.Args[0], child.Env = os.Args[0], append(os.Environ(), mark+"="+t.Name())
			var output []byte
			if output, err = child.CombinedOutput(); err != nil {
				err = fmt.Errorf("%w\n%s", err, output)
			}
		}
		result <- err
	}()
	if err := <-result; err != nil {
		t.Error(err)
	}
	return false
}

// inheritAll makes all the thread's capabilities inheritable.
func inheritAll() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	for i := range data {
		data[i].Inheritable = data[i].Permitted
	}
	return unix.Capset(&header, &data[0])
}
