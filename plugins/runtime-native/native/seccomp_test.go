package native_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// filter lets a container do all but what the rules say.
func filter(rules ...specs.LinuxSyscall) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: rules}
}

func rule(action specs.LinuxSeccompAction, errno uint, names ...string) specs.LinuxSyscall {
	r := specs.LinuxSyscall{Names: names, Action: action}
	if errno > 0 {
		r.ErrnoRet = &errno
	}
	return r
}

func TestSeccompDecides(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script, want string
		rule               specs.LinuxSyscall
		code               int
	}{
		{"errno", "busybox mkdir /tmp/x", "mkdir: can't create directory '/tmp/x': Disk quota exceeded", rule(specs.ActErrno, uint(unix.EDQUOT), "mkdir", "mkdirat"), 1},
		{"default errno", "busybox mkdir /tmp/x", "mkdir: can't create directory '/tmp/x': Operation not permitted", rule(specs.ActErrno, 0, "mkdir", "mkdirat"), 1},
		{"kill process", "busybox mkdir /tmp/x; echo $?", "159", rule(specs.ActKillProcess, 0, "mkdir", "mkdirat"), 0},
		{"kill thread", "busybox mkdir /tmp/x; echo $?", "159", rule(specs.ActKillThread, 0, "mkdir", "mkdirat"), 0},
		{"trap", "busybox mkdir /tmp/x; echo $?", "159", rule(specs.ActTrap, 0, "mkdir", "mkdirat"), 0},
		{"trace without a tracer", "busybox mkdir /tmp/x", "mkdir: can't create directory '/tmp/x': Function not implemented", rule(specs.ActTrace, 0, "mkdir", "mkdirat"), 1},
		{"log", "busybox mkdir /tmp/x && echo made", "made", rule(specs.ActLog, 0, "mkdir", "mkdirat"), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, c.script)
			b.spec.Linux.Seccomp = filter(c.rule)
			out, code := b.run()
			// Beside it the shell says of a killed process that it had a bad system call.
			if !slices.Contains(strings.Split(out, "\n"), c.want) || code != c.code {
				t.Errorf("%q, code %d", out, code)
			}
		})
	}
}

// TestSeccompIsInstalledLast: with no_new_privs a filter may forbid everything
// that sets a process up, capabilities among it.
func TestSeccompIsInstalledLast(t *testing.T) {
	t.Parallel()
	names := []string{"capset", "prctl", "setuid", "setresuid", "setgid", "setresgid", "setgroups", "mount", "pivot_root", "unshare", "setns", "chdir", "sendmsg", "recvmsg", "memfd_create"}
	for _, strict := range []bool{true, false} {
		b := newBox(t, "busybox grep -E 'CapEff|NoNewPrivs' /proc/self/status; busybox mount -t tmpfs x /tmp")
		b.spec.Process.NoNewPrivileges = strict
		if !strict {
			names = names[1:] // without it capabilities are set under the filter
			names[0] = "setuid"
		}
		b.spec.Linux.Seccomp = filter(rule(specs.ActErrno, uint(unix.EXDEV), names...))
		out, code := b.run()
		if !strings.Contains(out, fmt.Sprintf("NoNewPrivs:\t%d", map[bool]int{true: 1}[strict])) || !strings.Contains(out, "Invalid cross-device link") && !strings.Contains(out, "Cross-device link") || code == 0 {
			t.Errorf("no_new_privs %v: %q, code %d", strict, out, code)
		}
	}
}

func TestExecsHaveTheFilter(t *testing.T) {
	t.Parallel()
	b := newBox(t, "busybox sleep 600")
	b.spec.Linux.Seccomp = filter(rule(specs.ActErrno, uint(unix.EDQUOT), "mkdir", "mkdirat"))
	b.start()
	if out := b.exec("busybox mkdir /tmp/x", nil); !strings.Contains(out, "quota") {
		t.Errorf("an exec's mkdir: %q", out)
	}
	if out := b.exec("busybox mkdir /tmp/y", func(p *specs.Process) { p.NoNewPrivileges, p.Capabilities = true, nil }); !strings.Contains(out, "quota") {
		t.Errorf("a privileged exec's mkdir: %q", out)
	}
}

// agent is a seccomp agent: it answers each mkdir by what its path is.
type agent struct {
	t      *testing.T
	path   string
	mu     sync.Mutex
	states []specs.ContainerProcessState
	done   sync.WaitGroup
}

func newAgent(t *testing.T) *agent {
	a := &agent{t: t, path: filepath.Join(t.TempDir(), "agent.sock")}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = listener.Close()
		a.done.Wait()
	})
	a.done.Go(func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			a.done.Go(func() { a.serve(conn) })
		}
	})
	return a
}

func (a *agent) serve(conn *net.UnixConn) {
	defer func() { _ = conn.Close() }()
	body, control := make([]byte, 64<<10), make([]byte, 256)
	n, controlLen, _, _, err := conn.ReadMsgUnix(body, control)
	if err != nil {
		a.t.Error(err)
		return
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlLen])
	if err != nil || len(messages) != 1 {
		a.t.Errorf("%d control messages, %v", len(messages), err)
		return
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		a.t.Errorf("%d descriptors, %v", len(fds), err)
		return
	}
	var state specs.ContainerProcessState
	if err := json.Unmarshal(body[:n], &state); err != nil {
		a.t.Error(err)
		return
	}
	a.mu.Lock()
	a.states = append(a.states, state)
	a.mu.Unlock()
	a.decide(fds[0])
}

// notification and decision are struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id         uint64
	pid, flags uint32
	number     int32
	arch       uint32
	pointer    uint64
	args       [6]uint64
}

type decision struct {
	id     uint64
	value  int64
	errno  int32
	flags  uint32
	unused [0]byte
}

const (
	ioctlReceive = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	ioctlSend    = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
)

// decide refuses what has "secret" in its name with EDQUOT and says of the rest
// that it succeeded, without doing it.
func (a *agent) decide(fd int) {
	defer func() { _ = unix.Close(fd) }()
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, 60_000); err != nil {
			if err == unix.EINTR {
				continue
			}
			return
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return // all processes with the filter are gone
		}
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlReceive, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // killed meanwhile
		}
		answer := decision{id: n.id}
		memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", n.pid))
		if err == nil {
			text := make([]byte, 32)
			address := n.args[0]
			if int(n.number) == unix.SYS_MKDIRAT {
				address = n.args[1]
			}
			_, _ = memory.ReadAt(text, int64(address))
			_ = memory.Close()
			if strings.Contains(string(text), "secret") {
				answer.errno = -int32(unix.EDQUOT)
			}
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSend, uintptr(unsafe.Pointer(&answer)))
	}
}

func TestSeccompAgent(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	// On one stream, so that their order is that of the log.
	b := newBox(t, "exec 2>&1; busybox mkdir /tmp/fine && echo made; busybox mkdir /tmp/secret; busybox ls /tmp; busybox sleep 600")
	b.spec.Annotations = map[string]string{"org.example": "yes"}
	b.spec.Linux.Seccomp = filter(
		rule(specs.ActNotify, 0, "mkdir", "mkdirat"),
		// Whatever else the stage might use to hand over the descriptor is forbidden.
		rule(specs.ActErrno, 0, "sendmsg", "sendto", "recvmsg", "recvfrom", "pidfd_getfd", "memfd_create", "pidfd_open", "memfd_secret"),
	)
	b.spec.Linux.Seccomp.ListenerPath, b.spec.Linux.Seccomp.ListenerMetadata = a.path, "some \"words\""
	p := b.start()
	waitFor(t, "the container's words", func() bool { return strings.Contains(b.output(), "quota") })
	if out := b.output(); !strings.HasPrefix(out, "made\n") || strings.Contains(out, "fine") {
		t.Errorf("%q", out)
	}
	if out := b.exec("busybox mkdir /tmp/secret || echo refused", nil); !strings.Contains(out, "refused") {
		t.Errorf("an exec: %q", out)
	}
	a.mu.Lock()
	states := a.states
	a.mu.Unlock()
	if len(states) != 2 {
		t.Fatalf("%d processes came to the agent", len(states))
	}
	for i, status := range []specs.ContainerState{specs.StateCreated, specs.StateRunning} {
		s := states[i]
		if s.Version == "" || len(s.Fds) != 1 || s.Fds[0] != specs.SeccompFdName || s.Metadata != "some \"words\"" || s.State.ID != b.id || s.State.Pid != p.PID ||
			s.State.Status != status || s.State.Bundle == "" || s.State.Annotations["org.example"] != "yes" {
			t.Errorf("state %d: %+v", i, s)
		}
		if same := s.Pid == p.PID; same != (i == 0) {
			t.Errorf("state %d is of process %d, the container's is %d", i, s.Pid, p.PID)
		}
	}
}

func TestSeccompWithoutItsAgent(t *testing.T) {
	t.Parallel()
	b := newBox(t, "echo never")
	b.spec.Linux.Seccomp = filter(rule(specs.ActNotify, 0, "mkdir"))
	b.spec.Linux.Seccomp.ListenerPath = filepath.Join(b.dir, "nobody.sock")
	b.fails("connecting to the seccomp listener", "nobody.sock")
	if out := b.output(); out != "" {
		t.Errorf("it ran: %q", out)
	}
}
