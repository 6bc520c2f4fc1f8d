package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/hook"
)

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
		if os.Rename(path, path+".1") == nil && l.config.Compressor != "" {
			l.report(l.packer.start(l.config.Compressor, path+".1"))
		}
	}
	if err := l.open(); err != nil {
		l.report(fmt.Errorf("rotating: %w", err))
	}
}

// packer compresses one file at a time, with a program of its own: it takes several
// times the memory that a monitor has, and what it needs only initialized every
// monitor would have for its whole life.
type packer struct {
	run   hook.Starter
	path  string
	pid   int
	ended <-chan unix.WaitStatus // nil: nothing is being compressed
}

func (p *packer) start(program, path string) error {
	pid, ended, err := p.run(func() (int, error) {
		return syscall.ForkExec(program, []string{filepath.Base(program), path}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Env: []string{}})
	})
	if err != nil {
		return fmt.Errorf("starting %s: %w", program, err)
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
		_ = os.Remove(p.path + monitor.PackingSuffix)
	}
}

// stop leaves the file as it is if it is not compressed yet.
func (p *packer) stop() {
	if p.ended != nil {
		_ = unix.Kill(p.pid, unix.SIGKILL)
		p.wait()
	}
}
