package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/conformance/guest"
	"github.com/davit-engine/davit/sdk/runtime"
)

// runtimeExecChecks are those of feature "exec".
func runtimeExecChecks() []Check {
	const need = runtime.FeatureExec
	return []Check{
		{Name: "runtime/exec", Rule: "Exec creates, but does not start, another process in a running container.", Need: need, run: runtimeExec},
		{Name: "runtime/exec-taken", Rule: "Asked again for one that waits for its start, it answers the same; ALREADY_EXISTS if the exec ID is in use otherwise.", Need: need, run: runtimeExecTaken},
		{Name: "runtime/exec-process", Rule: `The "process" object of an OCI config.json.`, Need: need, run: runtimeExecProcess},
		{Name: "runtime/exec-streams", Rule: "Create and Exec answer the path of a unix socket that the engine attaches to.", Need: need, run: runtimeExecStreams},
		{Name: "runtime/exec-fails", Rule: "COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE or another reason why not; then the process counts as exited.", Need: need, run: runtimeExecFails},
		{Name: "runtime/exec-delete", Rule: "Delete removes an ended container, or an ended exec, and every trace of it.", Need: need, run: runtimeExecDelete},
		{Name: "runtime/exec-of-none", Rule: "NOT_FOUND for an unknown container or exec unless said otherwise.", Need: need, run: runtimeExecNone},
		{Name: "runtime/exec-restart", Rule: "A container survives the death of the driver.", Need: need, run: runtimeExecRestart},
		{Name: "runtime/exec-at-once", Rule: "Every RPC therefore answers a repetition with the same IDs and arguments as it answered the first", Need: need, run: runtimeExecMany},
	}
}

// process is an exec to ask for, that runs the guest in a container.
func (b *box) process(id string, change func(*specs.Process), args ...string) runtime.Exec {
	p := *b.spec.Process
	p.Args = append([]string{"/guest"}, args...)
	if change != nil {
		change(&p)
	}
	body, err := json.Marshal(p)
	b.t.must(err, "encoding a process")
	return runtime.Exec{ID: b.id, ExecID: id, Process: body, IO: runtime.IO{Stdout: true, Stderr: true}}
}

// exec creates a process.
func (b *box) exec(id string, args ...string) runtime.Process {
	p, err := b.t.runtime().Exec(b.t.ctx, b.process(id, nil, args...))
	b.t.must(err, "Exec")
	return p
}

// execEnds wants an exec that was started to end with a code.
func (b *box) execEnds(id string, code int) {
	exit, err := b.t.runtime().Wait(b.t.ctx, b.id, id)
	b.t.must(err, "Wait for an exec")
	if exit.Code != code {
		b.t.errorf("an exec that should have ended with code %d ended with %d", code, exit.Code)
	}
}

func runtimeExec(t *T) {
	b := t.started("container", guest.Wait).ready()
	b.exec("one", guest.Count)
	if n := b.counter(); n != "" {
		t.errorf("a process was executed before Start, and counted to %s", n)
	}
	t.must(t.runtime().Start(t.ctx, b.id, "one"), "Start of an exec")
	b.counts("after Start of an exec")
	t.must(t.runtime().Start(t.ctx, b.id, "one"), "Start of an exec that runs")
	t.must(t.runtime().Signal(t.ctx, b.id, "one", int(unix.SIGKILL), false), "Signal to an exec")
	b.execEnds("one", 128+int(unix.SIGKILL))
	t.fails(t.runtime().Start(t.ctx, b.id, "one"), errdefs.ErrFailedPrecondition, "Start of an exec that has ended")
	b.status(runtime.StatusRunning, "when an exec was killed")
	t.fails(t.runtime().Signal(t.ctx, b.id, "one", int(unix.SIGKILL), false), errdefs.ErrNotFound, "Signal to an exec that has ended")
	// With its container a process ends, too.
	b.exec("two", guest.Wait)
	t.must(t.runtime().Start(t.ctx, b.id, "two"), "Start of an exec")
	t.must(b.signal(int(unix.SIGKILL), false), "Signal")
	b.ends(128+int(unix.SIGKILL), "a container with an exec")
	if exit, err := t.runtime().Wait(t.ctx, b.id, "two"); err != nil {
		t.fails(err, errdefs.ErrNotFound, "Wait for an exec whose container has ended")
	} else if exit.Code != 128+int(unix.SIGKILL) {
		t.errorf("an exec that its container took along ended with code %d", exit.Code)
	}
}

func runtimeExecTaken(t *T) {
	b := t.started("container", guest.Wait).ready()
	first := b.exec("one", guest.Wait)
	t.same(first, b.exec("one", guest.Wait), "Exec again answers")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	t.same(first, b.exec("one", guest.Wait), "Exec of a new process answers")
	t.must(t.runtime().Start(t.ctx, b.id, "one"), "Start of an exec")
	t.fails(second(t.runtime().Exec(t.ctx, b.process("one", nil, guest.Wait))), errdefs.ErrAlreadyExists, "Exec with the ID of one that runs")
	race := b.process("race", nil, guest.Wait)
	pids := make([]int, 4)
	for i, err := range together(len(pids), func(i int) error {
		p, err := t.runtime().Exec(t.ctx, race)
		pids[i] = p.PID
		return err
	}) {
		if err != nil {
			t.fails(err, errdefs.ErrAlreadyExists, "one of several Exec at once")
			pids[i] = 0
		}
	}
	slices.Sort(pids)
	if pids = slices.DeleteFunc(slices.Compact(pids), func(pid int) bool { return pid == 0 }); len(pids) > 1 {
		t.errorf("several Exec at once with one ID made processes %v", pids)
	}
	other := t.started("other", guest.Wait).ready()
	other.exec("one", guest.Exit, "3") // unique within the container
	t.must(t.runtime().Start(t.ctx, other.id, "one"), "Start of an exec")
	other.execEnds("one", 3)
}

func runtimeExecProcess(t *T) {
	b := t.started("container", guest.Wait).ready()
	p, err := t.runtime().Exec(t.ctx, b.process("look", func(p *specs.Process) {
		p.User.UID, p.User.GID, p.Cwd, p.Env = 1234, 5678, guest.Out, append(p.Env, "KIT=exec")
		p.Capabilities = nil
	}, guest.Look))
	t.must(err, "Exec")
	a := t.attach(p.Socket, "look", false, false)
	t.must(t.runtime().Start(t.ctx, b.id, "look"), "Start of an exec")
	v := b.seen(a.all())
	if v.UID != 1234 || v.GID != 5678 || v.Dir != guest.Out || v.Hostname != "kit" || len(missing(v.Env, "KIT=exec")) > 0 || v.PID == 1 || len(missing(v.Root, "guest")) > 0 {
		t.errorf("an exec of user 1234:5678 in %s with KIT=exec sees %+v", guest.Out, v)
	}
	b.execEnds("look", 0)
	t.fails(second(t.runtime().Exec(t.ctx, runtime.Exec{ID: b.id, ExecID: "odd", Process: []byte("{")})), errdefs.ErrInvalidArgument, "Exec of a process that is no JSON")
}

func runtimeExecStreams(t *T) {
	b := t.started("container", guest.Wait).ready()
	e := b.process("cat", nil, guest.Cat)
	e.IO.Stdin, e.IO.StdinOnce = true, true
	p, err := t.runtime().Exec(t.ctx, e)
	t.must(err, "Exec")
	a := t.attach(p.Socket, "cat", true, false)
	t.must(t.runtime().Start(t.ctx, b.id, "cat"), "Start of an exec")
	a.write("hello\n")
	t.must(a.stream.CloseWrite(), "ending standard input")
	a.hears("hello\nend\n")
	b.execEnds("cat", 0)
	e = b.process("size", func(p *specs.Process) { p.Terminal = true }, guest.Size)
	e.IO.Terminal, e.IO.Stdin, e.IO.Width, e.IO.Height = true, true, 91, 33
	p, err = t.runtime().Exec(t.ctx, e)
	t.must(err, "Exec with a terminal")
	a = t.attach(p.Socket, "size", true, true)
	t.must(t.runtime().Start(t.ctx, b.id, "size"), "Start of an exec")
	a.hears("91x33\n")
	t.must(t.runtime().Resize(t.ctx, b.id, "size", 80, 24), "Resize")
	a.hears("80x24\n")
	if said := b.output(); said != "ready\n" {
		t.errorf("what execs say is in the container's log: %q", said)
	}
}

func runtimeExecFails(t *T) {
	b := t.started("container", guest.Wait).ready()
	for command, want := range map[string]error{"/no-such-command": runtime.ErrCommandNotFound, "/data": runtime.ErrNotExecutable} {
		id := "exec" + strconv.Itoa(len(command))
		t.must(second(t.runtime().Exec(t.ctx, b.process(id, func(p *specs.Process) { p.Args = []string{command} }))), "Exec")
		t.fails(t.runtime().Start(t.ctx, b.id, id), want, "Start of exec %s", command)
		t.must(second(t.runtime().Wait(t.ctx, b.id, id)), "Wait for an exec whose Start failed")
		t.must(second(t.runtime().Delete(t.ctx, b.id, id, false)), "Delete of an exec whose Start failed")
	}
	b.status(runtime.StatusRunning, "when execs failed")
}

func runtimeExecDelete(t *T) {
	b := t.started("container", guest.Wait).ready()
	b.exec("one", guest.Wait)
	t.must(t.runtime().Start(t.ctx, b.id, "one"), "Start of an exec")
	t.fails(second(t.runtime().Delete(t.ctx, b.id, "one", false)), errdefs.ErrFailedPrecondition, "Delete of an exec that runs")
	exit, err := t.runtime().Delete(t.ctx, b.id, "one", true)
	t.must(err, "Delete of an exec by force")
	if exit == nil || exit.Code != 128+int(unix.SIGKILL) {
		t.errorf("Delete of an exec by force answers exit %+v", exit)
	}
	t.fails(second(t.runtime().Delete(t.ctx, b.id, "one", true)), errdefs.ErrNotFound, "Delete of an exec again")
	b.exec("one", guest.Exit, "3") // the ID is free
	t.must(t.runtime().Start(t.ctx, b.id, "one"), "Start of an exec")
	b.execEnds("one", 3)
	if exit, err = t.runtime().Delete(t.ctx, b.id, "one", false); err != nil || exit == nil || exit.Code != 3 {
		t.errorf("Delete of an ended exec answers exit %+v, %v", exit, err)
	}
	b.status(runtime.StatusRunning, "when execs are deleted")
}

func runtimeExecNone(t *T) {
	none := &box{t: t, id: networkID(t.name("none")), spec: t.box("spec").spec}
	t.fails(second(t.runtime().Exec(t.ctx, none.process("one", nil, guest.Wait))), errdefs.ErrNotFound, "Exec in an unknown container")
	b := t.started("ended", guest.Exit, "0")
	b.wait()
	if err := second(t.runtime().Exec(t.ctx, b.process("one", nil, guest.Wait))); !errdefs.IsFailedPrecondition(err) && !errdefs.IsNotFound(err) {
		t.errorf("Exec in a container that has ended: %v", err)
	}
}

func runtimeExecRestart(t *T) {
	b := t.started("container", guest.Wait).ready()
	b.exec("one", guest.Count)
	t.must(t.runtime().Start(t.ctx, b.id, "one"), "Start of an exec")
	b.exec("waits", guest.Exit, "5")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	b.counts("when the driver was killed")
	t.must(t.runtime().Signal(t.ctx, b.id, "one", int(unix.SIGKILL), false), "Signal to an exec of the process before")
	b.execEnds("one", 128+int(unix.SIGKILL))
	t.must(t.runtime().Start(t.ctx, b.id, "waits"), "Start of an exec of the process before")
	b.execEnds("waits", 5)
	b.exec("new", guest.Exit, "6")
	t.must(t.runtime().Start(t.ctx, b.id, "new"), "Start of an exec")
	b.execEnds("new", 6)
}

func runtimeExecMany(t *T) {
	b := t.started("container", guest.Wait).ready()
	execs := make([]runtime.Exec, 8)
	for i := range execs {
		execs[i] = b.process(fmt.Sprint("exec", i), nil, guest.Exit, strconv.Itoa(i))
	}
	for i, err := range together(len(execs), func(i int) error {
		d, id := t.runtime(), execs[i].ExecID
		if _, err := d.Exec(t.ctx, execs[i]); err != nil {
			return err
		}
		if err := d.Start(t.ctx, b.id, id); err != nil {
			return err
		}
		exit, err := d.Wait(t.ctx, b.id, id)
		if exit.Code != i && err == nil {
			err = fmt.Errorf("exec %d ended with code %d", i, exit.Code)
		}
		return errors.Join(err, second(d.Delete(t.ctx, b.id, id, false)))
	}) {
		if err != nil {
			t.errorf("exec %d of %d at once: %v", i, len(execs), err)
		}
	}
}
