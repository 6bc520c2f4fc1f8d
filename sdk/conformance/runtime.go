package conformance

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/conformance/guest"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/runtime"
)

func runtimeChecks() []Check {
	return []Check{
		{Name: "runtime/create", Rule: "Create sets a container up to the point before its process is executed", run: runtimeCreate},
		{Name: "runtime/create-again", Rule: "Asked again for a container that waits for its start, it answers the same; ALREADY_EXISTS if the ID is in use otherwise.", run: runtimeCreateAgain},
		{Name: "runtime/create-at-once", Rule: "Asked again for a container that waits for its start, it answers the same; ALREADY_EXISTS if the ID is in use otherwise.", run: runtimeCreateAtOnce},
		{Name: "runtime/create-fails", Rule: "On error nothing is left.", run: runtimeCreateFails},
		{Name: "runtime/start", Rule: "Start executes a created process.", run: runtimeStart},
		{Name: "runtime/start-fails", Rule: "COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE or another reason why not; then the process counts as exited.", run: runtimeStartFails},
		{Name: "runtime/start-again", Rule: "Asked again for a process that runs, it succeeds; FAILED_PRECONDITION if it has ended: Wait tells how.", run: runtimeStartAgain},
		{Name: "runtime/exit-codes", Rule: "0 to 255; 128+n for death by signal n.", run: runtimeExitCodes},
		{Name: "runtime/wait", Rule: "Wait answers when the process has ended, also if that was long ago", run: runtimeWait},
		{Name: "runtime/signal", Rule: "Signal sends a signal. NOT_FOUND if the process is gone.", run: runtimeSignal},
		{Name: "runtime/signal-all", Rule: "To every process of the container.", run: runtimeSignalAll},
		{Name: "runtime/delete", Rule: "FAILED_PRECONDITION if it lives and force is not set. NOT_FOUND if there is none.", run: runtimeDelete},
		{Name: "runtime/delete-at-once", Rule: "NOT_FOUND if there is none.", run: runtimeDeleteAtOnce},
		{Name: "runtime/delete-by-force", Rule: "Kill it first if it lives.", run: runtimeDeleteForce},
		{Name: "runtime/unknown", Rule: "NOT_FOUND for an unknown container or exec unless said otherwise.", run: runtimeUnknown},
		{Name: "runtime/adopt", Rule: "Answers STATUS_GONE, not an error, for an unknown ID. Idempotent.", run: runtimeAdopt},
		{Name: "runtime/list", Rule: "List reports all containers of the driver.", run: runtimeList},
		{Name: "runtime/processes", Rule: "Processes lists the processes of a container.", run: runtimeProcesses},
		{Name: "runtime/events", Rule: "Events streams what happens to containers until the call is cancelled.", run: runtimeEvents},
		{Name: "runtime/restart", Rule: "A container survives the death of the driver.", run: runtimeRestart},
		{Name: "runtime/out-of-memory", Rule: "Whether the kernel killed a process of the container for memory.", run: runtimeOOM},
		{Name: "runtime/many-at-once", Rule: "Every RPC therefore answers a repetition with the same IDs and arguments as it answered the first", run: runtimeMany},
	}
}

func runtimeCreate(t *T) {
	b := t.box("new", guest.Wait)
	p := b.create()
	if !exists(p.PID) || p.Socket == "" {
		t.errorf("a created container has process %d and socket %q", p.PID, p.Socket)
	}
	state := b.status(runtime.StatusCreated, "after Create")
	if state.PID != p.PID || state.Socket != p.Socket || state.Exit != nil {
		t.errorf("Create answers %+v, Adopt %+v", p, state)
	}
	time.Sleep(50 * time.Millisecond) // for what must not happen
	if said := b.output(); said != "" {
		t.errorf("its process was executed before Start: it said %q", said)
	}
	t.fails(second(b.delete(false)), errdefs.ErrFailedPrecondition, "Delete of a created container")
	t.must(second(b.delete(true)), "Delete of a created container by force")
	b.status(runtime.StatusGone, "after Delete")
	if exists(p.PID) {
		t.errorf("the process of a created container is there after Delete")
	}
}

// second is the error of a call that answers something else, too.
func second[V any](_ V, err error) error { return err }

func runtimeCreateAgain(t *T) {
	b := t.box("twice", guest.Wait)
	first := b.create()
	t.same(first, b.create(), "Create again answers")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	t.same(first, b.create(), "Create of a new process answers")
	b.start()
	for _, when := range []string{"runs", "has ended"} {
		t.fails(second(t.runtime().Create(t.ctx, b.request())), errdefs.ErrAlreadyExists, "Create with the ID of a container that %s", when)
		if when == "runs" {
			b.ready()
			t.must(b.signal(int(unix.SIGKILL), false), "Signal")
			b.wait()
		}
	}
}

func runtimeCreateAtOnce(t *T) {
	b := t.box("race", guest.Wait)
	request := b.request()
	made := make([]runtime.Process, 4)
	errs := together(len(made), func(i int) (err error) {
		made[i], err = t.runtime().Create(t.ctx, request)
		return err
	})
	state := b.status(runtime.StatusCreated, "after several Create at once")
	won := 0
	for i, err := range errs {
		if err != nil {
			t.fails(err, errdefs.ErrAlreadyExists, "one of several Create at once")
			continue
		}
		won++
		if made[i].PID != state.PID {
			t.errorf("Create answers process %d, and the container's is %d", made[i].PID, state.PID)
		}
	}
	if won == 0 {
		t.errorf("of %d Create at once none succeeded: %v", len(errs), errs[0])
	}
	b.start()
	b.ready()
}

func runtimeCreateFails(t *T) {
	b := t.box("refused", guest.Exit, "0")
	good := b.request()
	for what, change := range map[string]func(*runtime.Create){
		"a spec that is no JSON":               func(c *runtime.Create) { c.Spec = []byte("{") },
		"an empty ID":                          func(c *runtime.Create) { c.ID = "" },
		"a root filesystem that is not there":  func(c *runtime.Create) { c.Rootfs = []mount.Mount{{Type: "bind", Source: b.dir + "/none"}} },
		"a mount whose source is not there":    func(c *runtime.Create) { c.Spec = b.with(b.dir + "/none").request().Spec },
		"a filesystem that no kernel can make": func(c *runtime.Create) { c.Rootfs = []mount.Mount{{Type: "kitfs", Source: "none"}} },
	} {
		request := good
		change(&request)
		_, err := t.runtime().Create(t.ctx, request)
		if err == nil {
			t.errorf("Create with %s succeeded", what)
			t.must(second(b.delete(true)), "Delete")
			continue
		}
		if strings.Contains(what, "JSON") || strings.Contains(what, "ID") {
			t.fails(err, errdefs.ErrInvalidArgument, "Create with %s", what)
		}
		b.status(runtime.StatusGone, "after a Create that failed")
		t.nothingLeft()
		if left := eventually(func() ([]string, bool) {
			left := rooted(b.dir)
			return left, len(left) == 0
		}); len(left) > 0 {
			t.errorf("after Create with %s failed, processes are left: %v", what, left)
		}
	}
	// The ID is free.
	t.must(second(t.runtime().Create(t.ctx, good)), "Create, after some that failed")
	b.start()
	b.ends(0, "a container whose ID was refused before")
}

// with is a container with one more mount of the machine's.
func (b *box) with(source string) *box {
	other := *b
	other.spec.Mounts = append(other.spec.Mounts[:len(other.spec.Mounts):len(other.spec.Mounts)], other.spec.Mounts[len(other.spec.Mounts)-1])
	other.spec.Mounts[len(other.spec.Mounts)-1].Source = source
	return &other
}

func runtimeStart(t *T) {
	b := t.started("new", guest.Wait).ready()
	state := b.status(runtime.StatusRunning, "after Start")
	if !exists(state.PID) {
		t.errorf("a running container has process %d, which is not there", state.PID)
	}
	t.must(b.signal(int(unix.SIGTERM), false), "Signal")
	exit := b.ends(guest.TermCode, "a container that was told to end")
	if since := time.Since(exit.At); since < -time.Second || since > time.Hour {
		t.errorf("it ended at %s, %s ago", exit.At, since)
	}
	state = b.status(runtime.StatusExited, "after the end")
	if state.Exit == nil || state.Exit.Code != guest.TermCode {
		t.errorf("after the end Adopt answers exit %+v", state.Exit)
	}
}

func runtimeStartFails(t *T) {
	for command, want := range map[string]error{"/no-such-command": runtime.ErrCommandNotFound, "/data": runtime.ErrNotExecutable, "/proc": runtime.ErrNotExecutable} {
		b := t.box(strings.Trim(command, "/"))
		b.spec.Process.Args[0] = command
		if _, err := t.runtime().Create(t.ctx, b.request()); err != nil {
			t.fails(err, want, "Create of a container that runs %s", command)
			b.status(runtime.StatusGone, "after a Create that failed")
			continue
		}
		t.fails(t.runtime().Start(t.ctx, b.id, ""), want, "Start of %s", command)
		b.status(runtime.StatusExited, "after a Start that failed")
		b.wait()
		t.must(second(b.delete(false)), "Delete of a container whose Start failed")
	}
}

func runtimeStartAgain(t *T) {
	b := t.started("twice", guest.Wait).ready()
	t.must(t.runtime().Start(t.ctx, b.id, ""), "Start of a running container")
	b.says("ready", 1)
	t.must(b.signal(int(unix.SIGKILL), false), "Signal")
	b.wait()
	t.fails(t.runtime().Start(t.ctx, b.id, ""), errdefs.ErrFailedPrecondition, "Start of a container that has ended")
}

func runtimeExitCodes(t *T) {
	for _, code := range []int{0, 1, 7, 255} {
		b := t.started("exit"+strconv.Itoa(code), guest.Exit, strconv.Itoa(code))
		b.ends(code, fmt.Sprintf("exit with %d", code))
	}
	b := t.started("killed", guest.Wait).ready()
	t.must(b.signal(int(unix.SIGKILL), false), "Signal")
	if exit := b.ends(128+int(unix.SIGKILL), "a container that was killed"); exit.OOMKilled {
		t.errorf("a container that was killed by a signal is said to have been killed for memory")
	}
}

func runtimeWait(t *T) {
	b := t.started("waited for", guest.Wait).ready()
	exits := make([]runtime.Exit, 4)
	waiting := make(chan []error)
	go func() {
		waiting <- together(len(exits), func(i int) (err error) {
			exits[i], err = t.runtime().Wait(t.ctx, b.id, "")
			return err
		})
	}()
	select {
	case <-waiting:
		t.fatalf("Wait answers while the process runs")
	case <-time.After(100 * time.Millisecond):
	}
	t.must(b.signal(int(unix.SIGTERM), false), "Signal")
	for i, err := range <-waiting {
		t.must(err, "Wait %d of %d at once", i, len(exits))
		t.same(exits[0], exits[i], "Wait answers")
	}
	t.same(exits[0], b.wait(), "Wait, after the end, answers")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	t.same(exits[0], b.wait(), "Wait of a new process answers")
	exit, err := b.delete(false)
	t.must(err, "Delete")
	if exit == nil {
		t.errorf("Delete answers no exit, and it is known")
	} else {
		t.same(exits[0], *exit, "Delete answers")
	}
}

func runtimeSignal(t *T) {
	b := t.started("signalled", guest.Family, "2")
	b.says("ready", 3)
	t.must(b.signal(int(unix.SIGHUP), false), "Signal")
	b.says("hangup", 1)
	t.must(b.signal(int(unix.SIGTERM), false), "Signal")
	b.ends(guest.TermCode, "a container that was told to end")
	t.fails(b.signal(int(unix.SIGHUP), false), errdefs.ErrNotFound, "Signal to a process that has ended")
}

func runtimeSignalAll(t *T) {
	b := t.started("signalled", guest.Family, "2")
	b.says("ready", 3)
	t.must(b.signal(int(unix.SIGHUP), true), "Signal to all")
	b.says("hangup", 3)
	t.must(b.signal(int(unix.SIGKILL), true), "Signal to all")
	b.ends(128+int(unix.SIGKILL), "a container whose processes were all killed")
}

func runtimeDelete(t *T) {
	b := t.started("deleted", guest.Wait).ready()
	t.fails(second(b.delete(false)), errdefs.ErrFailedPrecondition, "Delete of a running container")
	b.status(runtime.StatusRunning, "after a Delete that failed")
	t.must(b.signal(int(unix.SIGTERM), false), "Signal")
	b.wait()
	exit, err := b.delete(false)
	t.must(err, "Delete")
	if exit == nil || exit.Code != guest.TermCode {
		t.errorf("Delete answers exit %+v", exit)
	}
	b.status(runtime.StatusGone, "after Delete")
	t.fails(second(b.delete(false)), errdefs.ErrNotFound, "Delete again")
	t.fails(second(t.runtime().Wait(t.ctx, b.id, "")), errdefs.ErrNotFound, "Wait after Delete")
	t.nothingLeft()
	b.create() // the ID is free
}

func runtimeDeleteAtOnce(t *T) {
	b := t.started("race", guest.Exit, "0")
	b.wait()
	won := 0
	for _, err := range together(8, func(int) error { return second(b.delete(false)) }) {
		if err == nil {
			won++
		} else {
			t.fails(err, errdefs.ErrNotFound, "one of several Delete at once")
		}
	}
	if won == 0 {
		t.errorf("of several Delete at once none succeeded")
	}
	b.status(runtime.StatusGone, "after Delete")
}

func runtimeDeleteForce(t *T) {
	b := t.started("killed", guest.Family, "3")
	b.says("ready", 4)
	pids, err := t.runtime().Processes(t.ctx, b.id)
	t.must(err, "Processes")
	exit, err := b.delete(true)
	t.must(err, "Delete by force")
	if exit != nil && exit.Code != 128+int(unix.SIGKILL) {
		t.errorf("Delete by force answers exit %+v", *exit)
	}
	for _, pid := range pids {
		if exists(pid) {
			t.errorf("process %d of a deleted container is there", pid)
		}
	}
	t.nothingLeft()
}

func runtimeUnknown(t *T) {
	d, none := t.runtime(), networkID(t.name("none"))
	for call, err := range map[string]error{
		"Start": d.Start(t.ctx, none, ""), "Signal": d.Signal(t.ctx, none, "", 9, false), "Wait": second(d.Wait(t.ctx, none, "")),
		"Resize": d.Resize(t.ctx, none, "", 80, 24), "CloseStdin": d.CloseStdin(t.ctx, none, ""),
		"Processes": second(d.Processes(t.ctx, none)), "Delete": second(d.Delete(t.ctx, none, "", true)),
	} {
		t.fails(err, errdefs.ErrNotFound, "%s of an unknown container", call)
	}
	b := t.started("known", guest.Wait).ready()
	for call, err := range map[string]error{
		"Start": d.Start(t.ctx, b.id, "none"), "Signal": d.Signal(t.ctx, b.id, "none", 9, false), "Wait": second(d.Wait(t.ctx, b.id, "none")),
		"Resize": d.Resize(t.ctx, b.id, "none", 80, 24), "CloseStdin": d.CloseStdin(t.ctx, b.id, "none"), "Delete": second(d.Delete(t.ctx, b.id, "none", true)),
	} {
		t.fails(err, errdefs.ErrNotFound, "%s of an unknown exec", call)
	}
	b.status(runtime.StatusRunning, "after calls for an exec that is not there")
}
