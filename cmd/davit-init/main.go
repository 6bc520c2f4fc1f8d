// Davit-init is the first process of a container that asks for --init. It runs
// the container's program as its child, hands signals on to it, collects the
// status of every orphan, and ends with the program's exit code: 128+n if signal
// n ended it. The engine mounts it at /sbin/docker-init and calls it as
// "docker-init -- PROGRAM [ARGUMENT...]".
package main

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
)

// Exit codes of a program that could not be executed, as a shell has them.
const (
	exitFailed        = 1
	exitNotExecutable = 126
	exitNotFound      = 127
)

func main() {
	// Threads count against the container's pids limit, and there is nothing to
	// collect.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		complain("usage: docker-init -- PROGRAM [ARGUMENT...]")
		os.Exit(exitFailed)
	}
	os.Exit(run(args))
}

// run is the init's whole life: it sleeps until a signal comes.
func run(args []string) int {
	// Before the program starts, so that nothing that is sent meanwhile is lost. A
	// signal that came earlier still has ended this process.
	// The program gets every signal's default handling back at its execve.
	forwarded, ended := make(chan os.Signal, 64), make(chan os.Signal, 1)
	signal.Notify(forwarded)
	signal.Notify(ended, syscall.SIGCHLD)
	program, err := start(args)
	if err != nil {
		complain("exec " + args[0] + ": " + err.Error())
		switch {
		case errors.Is(err, syscall.ENOENT):
			return exitNotFound
		case errors.Is(err, syscall.EACCES):
			return exitNotExecutable
		}
		return exitFailed
	}
	for {
		select {
		case <-ended:
			if status, over := reap(program); over {
				return exitCode(status)
			}
		case s := <-forwarded:
			if forwards(s) {
				// Gone already: its status is on the way.
				_ = syscall.Kill(program, s.(syscall.Signal))
			}
		}
	}
}

// forwards says whether a signal is the program's. The end of children is the
// init's own business; the terminal's signals for background jobs mean this very
// process, as the program has the foreground; with SIGURG, Go's runtime wakes
// its own threads.
func forwards(s os.Signal) bool {
	switch s {
	case syscall.SIGCHLD, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGURG:
		return false
	}
	return true
}

// reap collects all that have ended. One SIGCHLD may stand for many ends.
func reap(program int) (status syscall.WaitStatus, over bool) {
	for {
		var one syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &one, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR:
		case pid == program:
			status, over = one, true
		case err != nil || pid <= 0:
			return status, over
		}
	}
}

func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func complain(text string) {
	_, _ = os.Stderr.WriteString("davit-init: " + text + "\n")
}
