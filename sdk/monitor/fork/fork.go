// Package fork makes children that package syscall cannot: ones that enter user
// and time namespaces, which the kernel only lets single-threaded processes do.
// A Go program has threads from its start, but a forked child has one until it
// executes a program.
//
// Between fork and execve nothing may allocate, lock, or grow the stack: what
// runs there is system calls on memory that was made ready before.
//
// Only the standard library and x/sys may be imported here: see package monitor.
package fork

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The runtime prepares a fork for package syscall; others may use the same
// (golang.org/issue/67401 lists these names as fixed).

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// Map maps Size IDs from Inside on, in a user namespace, to those from Outside on.
type Map struct {
	Inside  uint32 `json:"inside"`
	Outside uint32 `json:"outside"`
	Size    uint32 `json:"size"`
}

// mapText is how the kernel reads maps (user_namespaces(7)).
func mapText(maps []Map) []byte {
	var text strings.Builder
	for _, m := range maps {
		fmt.Fprintf(&text, "%d %d %d\n", m.Inside, m.Outside, m.Size)
	}
	return []byte(text.String())
}

// UserNamespace makes a user namespace with maps and answers a descriptor of it.
func UserNamespace(uids, gids []Map) (int, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return -1, err
	}
	pid, errno := waitingChild(unix.CLONE_NEWUSER, pipe)
	_ = unix.Close(pipe[0])
	if errno != 0 {
		_ = unix.Close(pipe[1])
		return -1, fmt.Errorf("making a user namespace: %w", errno)
	}
	defer func() {
		_ = unix.Close(pipe[1])
		reap(pid)
	}()
	dir := "/proc/" + strconv.Itoa(pid)
	for _, file := range []struct {
		name string
		maps []Map
	}{{"uid_map", uids}, {"gid_map", gids}} {
		if err := os.WriteFile(dir+"/"+file.name, mapText(file.maps), 0); err != nil {
			return -1, fmt.Errorf("mapping the IDs of a user namespace: %w", err)
		}
	}
	return unix.Open(dir+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// Idle is a process that does nothing, for who has to name one. It ends with its
// maker at the latest.
type Idle struct {
	PID  int
	pipe int
}

// NewIdle forks an idle process. It holds no descriptor of its maker's.
func NewIdle() (*Idle, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	pid, errno := waitingChild(0, pipe)
	_ = unix.Close(pipe[0])
	if errno != 0 {
		_ = unix.Close(pipe[1])
		return nil, fmt.Errorf("forking an idle process: %w", errno)
	}
	return &Idle{pid, pipe[1]}, nil
}

// End ends the process and waits for that.
func (i *Idle) End() {
	_ = unix.Close(i.pipe)
	reap(i.PID)
}

// waitingChild forks a child in new namespaces that ends when the pipe does. Of the
// caller's descriptors it keeps nothing else.
//
//go:noinline
//go:norace
//go:nocheckptr
func waitingChild(flags uint64, pipe [2]int) (pid int, errno unix.Errno) {
	var (
		args   = cloneArgs{flags: flags} // no exit signal: only who asks for this child waits for it
		result uintptr
		buffer [1]byte
	)
	syscall.ForkLock.Lock()
	beforeFork()
	result, _, errno = unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if errno != 0 || result != 0 {
		afterFork()
		syscall.ForkLock.Unlock()
		return int(result), errno
	}
	afterForkInChild()
	_, _, _ = unix.RawSyscall(unix.SYS_DUP3, uintptr(pipe[0]), 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE_RANGE, 1, uintptr(^uint32(0)), 0)
	_, _, _ = unix.RawSyscall(unix.SYS_READ, 0, uintptr(unsafe.Pointer(&buffer[0])), 1)
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// reap collects a child that has no exit signal.
func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, unix.WCLONE, nil); err != unix.EINTR {
			return
		}
	}
}

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// Namespace is one to enter: a descriptor of it, or of a process whose namespaces
// Types are entered.
type Namespace struct {
	FD    int
	Types int // CLONE_NEW*
}

// Child says how a program is started.
type Child struct {
	// Enter are namespaces to enter, in this order. A user namespace comes last:
	// with it the rights over others are gone.
	Enter []Namespace
	// TimeOffsets make a new time namespace with what timens_offsets is told; nil
	// for none.
	TimeOffsets []byte
	// Flags are the CLONE_NEW* of new namespaces, made in those entered.
	Flags uint64
	// CgroupFD is the v2 cgroup that it is born in; -1 for the caller's.
	CgroupFD int
	// OOMScoreAdj is set while the rights for it are there; empty keeps it.
	OOMScoreAdj string

	Executable int // descriptor of the program
	Args, Env  []string
	// Files are its descriptors from 0 on; ^uintptr(0) leaves one closed, if the
	// caller's of this number closes on execve.
	Files []uintptr
}

// What a child reports on its pipe: an event, and what it is about.
const (
	eventPID = iota + 1
	eventFailure
)

type report struct {
	event, step int32
	value       int64 // a pid or an errno
}

// Steps of a child, for its errors.
const (
	stepScore = iota
	stepHide
	stepEnter
	stepTime
	stepOffsets
	stepClone
	stepGroups
	stepGID
	stepUID
	stepFiles
	stepExec
)

var stepNames = [...]string{"setting the OOM score", "hiding from the container", "joining a namespace", "making a time namespace", "setting the time offsets", "cloning", "dropping groups", "becoming group 0 of the user namespace", "becoming user 0 of the user namespace", "passing descriptors", "executing"}

// Start starts the program as a child of the caller and answers its pid. In a user
// namespace that it entered or made it is user and group 0.
func (c Child) Start() (int, error) {
	ready, err := c.prepare()
	if err != nil {
		return 0, err
	}
	defer ready.close()
	midwife, errno := ready.fork()
	ready.closeWriter()
	if errno != 0 {
		return 0, fmt.Errorf("cloning: %w", errno)
	}
	pid, failed := ready.reports()
	reap(midwife)
	if failed == nil && pid == 0 {
		failed = errors.New("cloning: the child died")
	}
	if failed != nil && pid > 0 { // it has no exit signal before it has executed
		reap(pid)
	}
	return pid, failed
}

// prepared is everything a child needs, in the form of system call arguments.
type prepared struct {
	child    cloneArgs // of the program
	midwife  cloneArgs // of its short-lived elder sibling, which enters namespaces
	enter    []Namespace
	root     bool
	scoreAdj []byte
	scoreTo  *byte
	offsets  []byte
	offsetTo *byte
	exe      int
	empty    *byte
	argv     []*byte
	envv     []*byte
	files    []int
	pipe     [2]int
	opened   []int
}

func (c Child) prepare() (*prepared, error) {
	p := &prepared{enter: c.Enter, offsets: c.TimeOffsets, scoreAdj: []byte(c.OOMScoreAdj), pipe: [2]int{-1, -1}}
	// The program shall be the caller's child, not the midwife's.
	p.child.flags = c.Flags | unix.CLONE_PARENT
	p.root = c.Flags&unix.CLONE_NEWUSER != 0
	for _, n := range c.Enter {
		p.root = p.root || n.Types&unix.CLONE_NEWUSER != 0
	}
	if c.CgroupFD >= 0 {
		p.midwife.flags, p.midwife.cgroup = unix.CLONE_INTO_CGROUP, uint64(c.CgroupFD)
	}
	var err error
	if p.argv, err = syscall.SlicePtrFromStrings(c.Args); err != nil {
		return nil, err
	}
	if p.envv, err = syscall.SlicePtrFromStrings(c.Env); err != nil {
		return nil, err
	}
	p.empty, p.scoreTo, p.offsetTo = &[]byte{0}[0], &[]byte("/proc/self/oom_score_adj\x00")[0], &[]byte("/proc/self/timens_offsets\x00")[0]
	if err := unix.Pipe2(p.pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	// Above the numbers that the program's files will have.
	above := func(fd int) (int, error) {
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, max(len(c.Files), 3))
		if err == nil {
			p.opened = append(p.opened, copied)
		}
		return copied, err
	}
	for _, fd := range c.Files {
		if fd == ^uintptr(0) {
			p.files = append(p.files, -1)
			continue
		}
		copied, err := above(int(fd))
		if err != nil {
			p.close()
			return nil, err
		}
		p.files = append(p.files, copied)
	}
	writer, err := above(p.pipe[1])
	if err == nil {
		_ = unix.Close(p.pipe[1])
		p.pipe[1] = writer
		p.opened = p.opened[:len(p.opened)-1]
		p.exe, err = above(c.Executable)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *prepared) closeWriter() {
	_ = unix.Close(p.pipe[1])
	p.pipe[1] = -1
}

func (p *prepared) close() {
	for _, fd := range append(p.opened, p.pipe[0], p.pipe[1]) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// reports reads what midwife and child say until both are through.
func (p *prepared) reports() (pid int, failed error) {
	for {
		var r report
		// Whole ones: a pipe does not split what is smaller than a page.
		n, err := unix.Read(p.pipe[0], unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r)))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return pid, errors.Join(failed, err)
		case n == 0:
			return pid, failed
		case r.event == eventPID:
			pid = int(r.value)
		default:
			failed = fmt.Errorf("%s: %w", stepNames[r.step], unix.Errno(r.value))
		}
	}
}

// fork forks the midwife, which forks the program.
//
//go:noinline
//go:norace
//go:nocheckptr
func (p *prepared) fork() (pid int, errno unix.Errno) {
	var (
		result, fd uintptr
		step       int32
		i          int
		r          report
	)
	syscall.ForkLock.Lock()
	beforeFork()
	result, _, errno = unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&p.midwife)), unsafe.Sizeof(p.midwife), 0)
	if errno != 0 || result != 0 {
		afterFork()
		syscall.ForkLock.Unlock()
		return int(result), errno
	}
	afterForkInChild()

	if len(p.scoreAdj) > 0 {
		step = stepScore
		if fd, _, errno = unix.RawSyscall6(unix.SYS_OPENAT, ^uintptr(99), uintptr(unsafe.Pointer(p.scoreTo)), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0); errno != 0 {
			goto failed
		}
		if _, _, errno = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&p.scoreAdj[0])), uintptr(len(p.scoreAdj))); errno != 0 {
			goto failed
		}
	}
	// The container's processes must not reach into one that still has the host's
	// files open.
	step = stepHide
	if _, _, errno = unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0, 0); errno != 0 {
		goto failed
	}
	step = stepEnter
	for i = 0; i < len(p.enter); i++ {
		if _, _, errno = unix.RawSyscall(unix.SYS_SETNS, uintptr(p.enter[i].FD), uintptr(p.enter[i].Types), 0); errno != 0 {
			goto failed
		}
	}
	if p.offsets != nil {
		step = stepTime
		if _, _, errno = unix.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_NEWTIME, 0, 0); errno != 0 {
			goto failed
		}
		if len(p.offsets) > 0 {
			step = stepOffsets
			if fd, _, errno = unix.RawSyscall6(unix.SYS_OPENAT, ^uintptr(99), uintptr(unsafe.Pointer(p.offsetTo)), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0); errno != 0 {
				goto failed
			}
			if _, _, errno = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&p.offsets[0])), uintptr(len(p.offsets))); errno != 0 {
				goto failed
			}
		}
	}
	step = stepClone
	result, _, errno = unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&p.child)), unsafe.Sizeof(p.child), 0)
	if errno != 0 {
		goto failed
	}
	if result != 0 {
		r.event, r.value = eventPID, int64(result)
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(p.pipe[1]), uintptr(unsafe.Pointer(&r)), unsafe.Sizeof(r))
		goto exit
	}
	if p.root {
		step = stepGroups
		// EPERM: the namespace denies it, and so it stays.
		if _, _, errno = unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 && errno != unix.EPERM {
			goto failed
		}
		step = stepGID
		if _, _, errno = unix.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); errno != 0 {
			goto failed
		}
		step = stepUID
		if _, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
			goto failed
		}
	}
	step = stepFiles
	for i = 0; i < len(p.files); i++ {
		if p.files[i] < 0 {
			continue
		}
		if _, _, errno = unix.RawSyscall(unix.SYS_DUP3, uintptr(p.files[i]), uintptr(i), 0); errno != 0 {
			goto failed
		}
	}
	step = stepExec
	_, _, errno = unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(p.exe), uintptr(unsafe.Pointer(p.empty)), uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.envv[0])), unix.AT_EMPTY_PATH, 0)

failed:
	r.event, r.step, r.value = eventFailure, step, int64(errno)
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(p.pipe[1]), uintptr(unsafe.Pointer(&r)), unsafe.Sizeof(r))
exit:
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
}
