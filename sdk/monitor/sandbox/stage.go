package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
)

// Bytes on the sync socket. A failure is messageFailure and a JSON
// monitor.Failure; success of execve is the socket's end without one.
const (
	MessageReady   = 'R' // set up; the terminal's master rides along if there is one
	MessageGo      = 'G' // from the monitor: execute
	MessageLater   = 'L' // from the parent: the order comes on StartFD, from whoever connects
	MessageFailure = 'F'
	MessageMounts  = 'M' // the mounts that the parent makes are wanted; they ride along with answers in kind
	MessageHooks   = 'H' // mounted: the parent's hooks may run; answered in kind
	// MessageListener brings the mailbox for a seccomp listener, after MessageGo, and
	// is answered by another MessageGo.
	MessageListener = 'S'
	MessageTrace    = 'T' // a monitor.Trace as JSON, if one is wanted
)

// MaxDescriptors is how many descriptors ride along with one message (SCM_MAX_FD).
const MaxDescriptors = 253

// step is one kernel step of a stage.
type step struct {
	name string
	do   func() error
}

// Main runs the stage and does not return: it becomes the user's program or
// exits with status 1 after telling the monitor why.
func Main() {
	// Namespaces, credentials and seccomp filters belong to the thread; execve
	// makes this thread the process.
	runtime.LockOSThread()
	s := &stage{root: -1, proc: -1, null: -1, terminal: -1, sync: SyncFD}
	// Until execve, processes of the container must not look into this one: into
	// its memory, its descriptors, its program.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		s.fail(fmt.Errorf("forbidding to trace the stage: %w", err))
		os.Exit(1)
	}
	if err := s.run(); err != nil {
		s.fail(err)
	}
	os.Exit(1)
}

func (s *stage) run() error {
	trace := &monitor.Trace{}
	trace.Done("stage: started")
	config, err := readConfig()
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	s.Config = config
	if config.Trace {
		trace.Done("stage: reading the configuration")
		s.trace = trace
	}
	// First of all: what is inherited is the monitor's, which nothing shall end.
	steps := []step{
		{"setting the OOM score", s.setOOMScore},
		{"resetting signals", func() error { return setReserved(signalDefault) }},
	}
	if config.Container != nil {
		steps = append(steps, s.containerSteps()...)
	} else {
		steps = append(steps, s.joinSteps()...)
	}
	for _, step := range append(steps, s.processSteps()...) {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		s.trace.Done("stage: " + step.name)
	}
	return s.execute()
}

// stage is the state of one run.
type stage struct {
	Config
	root     int               // O_PATH descriptor of the container's root directory
	proc     int               // the proc filesystem that the stage mounted, -1 for none
	null     int               // a mount of the null device, -1 for none
	terminal int               // master of the terminal, -1 for none
	trace    *monitor.Trace    // nil unless one is wanted
	label    int               // where the label for execve is written, -1 for none
	sync     int               // socket to the one who waits for execve
	mailbox  *[2]atomic.Uint32 // of a filter with a listener, nil without
	prepared []int             // mounts of the parent that are not used yet
	path     string
}

func readConfig() (Config, error) {
	f := os.NewFile(ConfigFD, "config")
	defer func() { _ = f.Close() }()
	body, err := io.ReadAll(f)
	if err != nil {
		return Config{}, err
	}
	return decode(body)
}

// fail tells the monitor why there will be no program.
func (s *stage) fail(err error) {
	body, _ := json.Marshal(monitor.AsFailure(err))
	_, _ = unix.Write(s.sync, append([]byte{MessageFailure}, body...))
}

// waitForGo tells the monitor that everything is ready, hands it the terminal,
// and waits for the order to execute. Its end is the monitor's death: then
// nobody wants the program any more.
func (s *stage) waitForGo() error {
	var rights []byte
	if s.terminal >= 0 {
		rights = unix.UnixRights(s.terminal)
	}
	if s.trace != nil {
		body, err := json.Marshal(s.trace)
		if err != nil {
			return err
		}
		if _, err := unix.Write(SyncFD, append([]byte{MessageTrace}, body...)); err != nil {
			return err
		}
		// Read by itself, before another message.
		if readOrder(SyncFD) != MessageTrace {
			os.Exit(1)
		}
	}
	if err := unix.Sendmsg(SyncFD, []byte{MessageReady}, rights, nil, 0); err != nil {
		return err
	}
	if s.terminal >= 0 {
		_ = unix.Close(s.terminal)
	}
	switch readOrder(SyncFD) {
	case MessageGo:
	case MessageLater:
		return awaitStart()
	default:
		os.Exit(1)
	}
	return nil
}

// readOrder answers the next byte on a socket, 0 at its end.
func readOrder(fd int) byte {
	var order [1]byte
	for {
		n, err := unix.Read(fd, order[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return 0
		}
		return order[0]
	}
}

// awaitStart waits for the order to execute from a process that is not the
// parent, which has gone. Who connects and says nothing only asked whether
// somebody waits here. The connection takes the sync socket's place: it carries
// a failure back, and its end is the success of execve.
func awaitStart() error {
	for {
		conn, _, err := unix.Accept4(StartFD, unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			return err
		}
		if readOrder(conn) == MessageGo {
			return unix.Dup3(conn, SyncFD, unix.O_CLOEXEC)
		}
		_ = unix.Close(conn)
	}
}

// execute becomes the user's program.
func (s *stage) execute() error {
	err := unix.Exec(s.path, s.Process.Args, s.Process.Env)
	return commandError(s.Process.Args[0], err)
}

func (s *stage) find(now bool) error {
	if !now {
		return nil
	}
	return s.lookPath()
}

// lookPath finds the program as the user that will run it, with the errors that
// Docker's users know.
func (s *stage) lookPath() error {
	name := s.Process.Args[0]
	if name == "" {
		return monitor.Failf(monitor.KindCommandNotFound, `exec: "": executable file not found in $PATH`)
	}
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return commandError(name, err)
		}
		s.path = name
		return nil
	}
	var denied error
	for _, dir := range strings.Split(environment(s.Process.Env, "PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + name
		err := executable(path)
		if err == nil {
			s.path = path
			return nil
		}
		if errors.Is(err, unix.EACCES) {
			denied = err
		}
	}
	if denied != nil {
		return monitor.Failf(monitor.KindCommandNotExecable, "exec: %q: permission denied", name)
	}
	return monitor.Failf(monitor.KindCommandNotFound, "exec: %q: executable file not found in $PATH", name)
}

// executable answers nil if path can be executed.
func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return unix.EACCES
	}
	return unix.Access(path, unix.X_OK)
}

// commandError gives an errno of stat or execve the kind that decides the
// client's exit code.
func commandError(name string, err error) error {
	var errno unix.Errno
	_ = errors.As(err, &errno)
	switch errno { //nolint:exhaustive // all other errors are the host's
	case unix.ENOENT, unix.ENOTDIR:
		return monitor.Failf(monitor.KindCommandNotFound, "exec: %q: stat %s: no such file or directory", name, name)
	case unix.EACCES, unix.EPERM:
		return monitor.Failf(monitor.KindCommandNotExecable, "exec: %q: permission denied", name)
	case unix.ENOEXEC, unix.EISDIR, unix.ETXTBSY, unix.ELOOP:
		return monitor.Failf(monitor.KindCommandNotExecable, "exec: %q: %v", name, err)
	}
	return monitor.Failf(monitor.KindInternal, "exec: %q: %v", name, err)
}

func environment(env []string, key string) string {
	value := ""
	for _, entry := range env {
		if v, ok := strings.CutPrefix(entry, key+"="); ok {
			value = v
		}
	}
	return value
}
