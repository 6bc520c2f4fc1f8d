// Package launch is the parent's side of the stage (package sandbox): it clones
// the stage into the namespaces and the cgroup it must be born in, and speaks
// with it on its sync socket until the stage has become the user's program.
// Monitors use it for a container's init and its execs.
//
// Only the standard library and x/sys may be imported here: see package monitor.
package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// Names of the stage: its argv[0] tells its role.
const (
	InitName = "davit-init" // sets a container up
	ExecName = "davit-exec" // joins a running one
)

// Join is a namespace to enter.
type Join struct {
	Type int    `json:"type"` // CLONE_NEW*
	Path string `json:"path"`
}

// Stage says how the stage is born.
type Stage struct {
	Name   string
	Config []byte // an encoded sandbox.Config
	Birth
	// Flags are the CLONE_NEW* flags of the new process.
	Flags uintptr
	// Join are namespaces entered by path before the clone.
	Join []Join
	// PIDNamespace is a pidfd whose pid namespace is entered before the clone; 0 for
	// none.
	PIDNamespace int
	// CgroupFiles (v1) or CgroupDir (v2) put the process into its cgroup.
	CgroupFiles []string
	CgroupDir   string

	Stdin, Stdout, Stderr *os.File
	// Hooks run when the stage has mounted everything and before its root changes.
	// Their failure is that of WaitReady.
	Hooks func(pid int) error
	// Init is a pidfd of the container's init that an exec gets as sandbox.PidFD; 0
	// for none.
	Init int
	// Executable is a descriptor of the program that is the stage; 0 for the running
	// one, if that cannot be written to by a container.
	Executable int
	// StartSocket listens for the order to execute after [Child.Leave]; 0 for none.
	StartSocket int
	// Extra are descriptors for the program, from 3 on; the Config counts them.
	Extra []uintptr
	// Listener gets the descriptor of a seccomp filter that notifies; nil where the
	// filter has none.
	Listener *Listener
}

// Child is a stage that was cloned.
type Child struct {
	PID   int
	hooks func(pid int) error
	// prepare are mounts that the stage will ask for; nil for none.
	prepare  *sandbox.Preparation
	sync     *os.File
	listener *Listener
	// Trace is what the stage reported; nil if it was not asked to.
	Trace *monitor.Trace
}

// Start clones the stage and does not wait for it.
func (s Stage) Start() (*Child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "sync"), os.NewFile(uintptr(pair[1]), "sync")
	defer func() { _ = theirs.Close() }()
	config, err := memoryFile(s.Config)
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	defer func() { _ = config.Close() }()
	if err := s.own(); err != nil {
		_ = ours.Close()
		return nil, err
	}
	files := []uintptr{s.Stdin.Fd(), s.Stdout.Fd(), s.Stderr.Fd(), config.Fd(), theirs.Fd()}
	files = append(files, optional(s.Init), optional(s.StartSocket))
	files = append(files, s.Extra...)
	pid, err := s.forkOnThread(files)
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	child := &Child{PID: pid, hooks: s.Hooks, prepare: s.Prepare, sync: ours, listener: s.Listener}
	if err := s.raise(pid); err != nil {
		child.Close()
		return nil, err
	}
	return child, nil
}

// optional is a descriptor or, for 0, what ForkExec closes in the child.
func optional(fd int) uintptr {
	if fd > 0 {
		return uintptr(fd)
	}
	return ^uintptr(0)
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
	if _, err := f.Seek(0, 0); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// forkOnThread clones the stage from a thread of its own that has joined the
// cgroups and namespaces the child must inherit. The thread is not used again.
func (s Stage) forkOnThread(files []uintptr) (int, error) {
	type result struct {
		pid int
		err error
	}
	answer := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		pid, err := s.fork(files)
		answer <- result{pid, err}
	}()
	got := <-answer
	return got.pid, got.err
}

// environment is the stage's: one processor, no garbage to speak of, and no
// signals of the Go runtime to itself, which a seccomp filter may not like.
var environment = []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1"}

func (s Stage) fork(files []uintptr) (int, error) {
	if len(s.Affinity) > 0 {
		if err := sandbox.SetAffinity(s.Affinity); err != nil {
			return 0, fmt.Errorf("setting the CPU affinity: %w", err)
		}
	}
	for _, path := range s.CgroupFiles {
		if err := writeZero(path); err != nil {
			return 0, fmt.Errorf("joining cgroup: %w", err)
		}
	}
	executable, err := s.openExecutable(files)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(executable) }()
	enter, err := s.join()
	defer func() {
		for _, namespace := range enter {
			_ = unix.Close(namespace.FD)
		}
	}()
	if err != nil {
		return 0, err
	}
	if s.PIDNamespace > 0 {
		if err := unix.Setns(s.PIDNamespace, unix.CLONE_NEWPID); err != nil {
			return 0, fmt.Errorf("joining the container's pid namespace: %w", err)
		}
	}
	cgroup := -1
	attr := &syscall.ProcAttr{Env: environment, Files: files, Sys: &syscall.SysProcAttr{Cloneflags: s.Flags}}
	if s.CgroupDir != "" {
		dir, err := unix.Open(s.CgroupDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, fmt.Errorf("opening cgroup %s: %w", s.CgroupDir, err)
		}
		defer func() { _ = unix.Close(dir) }()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, dir
		cgroup = dir
	}
	// Descriptors that this process inherited itself without the flag are not for
	// containers; the child's own are copied after this.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return 0, fmt.Errorf("closing descriptors on execve: %w", err)
	}
	if s.delivered() {
		return s.deliver(files, enter, executable, cgroup)
	}
	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(executable), []string{s.Name}, attr)
	if err != nil {
		return 0, fmt.Errorf("cloning: %w", err)
	}
	return pid, nil
}

// openExecutable answers a descriptor of the stage's program that is out of the
// way of those the child gets, and of those it is shuffled through.
func (s *Stage) openExecutable(files []uintptr) (int, error) {
	above := 3 * len(files)
	for _, file := range files {
		if file != ^uintptr(0) {
			above = max(above, int(file)+2*len(files))
		}
	}
	source := s.Executable
	if source == 0 {
		// The running one: it was started from a read-only mount, so that nothing inside
		// a container can write to it.
		fd, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		defer func() { _ = unix.Close(fd) }()
		source = fd
	}
	return unix.FcntlInt(uintptr(source), unix.F_DUPFD_CLOEXEC, above)
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

// WaitReady waits until the stage has set everything up and answers the master
// of its terminal, -1 if it has none; or the stage's reason why it cannot.
func (c *Child) WaitReady() (terminal int, err error) {
	var message [4096]byte
	control := make([]byte, unix.CmsgSpace(4))
	n, controlLen, err := receive(int(c.sync.Fd()), message[:], control)
	if err != nil {
		return -1, fmt.Errorf("waiting for the container's init: %w", err)
	}
	if n == 0 {
		return -1, errors.New("the container's init died before it was ready")
	}
	if message[0] == sandbox.MessageMounts && c.prepare != nil {
		if err := c.sendMounts(); err != nil {
			return -1, err
		}
		return c.WaitReady()
	}
	if message[0] == sandbox.MessageHooks {
		if c.hooks != nil {
			if err := c.hooks(c.PID); err != nil {
				return -1, err
			}
		}
		if _, err := c.sync.Write(message[:1]); err != nil {
			return -1, fmt.Errorf("letting the container's init go on: %w", err)
		}
		return c.WaitReady()
	}
	if message[0] == sandbox.MessageTrace {
		c.Trace = &monitor.Trace{}
		if err := json.Unmarshal(message[1:n], c.Trace); err != nil {
			return -1, fmt.Errorf("reading the trace of the container's init: %w", err)
		}
		if _, err := c.sync.Write(message[:1]); err != nil {
			return -1, fmt.Errorf("letting the container's init go on: %w", err)
		}
		return c.WaitReady()
	}
	if message[0] == sandbox.MessageFailure {
		return -1, decodeFailure(message[1:n])
	}
	return descriptor(control[:controlLen])
}

// Execute orders a ready stage to become its program and answers when execve has
// succeeded, or why not. The child's socket is closed.
func (c *Child) Execute() error {
	return Execute(c.sync, c.PID, c.listener)
}

// Leave lets a ready stage wait on its StartSocket, so that its parent may go.
// The child's socket is closed.
func (c *Child) Leave() error {
	defer c.Close()
	if _, err := c.sync.Write([]byte{sandbox.MessageLater}); err != nil {
		return fmt.Errorf("leaving the container's init: %w", err)
	}
	return nil
}

// Execute orders the stage at the other end of a socket, its own or a connection
// to its StartSocket, to become its program and answers when execve has
// succeeded, or why not. The listener is that of the stage's seccomp filter, nil
// if it has none. The socket is closed.
func Execute(sync *os.File, pid int, listener *Listener) error {
	defer func() { _ = sync.Close() }()
	if _, err := sync.Write([]byte{sandbox.MessageGo}); err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	var message [4096]byte
	control := make([]byte, unix.CmsgSpace(4))
	for {
		n, controlLen, err := receive(int(sync.Fd()), message[:], control)
		switch {
		case err != nil && !errors.Is(err, unix.ECONNRESET):
			return fmt.Errorf("waiting for execve: %w", err)
		case n <= 0:
			return nil
		case message[0] != sandbox.MessageListener:
			return decodeFailure(message[1:n])
		}
		mailbox, err := descriptor(control[:controlLen])
		if err == nil && (mailbox < 0 || listener == nil) {
			err = errors.New("the stage has a seccomp listener that nobody expects")
		}
		if err == nil {
			err = listener.handOver(sync, pid, mailbox)
		}
		if err != nil && !errors.Is(err, errStageSpoke) {
			return err
		}
	}
}

// descriptor is the one that came with a message, -1 for none.
func descriptor(control []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return -1, err
	}
	fd := -1
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err == nil && len(fds) > 0 {
			fd = fds[0]
		}
	}
	return fd, nil
}

// Close gives the stage up: one that still waits ends.
func (c *Child) Close() { _ = c.sync.Close() }

func receive(fd int, p, control []byte) (n, controlLen int, err error) {
	for {
		n, controlLen, _, _, err = unix.Recvmsg(fd, p, control, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			return n, controlLen, err
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
