package foreign

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// TestFailuresAreTheProgramsWords: what programs write into their logs, and the kinds
// and words that decide the client's exit code.
func TestFailuresAreTheProgramsWords(t *testing.T) {
	for _, c := range []struct {
		log, kind, text string
	}{
		{`{"level":"warning","msg":"odd"}` + "\n" + `{"level":"error","msg":"exec: \"nosuch\": executable file not found in $PATH"}`, monitor.KindCommandNotFound, `crun create: exec: "nosuch": executable file not found in $PATH`},
		{`{"msg":"executable file ` + "`nosuch`" + ` not found in $PATH: No such file or directory","level":"error"}`, monitor.KindCommandNotFound, "executable file not found in $PATH"},
		{`{"level":"error","msg":"exec: \"/etc\": is a directory"}`, monitor.KindCommandNotExecable, "is a directory"},
		{`{"level":"error","msg":"open executable: Permission denied"}`, monitor.KindCommandNotExecable, "permission denied"},
		{`{"level":"error","msg":"cgroup: no such controller"}`, monitor.KindInternal, "crun create: cgroup: no such controller"},
		{"not a log\n", monitor.KindInternal, "crun create: exit status 3"},
		{"", monitor.KindInternal, "crun create: exit status 3"},
	} {
		file := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(file, []byte(c.log), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		err = Runtime{Program: "/usr/bin/crun"}.failure("create", unix.WaitStatus(3<<8), f)
		_ = f.Close()
		var failure *monitor.Failure
		if !errors.As(err, &failure) || failure.Kind != c.kind || !strings.Contains(failure.Message, c.text) {
			t.Errorf("%s: %v", c.log, err)
		}
	}
}

// TestNothingIsLeftOfACommand runs a program that fails, and one that is not there.
func TestNothingIsLeftOfACommand(t *testing.T) {
	work := t.TempDir()
	program := filepath.Join(t.TempDir(), "runtime")
	script := "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = --log ] && log=$2; shift; done\necho '{\"level\":\"error\",\"msg\":\"no\"}' > $log\nexit 1\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	r := Runtime{Program: program, ID: "c", State: filepath.Join(work, "state"), Work: work}
	if err := r.Delete(hook.Fork); err == nil || !strings.HasSuffix(err.Error(), "runtime delete: no") {
		t.Errorf("a program that fails: %v", err)
	}
	r.Program += "-nosuch"
	if err := r.Delete(hook.Fork); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
	if left, err := os.ReadDir(work); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestATerminalThatIsNeverSent: the console socket takes a long path, and a program
// that does not connect is noticed.
func TestATerminalThatIsNeverSent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := newConsole(dir, "init")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(conn, &unix.SockaddrUnix{Name: c.path()}); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(conn, []byte("/dev/pts/0")); err != nil {
		t.Fatal(err)
	}
	if fd, err := c.receive(); err == nil {
		t.Errorf("got descriptor %d", fd)
	}
	_ = unix.Close(conn)
	c.close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
