package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asInit makes the test program davit-init.
const asInit = "DAVIT_TEST_AS_INIT"

func TestMain(m *testing.M) {
	if os.Getenv(asInit) != "" {
		_ = os.Unsetenv(asInit)
		main()
	}
	os.Exit(m.Run())
}

// initCommand is davit-init as the first process of a pid namespace: whatever a
// test does, nothing outlives it.
func initCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root makes pid namespaces")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"--"}, args...)...)
	cmd.Env = append(os.Environ(), asInit+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	return cmd
}

func TestTheExitCodeIsThePrograms(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		text string
	}{
		"success":        {[]string{"true"}, 0, ""},
		"failure":        {[]string{"sh", "-c", "exit 7"}, 7, ""},
		"a signal":       {[]string{"sh", "-c", "kill -TERM $$"}, 128 + 15, ""},
		"killed":         {[]string{"sh", "-c", "kill -KILL $$"}, 128 + 9, ""},
		"not found":      {[]string{"no-such-program"}, 127, "davit-init: exec no-such-program: no such file or directory\n"},
		"no such path":   {[]string{"/no/such/program"}, 127, "davit-init: exec /no/such/program: no such file or directory\n"},
		"not executable": {[]string{"/etc/passwd"}, 126, "davit-init: exec /etc/passwd: permission denied\n"},
		"a directory":    {[]string{"/etc"}, 126, "davit-init: exec /etc: permission denied\n"},
		"nothing":        {nil, 1, "davit-init: usage: docker-init -- PROGRAM [ARGUMENT...]\n"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := initCommand(t, c.args...)
			var text bytes.Buffer
			cmd.Stderr = &text
			err := cmd.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != c.code || text.String() != c.text {
				t.Errorf("exit code %d, want %d; %q, want %q", code, c.code, text.String(), c.text)
			}
		})
	}
}

func TestAProgramOnThePathMustBeExecutable(t *testing.T) {
	plain, good := t.TempDir(), t.TempDir()
	if err := os.WriteFile(plain+"/tool", []byte("#!/bin/sh\nexit 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", plain+":/no/such/directory")
	if _, err := find("tool"); !errors.Is(err, syscall.EACCES) {
		t.Errorf("error %v, want that it is not executable", err)
	}
	if err := os.WriteFile(good+"/tool", []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	t.Setenv("PATH", plain+":"+good)
	if path, err := find("tool"); path != good+"/tool" {
		t.Errorf("found %q, %v", path, err)
	}
}

// began starts an init whose program says a line when it is ready.
func began(t *testing.T, script string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := initCommand(t, "sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd, lines
}

func TestSignalsAreHandedOn(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGWINCH, syscall.SIGPIPE} {
		cmd, lines := began(t, fmt.Sprintf("trap 'echo got; exit 9' %d; echo ready; while :; do sleep 0.02; done", int(s)))
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(lines); string(rest) != "got\n" || err != nil {
			t.Errorf("%v: the program said %q, %v", s, rest, err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 9 {
			t.Errorf("%v: exit code %d", s, code)
		}
	}
}

// The signals that the init handles must not be what its program starts with.
// What was ignored before, as in a background job of a shell, may be.
func TestTheProgramStartsWithDefaultSignals(t *testing.T) {
	self, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	before := signalMasks(t, string(self))
	out, err := initCommand(t, "grep", "^Sig[BI]", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	after := signalMasks(t, string(out))
	if len(after) != 2 {
		t.Fatalf("the program says %q", out)
	}
	for name, mask := range after {
		if added := mask &^ before[name]; added != 0 {
			t.Errorf("%s has %x more than before", name, added)
		}
	}
}

// signalMasks are the blocked and ignored signals in a status file of proc.
func signalMasks(t *testing.T, status string) map[string]uint64 {
	t.Helper()
	masks := map[string]uint64{}
	for line := range strings.Lines(status) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		if name != "SigBlk" && name != "SigIgn" {
			continue
		}
		mask, err := strconv.ParseUint(text, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		masks[name] = mask
	}
	return masks
}

func TestOrphansAreCollectedAndTheInitSleeps(t *testing.T) {
	// Each subshell leaves an orphan that ends at once.
	cmd, _ := began(t, "for i in 1 2 3 4 5 6 7 8 9 10; do (sh -c : & :); done; echo ready; exec sleep 60")
	deadline := time.Now().Add(20 * time.Second)
	for {
		list := children(t, cmd.Process.Pid)
		if len(list) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the init has children besides its program, or not even that: %v", list)
		}
		time.Sleep(5 * time.Millisecond)
	}
	before := ticks(t, cmd.Process.Pid)
	time.Sleep(300 * time.Millisecond) // the span that is measured
	if used := ticks(t, cmd.Process.Pid) - before; used > 5 {
		t.Errorf("an idle init used %d ticks of 10 ms within 300 ms", used)
	}
}

// children are those of all threads of a process: each has its own.
func children(t *testing.T, pid int) []string {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, thread := range threads {
		body, err := os.ReadFile(thread)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) { // the thread has ended
			t.Fatal(err)
		}
		list = append(list, strings.Fields(string(body))...)
	}
	return list
}

// ticks is the processor time that a process has used, in USER_HZ.
func ticks(t *testing.T, pid int) int {
	t.Helper()
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(body[bytes.LastIndexByte(body, ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		t.Fatal(err)
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		t.Fatal(err)
	}
	return user + system
}
