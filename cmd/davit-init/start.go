package main

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// start executes the program in a process group of its own, which gets the
// foreground of the terminal if there is one: keys such as ^C are the program's.
func start(args []string) (pid int, err error) {
	path, err := find(args[0])
	if err != nil {
		return 0, err
	}
	return syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setpgid: true, Foreground: ownsTerminal(0), Ctty: 0},
	})
}

// ownsTerminal says whether a descriptor is this session's terminal.
func ownsTerminal(fd uintptr) bool {
	var group int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCGPGRP, uintptr(unsafe.Pointer(&group)))
	return errno == 0
}

// find looks a program up in $PATH, like execvp(3). What is there and may not be
// executed is only an error if there is no other.
func find(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	missing := error(syscall.ENOENT)
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + name
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if errors.Is(err, syscall.EACCES) {
			missing = err
		}
	}
	return "", missing
}

func executable(path string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return err
	}
	const mayExecute = 1 // X_OK
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG || syscall.Access(path, mayExecute) != nil {
		return syscall.EACCES
	}
	return nil
}
