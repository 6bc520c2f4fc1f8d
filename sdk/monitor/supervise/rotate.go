package supervise

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// CompressName is the name under which the monitor's program compresses the file
// that is its argument.
const CompressName = "davit-log-compress"

// unfinished compressed files have this at the end of their names.
const unfinishedSuffix = monitor.PackedSuffix + ".tmp"

// rotate renames the files one number up and opens a new one. The old file is
// never written again: who still reads it finds all of it there.
func (l *logFile) rotate() {
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
	path := l.config.Path
	if l.config.MaxFile <= 1 {
		_ = os.Remove(path)
	} else {
		l.packer.wait()
		for n := l.config.MaxFile - 1; n > 1; n-- {
			// Whether one is compressed may differ: a compression may have been cut off.
			for _, suffix := range []string{"", monitor.PackedSuffix} {
				to := path + "." + strconv.Itoa(n) + suffix
				if os.Rename(path+"."+strconv.Itoa(n-1)+suffix, to) != nil {
					_ = os.Remove(to)
				}
			}
		}
		if os.Rename(path, path+".1") == nil && l.config.Compress {
			l.report(l.packer.start(path + ".1"))
		}
	}
	if err := l.open(); err != nil {
		l.report(fmt.Errorf("rotating: %w", err))
	}
}

// packer compresses one file at a time, in a process of its own: it takes several
// times the memory that a monitor has.
type packer struct {
	run   hook.Starter
	path  string
	pid   int
	ended <-chan unix.WaitStatus // nil: nothing is being compressed
}

func (p *packer) start(path string) error {
	pid, ended, err := p.run(func() (int, error) {
		return syscall.ForkExec("/proc/self/exe", []string{CompressName, path}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Env: []string{}})
	})
	if err != nil {
		return fmt.Errorf("compressing: %w", err)
	}
	p.path, p.pid, p.ended = path, pid, ended
	return nil
}

// wait waits until the file is compressed, or cannot be.
func (p *packer) wait() {
	if p.ended == nil {
		return
	}
	status := <-p.ended
	p.ended = nil
	if status.Signaled() { // no memory, or somebody's kill
		_ = os.Remove(p.path + unfinishedSuffix)
	}
}

// stop leaves the file as it is if it is not compressed yet.
func (p *packer) stop() {
	if p.ended != nil {
		_ = unix.Kill(p.pid, unix.SIGKILL)
		p.wait()
	}
}

// Compress replaces a rotated file by its compressed form and answers the exit
// code of its process, which ends with it.
func Compress(path string) int {
	if err := compress(path); err != nil {
		complain("compressing the log", err)
		_ = os.Remove(path + unfinishedSuffix)
		return 1
	}
	return 0
}

func compress(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	id, err := monitor.NewLogID(in)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path+unfinishedSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, logMode)
	if err != nil {
		return err
	}
	w := gzip.NewWriter(out)
	w.Extra = id.Extra()
	_, err = io.Copy(w, in)
	if err = errors.Join(err, w.Close(), out.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+unfinishedSuffix, path+monitor.PackedSuffix); err != nil {
		return err
	}
	return os.Remove(path)
}
