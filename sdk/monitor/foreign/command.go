// Package foreign has containers made by the program of another OCI runtime (crun,
// runc and their like), as children of the calling process. What is asked of the
// program is what containerd asks of it: the commands create, start, exec --detach
// and delete with --bundle, --pid-file and --console-socket, and the global flags
// --root, --log and --log-format.
//
// The calling process must be a sub-reaper: what the program leaves behind becomes
// its child.
//
// Only the standard library and x/sys may be imported here: see package monitor.
package foreign

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// Runtime is the program, and the container it is asked about.
type Runtime struct {
	Program string   `json:"program"`        // its absolute path
	Args    []string `json:"args,omitempty"` // more global flags
	ID      string   `json:"id"`
	// State is a directory for what the program remembers (--root), Work one for what
	// is exchanged with it.
	State string `json:"state"`
	Work  string `json:"work"`
}

// path is the search path of the program, and of hooks that name none.
const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Delete removes the container and kills what lives of it. One that is not there is
// no error.
func (r Runtime) Delete(start hook.Starter) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	return r.run(start, [3]*os.File{null, null, null}, nil, "delete", "--force", r.ID)
}

// run runs one command of the program to its end and answers its own words if it
// fails. With prepare it is started from a thread of its own that prepare has been
// called on.
func (r Runtime) run(start hook.Starter, files [3]*os.File, prepare func() error, command string, args ...string) error {
	log, err := os.CreateTemp(r.Work, command+"-*.log")
	if err != nil {
		return err
	}
	defer func() {
		_ = log.Close()
		_ = os.Remove(log.Name())
	}()
	argv := append([]string{r.Program, "--root", r.State, "--log", log.Name(), "--log-format", "json"}, r.Args...)
	argv = append(append(argv, command), args...)
	attr := &syscall.ProcAttr{Dir: "/", Env: []string{path}, Sys: &syscall.SysProcAttr{Setsid: true}}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	fork := func() (int, error) {
		pid, err := syscall.ForkExec(r.Program, argv, attr)
		if err != nil {
			err = fmt.Errorf("starting %s: %w", r.Program, err)
		}
		return pid, err
	}
	if prepare != nil {
		fork = onThread(prepare, fork)
	}
	_, ended, err := start(fork)
	if err != nil {
		return err
	}
	if status := <-ended; !status.Exited() || status.ExitStatus() != 0 {
		return r.failure(command, status, log)
	}
	return nil
}

// onThread calls both functions on a thread that is not used again.
func onThread(prepare func() error, fork func() (int, error)) func() (int, error) {
	return func() (pid int, err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			if err = prepare(); err == nil {
				pid, err = fork()
			}
		}()
		<-done
		return pid, err
	}
}

// maxLog is how much of a program's log is looked at.
const maxLog = 64 << 10

// failure words why a command failed: with the last error in its log.
func (r Runtime) failure(command string, status unix.WaitStatus, log *os.File) error {
	name := filepath.Base(r.Program) + " " + command
	text := fmt.Sprintf("exit status %d", status.ExitStatus())
	if status.Signaled() {
		text = "signal: " + status.Signal().String()
	}
	body := make([]byte, maxLog)
	n, _ := log.ReadAt(body, 0)
	for line := range bytes.Lines(body[:n]) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && (entry.Level == "error" || entry.Level == "fatal") {
			text = entry.Msg
		}
	}
	if !strings.HasPrefix(text, name) {
		text = name + ": " + text
	}
	return classify(text)
}

// classify gives a message the kind that decides the client's exit code. Programs
// do not tell kinds, and clients look for certain words: those of runc.
func classify(text string) error {
	lower := strings.ToLower(text)
	aboutExec := strings.Contains(lower, "exec")
	switch {
	case strings.Contains(lower, "executable file") && strings.Contains(lower, "not found"),
		aboutExec && strings.Contains(lower, "no such file or directory"):
		if !strings.Contains(text, "executable file not found") && !strings.Contains(text, "no such file or directory") {
			text += ": executable file not found in $PATH"
		}
		return monitor.Failf(monitor.KindCommandNotFound, "%s", text)
	case aboutExec && (strings.Contains(lower, "permission denied") || strings.Contains(lower, "is a directory") || strings.Contains(lower, "exec format error")):
		if !strings.Contains(text, "permission denied") && !strings.Contains(text, "is a directory") {
			text += ": permission denied"
		}
		return monitor.Failf(monitor.KindCommandNotExecable, "%s", text)
	}
	return monitor.Failf(monitor.KindInternal, "%s", text)
}

// readPID reads the file that --pid-file names, and removes it.
func readPID(name string) (int, error) {
	body, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(body)))
	if err != nil || pid < 1 {
		return 0, fmt.Errorf("the runtime's pid file has %q", body)
	}
	return pid, remove(name)
}

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
