package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/criu"
	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// Names of CRIU's logs in the work directory.
const (
	DumpLogName  = "dump.log"
	CheckLogName = "check.log"
)

// Program answers the path of CRIU by its name or path; "" is "criu". Without
// it, ErrNotImplemented.
func Program(name string) (string, error) {
	if name == "" {
		name = "criu"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("checkpoints need CRIU: %w: %w", err, errdefs.ErrNotImplemented)
	}
	return filepath.Abs(path)
}

// Check finds out whether CRIU works on this kernel, which takes it some tens of
// milliseconds. If not, ErrNotImplemented with its reason; its log is in the work
// directory.
func Check(program, work string, start hook.Starter) error {
	dir, err := os.Open(work)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	worker, ended, err := startWorker(program, start)
	if err != nil {
		return err
	}
	err = worker.Check(criu.Options{Log: CheckLogName}, dir)
	worker.Close()
	<-ended
	if err != nil {
		return fmt.Errorf("%s does not work on this kernel: %w: %w", program, criu.Explain(err, filepath.Join(work, CheckLogName)), errdefs.ErrNotImplemented)
	}
	return nil
}

// keepsNoNewPrivs is the release from which on CRIU restores a process's promise
// not to gain privileges.
var keepsNoNewPrivs = criu.Version{Major: 3, Minor: 19}

// CheckPrivileges refuses processes that promised not to gain privileges, where
// CRIU would forget that: what is restored must not be able to do more than before.
// ErrFailedPrecondition then.
func CheckPrivileges(program string, pids []int, start hook.Starter) error {
	for _, pid := range pids {
		promised, err := noNewPrivs(pid)
		if err != nil {
			return err
		}
		if !promised {
			continue
		}
		worker, ended, err := startWorker(program, start)
		if err != nil {
			return err
		}
		release, err := worker.Version()
		worker.Close()
		<-ended
		if err == nil && release.Before(keepsNoNewPrivs) {
			err = fmt.Errorf("process %d has no_new_privs, which CRIU %s does not restore: CRIU %s or later is needed: %w", pid, release, keepsNoNewPrivs, errdefs.ErrFailedPrecondition)
		}
		return err
	}
	return nil
}

// noNewPrivs reads a process's; one that has ended has none.
func noNewPrivs(pid int) (bool, error) {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	return strings.Contains(string(body), "\nNoNewPrivs:\t1\n"), err
}

func startWorker(program string, start hook.Starter) (worker *criu.Worker, ended <-chan unix.WaitStatus, err error) {
	_, ended, err = start(func() (int, error) {
		var err error
		// It goes on when this process is killed, and finds at its next notification that
		// nobody answers: then it lets the container go on.
		worker, err = criu.Start(program, nil, syscall.SysProcAttr{Setsid: true})
		if err != nil {
			return 0, err
		}
		return worker.PID, nil
	})
	return worker, ended, err
}

// Dump is a checkpoint to be made.
type Dump struct {
	Program string // CRIU's
	PID     int    // of the container's init
	Work    string // directory for CRIU's log
	Options criu.Options
	// Pipes and Terminal describe the init's standard streams.
	Pipes    [3]string
	Terminal bool
	// Network says that the container's network namespace is somebody else's, who will
	// have another for it when it is restored.
	Network bool
}

// partial is the suffix of a directory whose checkpoint is not complete.
const partial = ".partial"

// Make dumps into a directory that is there when the checkpoint is complete, and
// never before: CRIU waits with what becomes of the container until it is on the
// disk under its name. If it fails the container goes on and nothing is left; a
// crash leaves at most the directory with the suffix ".partial", which the next
// attempt removes.
func Make(ctx context.Context, dir string, d Dump, start hook.Starter) (err error) {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = errdefs.ErrAlreadyExists
		}
		return fmt.Errorf("checkpoint directory %s: %w", dir, err)
	}
	images := dir + partial
	if err := os.RemoveAll(images); err != nil {
		return err
	}
	if err := os.Mkdir(images, 0o700); err != nil {
		return err
	}
	complete := false
	defer func() {
		if err == nil {
			return
		}
		if complete { // the container was not let go all the same
			err = errors.Join(err, os.RemoveAll(dir))
		}
		err = errors.Join(err, os.RemoveAll(images))
	}()
	return d.Run(images, start, func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := persist(images, dir); err != nil {
			return fmt.Errorf("completing the checkpoint: %w", err)
		}
		complete = true
		return nil
	})
}

// persist gives a directory its name when its files are on the disk.
func persist(from, to string) error {
	fd, err := unix.Open(from, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: from, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	if err := flush(fd, from); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	parent, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	return parent.Sync()
}

// flush writes a directory's files to the disk. They may be many and large: the
// filesystem writes them best all at once.
func flush(fd int, path string) error {
	if err := unix.Syncfs(fd); err != nil {
		return &os.PathError{Op: "syncfs", Path: path, Err: err}
	}
	return nil
}

// Run dumps into an existing directory. commit is called when all is
// written and nobody has gone on yet: if it fails everybody goes on, and the dump
// has failed. What a failed dump leaves in the directory is of no use.
func (d Dump) Run(images string, start hook.Starter, commit func() error) error {
	image := &Image{Format: format, Pipes: d.Pipes, Terminal: d.Terminal, Network: d.Network}
	if err := image.mounts(d.PID); err != nil {
		return err
	}
	o := d.Options
	o.PID, o.Log, o.OrphanPTSMaster = d.PID, DumpLogName, true
	for _, m := range image.External {
		o.External = append(o.External, "mnt["+m.Mountpoint+"]:"+m.Mountpoint)
	}
	if d.Network {
		inode, err := namespace(d.PID, "net")
		if err != nil {
			return err
		}
		o.External = append(o.External, fmt.Sprintf("net[%d]:%s", inode, networkKey))
	}
	err := d.run(images, o, start, func() error {
		if err := image.measure(images); err != nil {
			return err
		}
		if err := image.write(images); err != nil {
			return err
		}
		return commit()
	})
	var failure *criu.Failure
	if errors.As(err, &failure) {
		// Perhaps it cannot do anything here: that is the better reason.
		if unfit := Check(d.Program, d.Work, start); unfit != nil {
			return unfit
		}
		err = fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return criu.Explain(err, filepath.Join(d.Work, DumpLogName))
}

func (d Dump) run(dir string, o criu.Options, start hook.Starter, commit func() error) error {
	images, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = images.Close() }()
	work, err := os.Open(d.Work)
	if err != nil {
		return err
	}
	defer func() { _ = work.Close() }()
	worker, ended, err := startWorker(d.Program, start)
	if err != nil {
		return err
	}
	err = worker.Dump(o, images, work, func(n criu.Notification) error {
		if n.Name == criu.PostDump {
			return commit()
		}
		return nil
	})
	worker.Close()
	<-ended
	return err
}

// namespace is the inode of a process's namespace.
func namespace(pid int, kind string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), &st); err != nil {
		return 0, fmt.Errorf("namespace %s of process %d: %w", kind, pid, err)
	}
	return st.Ino, nil
}
