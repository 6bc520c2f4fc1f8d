// Package restore makes the processes of a container from the images of a
// checkpoint, with CRIU, as children of the calling process. What is around them
// is made as for a new container: cgroup, root filesystem, mounts of the host's.
//
// Only the standard library and x/sys may be imported here: see package monitor.
package restore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/criu"
	"github.com/davit-engine/davit/sdk/monitor/hook"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// Plan says what is restored, and where.
type Plan struct {
	Program string `json:"program"` // CRIU's
	// Images and Work are directories: of the checkpoint, and for CRIU's log.
	Images  string          `json:"images"`
	Work    string          `json:"work"`
	Options criu.Options    `json:"options"`
	Staging sandbox.Staging `json:"staging"`
	// Streams are what the standard streams were called in the checkpoint
	// ("pipe:[1234]"): those take the new ones' place. Empty ones are the container's
	// own.
	Streams [3]string `json:"streams"`
	// Namespaces are paths of namespaces to be in, by the keys that the checkpoint
	// has for them.
	Namespaces map[string]string `json:"namespaces,omitempty"`
	// CgroupFiles (v1) or CgroupDir (v2) put the processes into their cgroup.
	CgroupFiles []string `json:"cgroupFiles,omitempty"`
	CgroupDir   string   `json:"cgroupDir,omitempty"`
	// Keyring names the session keyring; empty keeps the inherited one.
	Keyring string `json:"keyring,omitempty"`
	// ReadOnly says that the root filesystem is.
	ReadOnly bool `json:"readOnly,omitempty"`
}

// LogName is the name of CRIU's log in the work directory.
const LogName = "restore.log"

// Tree is the restored processes, which have not gone on yet.
type Tree struct {
	PID      int // of the root
	Terminal int // its terminal's master, -1 for none
	// Ended will have the root's status.
	Ended <-chan unix.WaitStatus

	worker   *criu.Worker
	finished <-chan unix.WaitStatus // the worker's
	log      string
}

// Start makes the tree. Its streams are those that are given; setup runs when
// the namespaces are there, before anything is in them. On error nothing is
// left.
func (p Plan) Start(start hook.Starter, streams [3]*os.File, setup func(pid int) error) (_ *Tree, err error) {
	images, err := os.Open(p.Images)
	if err != nil {
		return nil, fmt.Errorf("opening the checkpoint: %w", err)
	}
	defer func() { _ = images.Close() }()
	work, err := os.Open(p.Work)
	if err != nil {
		return nil, err
	}
	defer func() { _ = work.Close() }()
	files, err := p.inherit(streams)
	for _, f := range files[min(3, len(files)):] {
		defer func() { _ = f.Close() }()
	}
	if err != nil {
		return nil, err
	}
	t := &Tree{Terminal: -1, log: filepath.Join(p.Work, LogName)}
	_, t.finished, err = start(func() (int, error) {
		worker, err := p.startOnThread(files)
		if err != nil {
			return 0, err
		}
		t.worker = worker
		return worker.PID, nil
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			t.abandon()
			err = criu.Explain(err, t.log)
		}
	}()
	root := 0
	t.PID, t.Ended, err = start(func() (int, error) {
		var err error
		root, err = t.worker.Restore(p.Options, images, work, func(n criu.Notification) error {
			switch n.Name {
			case criu.SetupNamespaces:
				return setup(n.PID)
			case criu.OrphanPTSMaster:
				return t.takeTerminal(n.FD)
			}
			if n.FD >= 0 {
				_ = unix.Close(n.FD)
			}
			return nil
		})
		return root, err
	})
	if err == nil && p.ReadOnly {
		err = writeProtectRoot(t.PID)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// takeTerminal keeps the first master: that of the terminal of the container's
// init. Others were of processes that are not in the checkpoint.
func (t *Tree) takeTerminal(fd int) error {
	switch {
	case fd < 0:
		return errors.New("criu announced a terminal and sent none")
	case t.Terminal >= 0:
		return unix.Close(fd)
	}
	t.Terminal = fd
	return nil
}

// inherit are the worker's files; the options name them.
func (p *Plan) inherit(streams [3]*os.File) ([]*os.File, error) {
	files := slices.Clone(streams[:])
	p.Options.Inherit = slices.Clone(p.Options.Inherit)
	seen := map[string]bool{}
	for i, name := range p.Streams {
		if name != "" && !seen[name] {
			seen[name] = true
			p.Options.Inherit = append(p.Options.Inherit, criu.Inherit{Key: name, FD: criu.FirstFD + i})
		}
	}
	for key, path := range p.Namespaces {
		f, err := os.Open(path)
		if err != nil {
			return files, fmt.Errorf("opening namespace: %w", err)
		}
		p.Options.Inherit = append(p.Options.Inherit, criu.Inherit{Key: key, FD: criu.FirstFD + len(files)})
		files = append(files, f)
	}
	p.Options.Log, p.Options.Sibling, p.Options.OrphanPTSMaster = LogName, true, true
	p.Options.Root = p.Staging.Rootfs
	return files, nil
}

// startOnThread starts the worker from a thread of its own that has what the
// tree inherits. The thread is not used again.
func (p *Plan) startOnThread(files []*os.File) (*criu.Worker, error) {
	type result struct {
		worker *criu.Worker
		err    error
	}
	answer := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		worker, err := p.startHere(files)
		answer <- result{worker, err}
	}()
	got := <-answer
	return got.worker, got.err
}

func (p *Plan) startHere(files []*os.File) (*criu.Worker, error) {
	if err := sandbox.JoinKeyring(p.Keyring); err != nil {
		return nil, fmt.Errorf("joining the session keyring: %w", err)
	}
	external, err := p.Staging.Make()
	if err != nil {
		return nil, err
	}
	for i, path := range external {
		p.Options.External = append(p.Options.External, "mnt["+p.Staging.External[i].Target+"]:"+path)
	}
	for _, path := range p.CgroupFiles {
		if err := os.WriteFile(path, []byte("0"), 0); err != nil {
			return nil, fmt.Errorf("joining cgroup: %w", err)
		}
	}
	// A session of its own: it dies with nobody's terminal.
	sys := syscall.SysProcAttr{Setsid: true}
	if p.CgroupDir != "" {
		dir, err := os.Open(p.CgroupDir)
		if err != nil {
			return nil, fmt.Errorf("opening cgroup: %w", err)
		}
		defer func() { _ = dir.Close() }()
		sys.UseCgroupFD, sys.CgroupFD = true, int(dir.Fd())
	}
	return criu.Start(p.Program, files, sys)
}

// Execute lets the tree go on. It has the name that a new container's start has.
func (t *Tree) Execute() error {
	err := t.worker.Resume()
	t.worker.Close()
	<-t.finished
	return criu.Explain(err, t.log)
}

// Close gives up a tree that was not let go on.
func (t *Tree) Close() { t.worker.Close() }

// abandon ends what a failed restoration has made.
func (t *Tree) abandon() {
	if t.PID > 0 {
		_ = unix.Kill(t.PID, unix.SIGKILL)
	}
	t.worker.Close()
	<-t.finished
	if t.PID > 0 {
		<-t.Ended
	}
	if t.Terminal >= 0 {
		_ = unix.Close(t.Terminal)
	}
}

// writeProtectRoot makes the root of a process's mount namespace read-only, as
// the last step: CRIU makes directories in it.
func writeProtectRoot(pid int) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			process, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(process) }()
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Setns(process, unix.CLONE_NEWNS); err != nil {
				return err
			}
			return unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		}()
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("making the root read-only: %w", err)
	}
	return nil
}
