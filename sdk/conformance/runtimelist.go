package conformance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/conformance/guest"
	"github.com/davit-engine/davit/sdk/runtime"
)

func runtimeAdopt(t *T) {
	state, err := t.runtime().Adopt(t.ctx, networkID(t.name("none")))
	t.must(err, "Adopt of an unknown container")
	if state.Status != runtime.StatusGone {
		t.errorf("an unknown container is %s", state.Status)
	}
	b := t.started("adopted", guest.Wait).ready()
	first := b.status(runtime.StatusRunning, "of a running container")
	t.same(first, b.status(runtime.StatusRunning, "again"), "Adopt again answers")
}

// listed are the states that List reports.
func (t *T) listedBoxes() map[string]runtime.State {
	list, err := t.runtime().List(t.ctx)
	t.must(err, "List")
	all := map[string]runtime.State{}
	for _, s := range list {
		if _, twice := all[s.ID]; twice {
			t.errorf("container %s is listed twice", s.ID)
		}
		all[s.ID] = s
	}
	return all
}

func runtimeList(t *T) {
	boxes := []*box{t.box("created", guest.Wait), t.box("running", guest.Wait), t.box("ended", guest.Exit, "7")}
	for i, b := range boxes {
		b.create()
		if i > 0 {
			b.start()
		}
	}
	boxes[1].ready()
	boxes[2].wait()
	for _, when := range []string{"List", "List of a new process"} {
		all := t.listedBoxes()
		for i, want := range []runtime.Status{runtime.StatusCreated, runtime.StatusRunning, runtime.StatusExited} {
			t.same(boxes[i].status(want, "beside List"), all[boxes[i].id], "%s answers", when)
		}
		if len(all) != len(boxes) {
			t.errorf("%s answers %d containers, and there are %d", when, len(all), len(boxes))
		}
		t.must(t.again(t.ctx), "killing and starting the plugin")
	}
	for _, b := range boxes {
		t.must(second(b.delete(true)), "Delete")
	}
	if all := t.listedBoxes(); len(all) > 0 {
		t.errorf("all are deleted, and %+v is listed", all)
	}
}

func runtimeProcesses(t *T) {
	b := t.started("family", guest.Family, "3")
	b.says("ready", 4)
	pids, err := t.runtime().Processes(t.ctx, b.id)
	t.must(err, "Processes")
	found := false
	for _, pid := range pids {
		if !exists(pid) {
			t.errorf("process %d is not there", pid)
		}
		found = found || pid == b.status(runtime.StatusRunning, "of a running container").PID
	}
	if len(pids) != 4 || !found {
		t.errorf("of the container's own process and three children these are listed: %v", pids)
	}
}

func runtimeEvents(t *T) {
	events := make(chan runtime.Event, 64)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	go func() {
		done <- t.runtime().Events(ctx, func(e runtime.Event) error {
			select {
			case events <- e:
			default:
			}
			return nil
		})
	}()
	// An event may be lost, as long as the stream is not there yet above all. Somebody
	// waits for the container, as the engine does.
	for i := range 10 {
		b := t.started(fmt.Sprint("ends", i), guest.Wait).ready()
		waited := make(chan error, 1)
		go func() { waited <- second(t.runtime().Wait(t.ctx, b.id, "")) }()
		time.Sleep(20 * time.Millisecond)
		t.must(b.signal(int(unix.SIGTERM), false), "Signal")
		t.must(<-waited, "Wait")
		select {
		case e := <-events:
			if e.ID != b.id || e.ExecID != "" || e.Type != runtime.EventExit || e.Exit == nil || e.Exit.Code != guest.TermCode {
				t.errorf("a container ended with code %d, and the event is %+v, exit %+v", guest.TermCode, e, e.Exit)
			}
			cancel()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) {
					t.errorf("Events ends with %v when it is cancelled", err)
				}
			case <-time.After(5 * time.Second):
				t.errorf("Events goes on 5 s after it was cancelled")
			}
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
	t.errorf("of ten containers that ended no event was sent")
}

func runtimeRestart(t *T) {
	b := t.started("goes on", guest.Count)
	b.counts("after Start")
	for what, restart := range map[string]func() error{
		"killed": func() error { return t.again(t.ctx) },
		"ended":  func() error { t.plug.stop(t.ctx); t.plug = nil; return t.start(t.ctx) },
	} {
		before := b.status(runtime.StatusRunning, "before the driver was "+what)
		waited := make(chan error, 1)
		d := t.runtime()
		go func() { waited <- second(d.Wait(t.ctx, b.id, "")) }()
		t.must(restart(), "starting the plugin, which was %s", what)
		if err := <-waited; err == nil {
			t.errorf("the driver was %s, and Wait answers that the container has ended", what)
		}
		b.counts("when the driver was " + what)
		t.same(before, b.status(runtime.StatusRunning, "after the driver was "+what), "Adopt answers")
	}
	t.must(b.signal(int(unix.SIGKILL), false), "Signal to a container of another process")
	b.ends(128+int(unix.SIGKILL), "a container of another process")
	// One that ends while nobody is there.
	b = t.started("ends alone", guest.Wait).ready()
	pid := b.status(runtime.StatusRunning, "of a running container").PID
	t.kill()
	t.must(unix.Kill(pid, unix.SIGTERM), "ending the container's process")
	b.says("terminated", 1)
	t.must(t.start(t.ctx), "starting the plugin")
	b.ends(guest.TermCode, "a container that ended while there was no driver")
}

func runtimeOOM(t *T) {
	b := t.box("eats", guest.Eat)
	limit := int64(64 << 20)
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	if _, err := t.runtime().Create(t.ctx, b.request()); errdefs.IsFailedPrecondition(err) || errdefs.IsNotImplemented(err) {
		t.skipf("the host has no limit of memory: %v", err)
	} else {
		t.must(err, "Create")
	}
	b.start()
	if exit := b.ends(128+int(unix.SIGKILL), "a container that takes more memory than it may"); !exit.OOMKilled {
		t.errorf("the kernel killed a container for memory, and its exit does not say so")
	}
}

func runtimeMany(t *T) {
	boxes := make([]*box, 8)
	requests := make([]runtime.Create, len(boxes))
	for i := range boxes {
		boxes[i] = t.box(fmt.Sprint("many", i), guest.Exit, strconv.Itoa(i))
		requests[i] = boxes[i].request()
	}
	for i, err := range together(len(boxes), func(i int) error {
		d, id := t.runtime(), boxes[i].id
		if _, err := d.Create(t.ctx, requests[i]); err != nil {
			return err
		}
		if err := d.Start(t.ctx, id, ""); err != nil {
			return err
		}
		exit, err := d.Wait(t.ctx, id, "")
		if err != nil {
			return err
		}
		if exit.Code != i {
			return fmt.Errorf("container %d ended with code %d", i, exit.Code)
		}
		return errors.Join(second(d.List(t.ctx)), second(d.Delete(t.ctx, id, "", false)))
	}) {
		if err != nil {
			t.errorf("life %d of %d at once: %v", i, len(boxes), err)
		}
	}
}
