package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
)

// Bytes on the sync socket. A failure is messageFailure and a JSON
// monitor.Failure; success of execve is the socket's end without one.
const (
	MessageReady   = 'R' // set up; the terminal's master rides along if there is one
	MessageGo      = 'G' // from the monitor: execute
	MessageFailure = 'F'
	MessageHooks   = 'H' // mounted: the parent's hooks may run; answered in kind
)

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
	// Until execve, processes of the container must not look into this one: into
	// its memory, its descriptors, its program.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		fail(fmt.Errorf("forbidding to trace the stage: %w", err))
		os.Exit(1)
	}
	if err := run(); err != nil {
		fail(err)
	}
	os.Exit(1)
}

func run() error {
	config, err := readConfig()
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	s := &stage{Config: config, root: -1, proc: -1, null: -1, terminal: -1}
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
	}
	return s.execute()
}

// stage is the state of one run.
type stage struct {
	Config
	root     int // O_PATH descriptor of the container's root directory
	proc     int // the proc filesystem that the stage mounted, -1 for none
	null     int // a mount of the null device, -1 for none
	terminal int // master of the terminal, -1 for none
	label    int // where the label for execve is written, -1 for none
	path     string
}

func readConfig() (Config, error) {
	var config Config
	f := os.NewFile(ConfigFD, "config")
	defer func() { _ = f.Close() }()
	body, err := io.ReadAll(f)
	if err != nil {
		return config, err
	}
	return config, json.Unmarshal(body, &config)
}

// fail tells the monitor why there will be no program.
func fail(err error) {
	body, _ := json.Marshal(monitor.AsFailure(err))
	_, _ = unix.Write(SyncFD, append([]byte{MessageFailure}, body...))
}

// waitForGo tells the monitor that everything is ready, hands it the terminal,
// and waits for the order to execute. Its end is the monitor's death: then
// nobody wants the program any more.
func (s *stage) waitForGo() error {
	var rights []byte
	if s.terminal >= 0 {
		rights = unix.UnixRights(s.terminal)
	}
	if err := unix.Sendmsg(SyncFD, []byte{MessageReady}, rights, nil, 0); err != nil {
		return err
	}
	if s.terminal >= 0 {
		_ = unix.Close(s.terminal)
	}
	var order [1]byte
	for {
		n, err := unix.Read(SyncFD, order[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 || order[0] != MessageGo {
			os.Exit(1)
		}
		return nil
	}
}

// execute becomes the user's program.
func (s *stage) execute() error {
	err := unix.Exec(s.path, s.Process.Args, s.Process.Env)
	return commandError(s.Process.Args[0], err)
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
