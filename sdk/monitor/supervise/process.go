package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// process is the container's init or an exec.
type process struct {
	streams *streams
	pid     int
	sync    *os.File // the stage's sync socket until it has executed

	mu      sync.Mutex // of what follows, and held around kill(2) so that the pid cannot be another's
	state   string
	exit    monitor.Exit
	ended   chan struct{} // closed when exit is known, before the output has ended
	drained chan struct{} // closed when the output has ended
}

// spawn is what differs between the init and an exec.
type spawn struct {
	name        string // argv[0], tells the stage's role
	flags       uintptr
	join        []Join // by path, before the clone
	joinPID     int    // pidfd whose pid namespace to enter, or -1
	cgroupFiles []string
	cgroupDir   string
	stage       []byte // sandbox.Config
	streams     monitor.Streams
	log         *logFile
	passPidFD   int // handed to the stage, or -1
}

// create makes a process up to the point before its program is executed.
func create(r *reaper, sp spawn) (*process, <-chan unix.WaitStatus, error) {
	streams, child, err := newStreams(sp.streams, sp.log)
	if err != nil {
		return nil, nil, fmt.Errorf("making streams: %w", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		child.close()
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "sync"), os.NewFile(uintptr(pair[1]), "sync")
	config, err := memoryFile(sp.stage)
	if err != nil {
		child.close()
		return nil, nil, err
	}
	p := &process{streams: streams, sync: ours, state: monitor.StateCreated, ended: make(chan struct{}), drained: make(chan struct{})}
	files := []uintptr{child.stdin.Fd(), child.stdout.Fd(), child.stderr.Fd(), config.Fd(), theirs.Fd()}
	if sp.passPidFD >= 0 {
		files = append(files, uintptr(sp.passPidFD))
	}
	pid, ended, err := r.start(func() (int, error) { return forkOnThread(sp, files) })
	child.close()
	_ = theirs.Close()
	_ = config.Close()
	if err != nil {
		_ = ours.Close()
		streams.end(0)
		return nil, nil, err
	}
	p.pid = pid
	if err := p.waitReady(); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		<-ended
		_ = ours.Close()
		streams.end(time.Second)
		return nil, nil, err
	}
	return p, ended, nil
}

// memoryFile holds content in a file that only the descriptor names.
func memoryFile(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("config", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "config")
	if _, err := f.Write(content); err != nil {
		_ = f.Close()
		return nil, err
	}
	_, err = f.Seek(0, 0)
	return f, err
}

// forkOnThread clones the stage from a thread of its own that has joined the
// cgroups and namespaces the child must inherit. The thread is not used again.
func forkOnThread(sp spawn, files []uintptr) (int, error) {
	type result struct {
		pid int
		err error
	}
	answer := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		pid, err := fork(sp, files)
		answer <- result{pid, err}
	}()
	got := <-answer
	return got.pid, got.err
}

func fork(sp spawn, files []uintptr) (int, error) {
	for _, path := range sp.cgroupFiles {
		if err := writeZero(path); err != nil {
			return 0, fmt.Errorf("joining cgroup: %w", err)
		}
	}
	for _, join := range sp.join {
		fd, err := unix.Open(join.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, fmt.Errorf("opening namespace %s: %w", join.Path, err)
		}
		err = unix.Setns(fd, join.Type)
		_ = unix.Close(fd)
		if err != nil {
			return 0, fmt.Errorf("joining namespace %s: %w", join.Path, err)
		}
	}
	if sp.joinPID >= 0 {
		if err := unix.Setns(sp.joinPID, unix.CLONE_NEWPID); err != nil {
			return 0, fmt.Errorf("joining the container's pid namespace: %w", err)
		}
	}
	attr := &syscall.ProcAttr{Env: []string{"GOMAXPROCS=1", "GOGC=off"}, Files: files, Sys: &syscall.SysProcAttr{Cloneflags: sp.flags}}
	if sp.cgroupDir != "" {
		dir, err := unix.Open(sp.cgroupDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, fmt.Errorf("opening cgroup %s: %w", sp.cgroupDir, err)
		}
		defer func() { _ = unix.Close(dir) }()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, dir
	}
	// The running executable: the driver has started it from a read-only mount, so
	// that nothing inside a container can write to it.
	pid, err := syscall.ForkExec("/proc/self/exe", []string{sp.name}, attr)
	if err != nil {
		return 0, fmt.Errorf("cloning: %w", err)
	}
	return pid, nil
}

func writeZero(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	_, err = unix.Write(fd, []byte("0"))
	_ = unix.Close(fd)
	if err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// waitReady reads the stage's first word, and the terminal that may come along.
func (p *process) waitReady() error {
	var message [4096]byte
	control := make([]byte, unix.CmsgSpace(4))
	n, controlLen, _, _, err := recvmsg(int(p.sync.Fd()), message[:], control)
	if err != nil {
		return fmt.Errorf("waiting for the container's init: %w", err)
	}
	if n == 0 {
		return errors.New("the container's init died before it was ready")
	}
	if message[0] == sandbox.MessageFailure {
		return decodeFailure(message[1:n])
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlLen])
	if err != nil {
		return err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err == nil && len(fds) > 0 {
			unix.CloseOnExec(fds[0])
			p.streams.setTerminal(fds[0])
		}
	}
	return nil
}

func recvmsg(fd int, p, control []byte) (n, controlLen, flags int, from unix.Sockaddr, err error) {
	for {
		n, controlLen, flags, from, err = unix.Recvmsg(fd, p, control, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			return n, controlLen, flags, from, err
		}
	}
}

func decodeFailure(body []byte) error {
	failure := &monitor.Failure{}
	if err := json.Unmarshal(body, failure); err != nil {
		return fmt.Errorf("the container's init failed and said %q", body)
	}
	return failure
}

// start executes the program and answers when execve has succeeded, or why not.
func (p *process) start() error {
	p.mu.Lock()
	if p.state != monitor.StateCreated || p.sync == nil {
		state := p.state
		p.mu.Unlock()
		if state == monitor.StateRunning {
			return nil
		}
		return monitor.Failf(monitor.KindPrecondition, "process is %s", state)
	}
	socket := p.sync
	p.sync = nil
	p.mu.Unlock()
	defer func() { _ = socket.Close() }()
	if _, err := socket.Write([]byte{sandbox.MessageGo}); err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	var message [4096]byte
	n, _, _, _, err := recvmsg(int(socket.Fd()), message[:], nil)
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("waiting for execve: %w", err)
	}
	if n > 0 {
		return decodeFailure(message[1:n])
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == monitor.StateCreated {
		p.state = monitor.StateRunning
	}
	return nil
}

// signal sends a signal unless the process has been reaped.
func (p *process) signal(number int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == monitor.StateExited {
		return monitor.Failf(monitor.KindNotFound, "process has ended")
	}
	return unix.Kill(p.pid, unix.Signal(number))
}

// finish records the end and lets the waiting go on.
func (p *process) finish(status unix.WaitStatus, oom bool, exitFile string) {
	exit := monitor.Exit{Code: exitCode(status), At: time.Now().UTC(), OOMKilled: oom}
	if err := writeExit(exitFile, exit); err != nil {
		fmt.Fprintln(os.Stderr, "writing the exit status:", err)
	}
	p.mu.Lock()
	p.exit, p.state = exit, monitor.StateExited
	if p.sync != nil {
		_ = p.sync.Close()
		p.sync = nil
	}
	p.mu.Unlock()
	close(p.ended)
}

func (p *process) status() (string, *monitor.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == monitor.StateExited {
		exit := p.exit
		return p.state, &exit
	}
	return p.state, nil
}

// writeExit leaves the exit status in a file, whole or not at all.
func writeExit(path string, exit monitor.Exit) error {
	body, err := json.Marshal(exit)
	if err != nil {
		return err
	}
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(temporary, body, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
