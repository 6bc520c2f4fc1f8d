// Package fsmount mounts filesystems in a process of its own. A server that does
// not answer keeps mount(2) waiting for minutes; a process that waits there can be
// killed, a thread cannot.
package fsmount

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/moby/sys/mount"
	"golang.org/x/sys/unix"
)

// Request is one mount, in the words of mount(8).
type Request struct {
	Source  string // device, server's path, directory
	Target  string
	Type    string
	Options string // as in fstab(5), comma separated
}

// Error is why a filesystem was not mounted.
type Error struct {
	Text  string        // with source, target and options
	Errno syscall.Errno // 0 if the kernel gave none
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Unwrap lets errors.Is see the kernel's reason.
func (e *Error) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// processName is what the mounting process calls itself, in ps and to Main.
const processName = "davit-volume-mount"

// Mount mounts a filesystem. When ctx ends, the process that does it is killed,
// and the error is that of ctx: the filesystem may have been mounted in that
// moment. Programs that call it call [Main] first.
func Mount(ctx context.Context, r Request) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// The process dies with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{processName}
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(body), &out, &complaints
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	failed := cmd.Run()
	if failed == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var said Error
	if err := json.Unmarshal(out.Bytes(), &said); err != nil || said.Text == "" {
		return fmt.Errorf("mounting %s: %w: %s", r.Target, failed, complaints.String())
	}
	return &said
}

// Unmount takes away all that is mounted at a path, at once, whoever uses it
// and whether or not its server answers. Nothing mounted there is no error.
func Unmount(target string) error {
	for {
		err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "umount", Path: target, Err: err}
		}
	}
}

// Main is the mounting process. It returns only in processes that are not one.
func Main() { run(mount.Mount) }

func run(do func(source, target, kind, options string) error) {
	if len(os.Args) != 1 || os.Args[0] != processName {
		return
	}
	var r Request
	err := json.NewDecoder(os.Stdin).Decode(&r)
	if err == nil {
		err = do(r.Source, r.Target, r.Type, r.Options)
	}
	if err == nil {
		os.Exit(0)
	}
	said := Error{Text: err.Error()}
	errors.As(err, &said.Errno)
	_ = json.NewEncoder(os.Stdout).Encode(said)
	os.Exit(1)
}
