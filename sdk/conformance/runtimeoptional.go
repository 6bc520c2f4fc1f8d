package conformance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/conformance/guest"
	"github.com/davit-engine/davit/sdk/runtime"
)

// runtimeOptionalChecks are those of the other features.
func runtimeOptionalChecks() []Check {
	return []Check{
		{Name: "runtime/without-features", Rule: "A method of a feature that is missing answers NOT_IMPLEMENTED.", run: runtimeWithout},
		{Name: "runtime/pause", Rule: "Pause freezes all processes of a container.", Need: runtime.FeaturePause, run: runtimePause},
		{Name: "runtime/delete-paused", Rule: "Kill it first if it lives.", Need: runtime.FeaturePause, run: runtimeDeletePaused},
		{Name: "runtime/update", Rule: `An OCI "linux.resources" object; only what is set in it is changed.`, Need: runtime.FeatureUpdate, run: runtimeUpdate},
		{Name: "runtime/stats", Rule: "Stats reads resource usage.", Need: runtime.FeatureStats, run: runtimeStats},
		{Name: "runtime/checkpoint", Rule: "They wait for Start and then go on where they were; the container's own process is not executed.", Need: runtime.FeatureCheckpoint, run: runtimeCheckpoint},
	}
}

func runtimeWithout(t *T) {
	b := t.started("container", guest.Wait).ready()
	d := t.runtime()
	for feature, calls := range map[string]map[string]func() error{
		runtime.FeatureExec: {"Exec": func() error { return second(d.Exec(t.ctx, b.process("one", nil, guest.Wait))) }},
		runtime.FeaturePause: {
			"Pause": func() error { return d.Pause(t.ctx, b.id) }, "Resume": func() error { return d.Resume(t.ctx, b.id) },
		},
		runtime.FeatureUpdate: {"Update": func() error { return d.Update(t.ctx, b.id, json.RawMessage("{}")) }},
		runtime.FeatureStats:  {"Stats": func() error { return second(d.Stats(t.ctx, b.id)) }},
		runtime.FeatureCheckpoint: {
			"Checkpoint": func() error {
				return d.Checkpoint(t.ctx, runtime.Checkpoint{ID: b.id, Image: filepath.Join(b.dir, "image"), LeaveRunning: true})
			},
			"Restore": func() error {
				return second(d.Restore(t.ctx, runtime.Restore{Create: b.request(), Image: filepath.Join(b.dir, "image")}))
			},
		},
	} {
		if slices.Contains(t.features(), feature) {
			continue
		}
		for call, fn := range calls {
			t.fails(fn(), errdefs.ErrNotImplemented, "%s without feature %s", call, feature)
		}
	}
	b.status(runtime.StatusRunning, "after calls that the driver cannot do")
}

func runtimePause(t *T) {
	b := t.started("container", guest.Count)
	b.counts("after Start")
	for _, what := range []string{"Pause", "Pause again"} {
		t.must(t.runtime().Pause(t.ctx, b.id), "%s", what)
	}
	was := b.counter()
	b.status(runtime.StatusPaused, "after Pause")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	b.status(runtime.StatusPaused, "after Pause, of a new process,")
	time.Sleep(50 * time.Millisecond) // for what must not happen
	if now := b.counter(); now != was {
		t.errorf("paused, the container counts from %s to %s", was, now)
	}
	for _, what := range []string{"Resume", "Resume again"} {
		t.must(t.runtime().Resume(t.ctx, b.id), "%s", what)
	}
	b.status(runtime.StatusRunning, "after Resume")
	b.counts("after Resume")
	none := networkID(t.name("none"))
	t.fails(t.runtime().Pause(t.ctx, none), errdefs.ErrNotFound, "Pause of an unknown container")
	t.fails(t.runtime().Resume(t.ctx, none), errdefs.ErrNotFound, "Resume of an unknown container")
}

func runtimeDeletePaused(t *T) {
	b := t.started("container", guest.Wait).ready()
	t.must(t.runtime().Pause(t.ctx, b.id), "Pause")
	pid := b.status(runtime.StatusPaused, "after Pause").PID
	t.fails(second(b.delete(false)), errdefs.ErrFailedPrecondition, "Delete of a paused container")
	t.must(second(b.delete(true)), "Delete of a paused container by force")
	if exists(pid) {
		t.errorf("the process of a deleted container is there")
	}
	t.nothingLeft()
}

func runtimeUpdate(t *T) {
	b := t.box("container", guest.Wait)
	limit, memory := int64(111), int64(256<<20)
	b.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
	b.create()
	b.start()
	b.ready()
	update := func(pids int64) error {
		resources, err := json.Marshal(specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}})
		t.must(err, "encoding resources")
		return t.runtime().Update(t.ctx, b.id, resources)
	}
	for _, what := range []string{"Update", "Update again"} {
		t.must(update(77), "%s", what)
	}
	if slices.Contains(t.features(), runtime.FeatureStats) {
		s, err := t.runtime().Stats(t.ctx, b.id)
		t.must(err, "Stats")
		if s.Pids.Limit != 77 || s.Memory.Limit != uint64(memory) {
			t.errorf("the limit of tasks was changed from 111 to 77 and is %d, that of memory was not and is %d, not %d", s.Pids.Limit, s.Memory.Limit, memory)
		}
	}
	t.fails(t.runtime().Update(t.ctx, b.id, json.RawMessage("{")), errdefs.ErrInvalidArgument, "Update with what is no JSON")
	t.fails(t.runtime().Update(t.ctx, networkID(t.name("none")), json.RawMessage("{}")), errdefs.ErrNotFound, "Update of an unknown container")
}

func runtimeStats(t *T) {
	b := t.started("container", guest.Family, "2")
	b.says("ready", 3)
	before, err := t.runtime().Stats(t.ctx, b.id)
	t.must(err, "Stats")
	if slices.Contains(t.features(), runtime.FeatureExec) {
		b.exec("spins", guest.Spin, "300")
		t.must(t.runtime().Start(t.ctx, b.id, "spins"), "Start of an exec")
		b.execEnds("spins", 0)
	}
	after, err := t.runtime().Stats(t.ctx, b.id)
	t.must(err, "Stats")
	if since := time.Since(after.Read); since < -time.Second || since > time.Hour || !after.Read.After(before.Read) {
		t.errorf("it was read at %s, and before at %s", after.Read, before.Read)
	}
	if after.Version != 1 && after.Version != 2 {
		t.errorf("the version of cgroups is %d", after.Version)
	}
	if after.Memory.Usage < 1<<20 || after.Memory.Limit < after.Memory.Usage {
		t.errorf("three processes have %d bytes of memory of %d", after.Memory.Usage, after.Memory.Limit)
	}
	if after.Pids.Current < 3 {
		t.errorf("three processes are %d tasks", after.Pids.Current)
	}
	if used := time.Duration(after.CPU.Total - before.CPU.Total); slices.Contains(t.features(), runtime.FeatureExec) && (used < 20*time.Millisecond || used > time.Minute) {
		t.errorf("a process that used the processor for 300 ms adds %s", used)
	}
	t.fails(second(t.runtime().Stats(t.ctx, networkID(t.name("none")))), errdefs.ErrNotFound, "Stats of an unknown container")
}

func runtimeCheckpoint(t *T) {
	b := t.started("container", guest.Count)
	b.counts("after Start")
	c := runtime.Checkpoint{ID: b.id, Image: filepath.Join(b.dir, "image")}
	if err := t.runtime().Checkpoint(t.ctx, c); errdefs.IsNotImplemented(err) {
		b.status(runtime.StatusRunning, "after a Checkpoint that failed")
		t.skipf("the host cannot make checkpoints: %v", err)
	} else {
		t.must(err, "Checkpoint")
	}
	b.ends(128+int(unix.SIGKILL), "a container of which a checkpoint was made")
	was := b.counter()
	if _, err := os.Stat(c.Image); err != nil {
		t.errorf("Checkpoint succeeded: %v", err)
	}
	t.must(second(b.delete(false)), "Delete")
	missingImage := runtime.Restore{Create: b.request(), Image: filepath.Join(b.dir, "none")}
	t.fails(second(t.runtime().Restore(t.ctx, missingImage)), errdefs.ErrNotFound, "Restore of a checkpoint that is not there")
	b.status(runtime.StatusGone, "after a Restore that failed")
	t.must(second(t.runtime().Restore(t.ctx, runtime.Restore{Create: b.request(), Image: c.Image})), "Restore")
	b.status(runtime.StatusCreated, "after Restore")
	b.start()
	b.counts("restored,")
	if now := b.counter(); now < was {
		t.errorf("it had counted to %s, and restored is at %s", was, now)
	}
	c.LeaveRunning = true
	t.fails(t.runtime().Checkpoint(t.ctx, c), errdefs.ErrAlreadyExists, "Checkpoint into a directory that is there")
	b.counts("after a Checkpoint that failed")
}
