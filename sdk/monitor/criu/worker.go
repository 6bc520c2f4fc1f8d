package criu

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// FirstFD is the worker's descriptor of the first of its files.
const FirstFD = 4

// socketFD is the worker's descriptor of its socket.
const socketFD = 3

// Notifications that matter to a runtime, as CRIU's action scripts are called.
const (
	PostDump        = "post-dump"         // all is written; a failure lets the tree go on
	SetupNamespaces = "setup-namespaces"  // the restored root's namespaces are there, with its PID
	OrphanPTSMaster = "orphan-pts-master" // brings the master of a terminal
	PostRestore     = "post-restore"      // the tree is there and has not gone on yet, with its root's PID
)

// Notification is a point in CRIU's work at which it waits.
type Notification struct {
	Name string
	PID  int // of the restored root, where CRIU tells it
	FD   int // that came with it, -1 for none; the receiver's to close
}

// Worker is a criu process that serves one request.
type Worker struct {
	PID    int
	socket *os.File
}

// Start starts a worker from the calling thread, whose namespaces and cgroups it
// gets. Its files are descriptors from FirstFD on. The caller collects it when
// it has ended.
func Start(program string, files []*os.File, sys syscall.SysProcAttr) (*Worker, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "criu"), os.NewFile(uintptr(pair[1]), "criu")
	defer func() { _ = theirs.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	defer func() { _ = null.Close() }()
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), theirs.Fd()},
		Sys:   &sys,
	}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	pid, err := syscall.ForkExec(program, []string{"criu", "swrk", strconv.Itoa(socketFD)}, attr)
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	return &Worker{PID: pid, socket: ours}, nil
}

// Close ends the conversation. A worker that dumps or restores fails at its next
// notification, and undoes what it did.
func (w *Worker) Close() { _ = w.socket.Close() }

// Dump dumps the tree of o.PID into the images directory. Each notification is
// told; an error of its receiver makes the dump fail and the tree go on.
func (w *Worker) Dump(o Options, images, work *os.File, told func(Notification) error) error {
	return w.ask("dump", dump, o, images, work, told)
}

// PreDump dumps memory only, and lets the tree go on.
func (w *Worker) PreDump(o Options, images, work *os.File) error {
	return w.ask("pre-dump", preDump, o, images, work, func(Notification) error { return nil })
}

func (w *Worker) ask(name string, what kind, o Options, images, work *os.File, told func(Notification) error) error {
	if err := w.request(what, o, images, work); err != nil {
		return err
	}
	for {
		r, err := w.next(told)
		if err != nil {
			return err
		}
		if r == nil {
			continue
		}
		return r.result(name)
	}
}

// Restore makes the tree of the images directory. It answers when the tree is
// there: the PID of its root. The tree waits for [Worker.Resume].
func (w *Worker) Restore(o Options, images, work *os.File, told func(Notification) error) (pid int, err error) {
	if err := w.request(restore, o, images, work); err != nil {
		return 0, err
	}
	for {
		r, fd, err := w.receive()
		if err != nil {
			return 0, err
		}
		if r.kind != notify {
			if err := r.result("restore"); err != nil {
				return 0, err
			}
			return 0, errors.New("criu restored without a word in between")
		}
		if r.script == PostRestore {
			return r.pid, nil
		}
		if err := w.tell(r, fd, told); err != nil {
			return 0, err
		}
	}
}

// Resume lets a restored tree go on.
func (w *Worker) Resume() error {
	if err := w.answer(true); err != nil {
		return err
	}
	for {
		r, err := w.next(func(Notification) error { return nil })
		if err != nil {
			return err
		}
		if r != nil {
			return r.result("restore")
		}
	}
}

// Check asks whether CRIU and kernel go together. What it finds is in the log of
// the work directory.
func (w *Worker) Check(o Options, work *os.File) error {
	if err := w.request(check, o, work, work); err != nil {
		return err
	}
	r, _, err := w.receive()
	if err != nil {
		return err
	}
	return r.result("check")
}

// Version is a release of CRIU.
type Version struct{ Major, Minor int }

// Before says whether a release is older than another.
func (v Version) Before(other Version) bool {
	return v.Major < other.Major || v.Major == other.Major && v.Minor < other.Minor
}

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Version asks CRIU for its own.
func (w *Worker) Version() (Version, error) {
	var m message
	m.number(1, uint64(version))
	if err := w.send(m); err != nil {
		return Version{}, err
	}
	r, _, err := w.receive()
	if err != nil {
		return Version{}, err
	}
	return r.version, r.result("version")
}

// next takes one message: a notification is told and answered, and nil returned.
func (w *Worker) next(told func(Notification) error) (*response, error) {
	r, fd, err := w.receive()
	if err != nil || r.kind != notify {
		return r, err
	}
	return nil, w.tell(r, fd, told)
}

// tell answers a notification with its receiver's opinion. An opinion that is an
// error is CRIU's to act on: its last word is still awaited, but the error that is
// returned at the end is the receiver's.
func (w *Worker) tell(r *response, fd int, told func(Notification) error) error {
	opinion := told(Notification{Name: r.script, PID: r.pid, FD: fd})
	if err := w.answer(opinion == nil); err != nil {
		return errors.Join(opinion, err)
	}
	if opinion == nil {
		return nil
	}
	for {
		r, err := w.next(func(Notification) error { return nil })
		if r != nil || err != nil {
			return opinion
		}
	}
}

func (w *Worker) answer(ok bool) error {
	var m message
	m.number(1, uint64(notify))
	m.flag(3, ok)
	if !ok {
		m.number(3, 0)
	}
	return w.send(m)
}

func (w *Worker) request(what kind, o Options, images, work *os.File) error {
	var m message
	m.number(1, uint64(what))
	m.nested(2, o.encode(int(images.Fd()), int(work.Fd())))
	return w.send(m)
}

func (w *Worker) send(m message) error {
	if _, err := w.socket.Write(m); err != nil {
		return fmt.Errorf("speaking with criu: %w", err)
	}
	return nil
}

// maxResponse is more than any answer of CRIU.
const maxResponse = 64 << 10

func (w *Worker) receive() (*response, int, error) {
	body, control := make([]byte, maxResponse), make([]byte, unix.CmsgSpace(4))
	for {
		n, controlLen, _, _, err := unix.Recvmsg(int(w.socket.Fd()), body, control, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, -1, fmt.Errorf("speaking with criu: %w", err)
		}
		if n == 0 {
			return nil, -1, errors.New("criu ended without an answer")
		}
		r, err := parseResponse(body[:n])
		return &r, descriptor(control[:controlLen]), err
	}
}

// descriptor is the one that came with a message, -1 for none.
func descriptor(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return -1
	}
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil && len(fds) > 0 {
			return fds[0]
		}
	}
	return -1
}

// Failure is CRIU's own word that it could not do what it was asked for.
type Failure struct {
	Operation string
	Errno     unix.Errno
}

func (f *Failure) Error() string {
	text := "criu " + f.Operation + " failed"
	if f.Errno != 0 {
		text += ": " + f.Errno.Error()
	}
	return text
}

func (r *response) result(operation string) error {
	if r.success {
		return nil
	}
	return &Failure{Operation: operation, Errno: unix.Errno(max(r.errno, 0))}
}
