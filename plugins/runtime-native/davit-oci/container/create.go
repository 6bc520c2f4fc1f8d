package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/console"
	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/record"
	"github.com/davit-engine/davit/plugins/runtime-native/netdev"
	"github.com/davit-engine/davit/plugins/runtime-native/placement"
	"github.com/davit-engine/davit/plugins/runtime-native/proc"
	"github.com/davit-engine/davit/plugins/runtime-native/seccomp"
	"github.com/davit-engine/davit/plugins/runtime-native/translate"
	"github.com/davit-engine/davit/sdk/monitor/launch"
	"github.com/davit-engine/davit/sdk/monitor/restore"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// Create asks for a container.
type Create struct {
	ID     string
	Bundle string
	// Detach says that the caller ends before the container.
	Detach bool
	// ConsoleSocket is the path of a unix socket that gets the terminal's master.
	ConsoleSocket string
	PIDFile       string
	PreserveFDs   int // descriptors from 3 on that the program inherits
	ListenFDs     int // how many of them are systemd's activated sockets
	NoPivot       bool
	NoNewKeyring  bool
}

// Created is a container whose program has not been executed yet.
type Created struct {
	*record.Record
	runtime  *Runtime
	dir      *record.Dir
	child    *launch.Child
	tree     *restore.Tree // instead of the child, if it is from a checkpoint
	terminal *os.File      // master, if nobody else has it
	// forwarder is nil if the caller ends before the container.
	forwarder *forwarder
}

// Create sets a container up to the point before its program is executed. With
// waiting the container can be started by another process after [Created.Leave].
// On error nothing is left.
func (r *Runtime) create(o Create, waiting bool) (_ *Created, err error) {
	c, spec, err := r.begin(o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.undo())
		}
	}()
	group, hold, err := c.makeGroup(spec)
	if err != nil {
		return nil, err
	}
	defer hold.Release()
	stage, err := c.stage(spec, group, waiting, o)
	if err != nil {
		return nil, err
	}
	if waiting {
		socket, err := c.dir.Listen()
		if err != nil {
			return nil, err
		}
		defer func() { _ = socket.Close() }()
		stage.StartSocket = int(socket.Fd())
	}
	if c.child, err = clone(stage); err != nil {
		return nil, named(err)
	}
	// While the stage sets itself up, what can be done without it is.
	if !o.Detach {
		c.forwarder = listen()
	}
	c.PID = c.child.PID
	c.StartTime = proc.StartTime(c.PID)
	encoded, err := c.Encode()
	if err != nil {
		return nil, err
	}
	terminal, err := c.child.WaitReady()
	if err != nil {
		return nil, named(err)
	}
	if err := netdev.Move(fmt.Sprintf("/proc/%d/ns/net", c.child.PID), spec.Linux.NetDevices); err != nil {
		return nil, err
	}
	if c.terminal, err = console.Hand(terminal, o.ConsoleSocket); err != nil {
		return nil, err
	}
	if err := c.dir.Save(encoded); err != nil {
		return nil, err
	}
	return c, writePID(o.PIDFile, c.PID)
}

// begin reads the bundle and takes the container's name and place. On error
// nothing is left; later errors are to be followed by [Created.undo].
func (r *Runtime) begin(o Create) (*Created, *specs.Spec, error) {
	bundle, err := filepath.Abs(o.Bundle)
	if err != nil {
		return nil, nil, err
	}
	spec, err := loadSpec(bundle)
	if err != nil {
		return nil, nil, err
	}
	if o.ListenFDs > 0 { // sd_listen_fds(3)
		spec.Process.Env = append(spec.Process.Env, "LISTEN_FDS="+strconv.Itoa(o.ListenFDs), "LISTEN_PID=1")
	}
	if err := checkConsole(spec.Process.Terminal, o.Detach, o.ConsoleSocket); err != nil {
		return nil, nil, err
	}
	root, err := rootfs(spec, bundle)
	if err != nil {
		return nil, nil, err
	}
	place, err := r.place(spec, o.ID)
	if err != nil {
		return nil, nil, err
	}
	dir, err := r.Root.Create(o.ID, discard)
	if err != nil {
		return nil, nil, err
	}
	// Undoing a creation kills what is in its cgroup: it must not be somebody else's.
	if err = cgroup.Vacant(place.Cgroup); err == nil {
		err = dir.Intend(place)
	}
	if err != nil {
		defer dir.Close()
		return nil, nil, errors.Join(err, dir.Remove())
	}
	return &Created{runtime: r, dir: dir, Record: &record.Record{
		ID: o.ID, OCIVersion: spec.Version, Bundle: bundle, Rootfs: root, Annotations: spec.Annotations, Created: time.Now().UTC(),
		UID: os.Geteuid(), Placement: place, Process: spec.Process,
	}}, spec, nil
}

// makeGroup makes the cgroup, which is to be released when a process is in it.
func (c *Created) makeGroup(spec *specs.Spec) (*cgroup.Group, *placement.Hold, error) {
	ctx, cancel := context.WithTimeout(context.Background(), systemdPatience)
	defer cancel()
	return c.Placement.Create(ctx, "davit container "+c.ID, resources(spec), spec.Annotations)
}

// checkConsole refuses terminals that nobody would hold.
func checkConsole(terminal, detach bool, socket string) error {
	if detach && terminal && socket == "" {
		return ErrConsoleDetach
	}
	if socket != "" && (!detach || !terminal) {
		return ErrConsoleNoTTY
	}
	return nil
}

// translate translates the spec and keeps of it what later commands need.
func (c *Created) translate(spec *specs.Spec, group *cgroup.Group, o Create) (*translate.Container, error) {
	if spec.Linux.IntelRdt != nil {
		return nil, errors.New("linux.intelRdt is not supported by davit-oci")
	}
	if err := netdev.Check(spec.Linux.NetDevices, spec.Linux.Namespaces); err != nil {
		return nil, err
	}
	t, err := translate.Spec(spec, nil, c.Rootfs, group)
	if err != nil {
		return nil, err
	}
	if spec.Linux.Seccomp != nil {
		program, flags, err := seccomp.Compile(spec.Linux.Seccomp)
		if err != nil {
			return nil, fmt.Errorf("compiling the seccomp profile: %w", err)
		}
		c.Seccomp = &sandbox.Seccomp{Program: program, Flags: flags, Notify: seccomp.Notifies(spec.Linux.Seccomp)}
		c.Listener = translate.Listener(spec, c.ID, c.Bundle)
	}
	for _, name := range translate.UnknownCapabilities(spec.Process) {
		c.runtime.Warn("capability %s is unknown and left out", name)
	}
	if !o.NoNewKeyring {
		t.Stage.Process.Keyring = "_ses." + c.ID
	}
	c.OwnPID, c.Join, c.Birth = t.OwnPID, namespaces(spec), t.Exec
	c.Keyring, c.Personality, c.MemoryPolicy = t.Stage.Process.Keyring, t.Stage.Process.Personality, t.Stage.Process.MemoryPolicy
	for _, join := range t.Join {
		c.Joined |= join.Type
	}
	c.User = slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	if !spec.Process.Terminal {
		c.Pipes = pipes()
	}
	c.Hooks, err = translate.Hooks(spec, c.ID, c.Bundle)
	return t, err
}

// stage plans the stage that becomes the container's init.
func (c *Created) stage(spec *specs.Spec, group *cgroup.Group, waiting bool, o Create) (launch.Stage, error) {
	t, err := c.translate(spec, group, o)
	if err != nil {
		return launch.Stage{}, err
	}
	t.Stage.Container.NoPivot = o.NoPivot
	t.Stage.Seccomp, t.Stage.FindFirst, t.Stage.Extra = c.Seccomp, waiting, o.PreserveFDs
	t.Stage.Container.Hooks = stageHooks(c.Hooks)
	config, err := t.Stage.Encode()
	if err != nil {
		return launch.Stage{}, err
	}
	stage := launch.Stage{
		Name: launch.InitName, Listener: c.Listener, Config: config, Birth: t.Birth, Flags: t.CloneFlags, Join: t.Join,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Extra: inherited(o.PreserveFDs), Hooks: c.createHooks,
	}
	stage.CgroupFiles, stage.CgroupDir = group.Joining()
	return stage, nil
}

// namespaces are those that an exec has to enter, as CLONE_NEW* flags; the pid
// namespace is entered by its clone.
func namespaces(spec *specs.Spec) int {
	join := 0
	for _, n := range spec.Linux.Namespaces {
		switch n.Type {
		case specs.MountNamespace:
			join |= unix.CLONE_NEWNS
		case specs.NetworkNamespace:
			join |= unix.CLONE_NEWNET
		case specs.IPCNamespace:
			join |= unix.CLONE_NEWIPC
		case specs.UTSNamespace:
			join |= unix.CLONE_NEWUTS
		case specs.CgroupNamespace:
			join |= unix.CLONE_NEWCGROUP
		case specs.UserNamespace:
			join |= unix.CLONE_NEWUSER
		case specs.PIDNamespace, specs.TimeNamespace:
		}
	}
	return join
}

// inherited are the first descriptors after the standard ones.
func inherited(n int) []uintptr {
	var fds []uintptr
	for i := range n {
		fds = append(fds, uintptr(3+i))
	}
	return fds
}

func writePID(path string, pid int) error {
	if path == "" {
		return nil
	}
	if err := record.WriteFile(path, []byte(strconv.Itoa(pid)), 0o666); err != nil {
		return fmt.Errorf("writing the pid file: %w", err)
	}
	return nil
}

// undo takes back a creation: the process, the cgroup, the directory.
func (c *Created) undo() error {
	if c.child != nil {
		c.child.Close()
		_ = unix.Kill(c.child.PID, unix.SIGKILL)
		var status unix.WaitStatus
		_, _ = unix.Wait4(c.child.PID, &status, 0, nil)
	}
	if c.tree != nil {
		c.tree.Close()
		_ = unix.Kill(c.tree.PID, unix.SIGKILL)
	}
	if c.terminal != nil {
		_ = c.terminal.Close()
	}
	err := errors.Join(discard(c.Placement), c.dir.Remove())
	c.dir.Close()
	return err
}

// Create makes a container that waits for [Runtime.Start].
func (r *Runtime) Create(o Create) error {
	o.Detach = true
	c, err := r.create(o, true)
	if err != nil {
		return err
	}
	if err := c.child.Leave(); err != nil {
		return errors.Join(err, c.undo())
	}
	c.dir.Close()
	return nil
}

// Start executes the program of a created container and answers when execve has
// succeeded, or why not.
func (r *Runtime) Start(id string) error {
	dir, c, err := r.Root.Open(id)
	if err != nil {
		return err
	}
	defer dir.Close()
	switch r.status(c) {
	case specs.StateStopped:
		return ErrStartStopped
	case specs.StateCreated:
	default:
		return ErrStartRunning
	}
	conn, err := dir.Dial()
	if err != nil {
		return err
	}
	if conn == nil {
		return ErrStartStopped
	}
	if err := named(launch.Execute(conn, c.PID, c.Listener)); err != nil {
		return err
	}
	dir.Forget()
	return started(c)
}
