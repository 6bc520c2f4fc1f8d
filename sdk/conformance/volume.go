package conformance

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/volume"
)

// volumeChecks are those of the mandatory calls.
func volumeChecks() []Check {
	return []Check{
		{Name: "volume/create", Rule: "Create makes a volume.", run: volumeCreate},
		{Name: "volume/create-again", Rule: "The same name with the same options, or with none, answers the existing one", run: volumeCreateAgain},
		{Name: "volume/create-at-once", Rule: "Of several calls at once, one makes the volume.", run: volumeCreateAtOnce},
		{Name: "volume/fresh", Rule: "True in the answer of the Create call that made it, and nowhere else.", run: volumeFresh},
		{Name: "volume/unknown-option", Rule: "An unknown or malformed option: INVALID_ARGUMENT naming it.", run: volumeUnknownOption},
		{Name: "volume/other-options", Rule: "with other options ALREADY_EXISTS", run: volumeOtherOptions},
		{Name: "volume/options-are-kept", Rule: "Options it was created with.", run: volumeOptions},
		{Name: "volume/names", Rule: "A name that the driver cannot keep is INVALID_ARGUMENT to Create, the empty one and any with a slash among them", run: volumeNames},
		{Name: "volume/unknown", Rule: "NOT_FOUND for an unknown volume unless said otherwise.", run: volumeUnknown},
		{Name: "volume/list", Rule: "List streams all volumes in no particular order.", run: volumeList},
		{Name: "volume/remove", Rule: "Remove deletes a volume and its data.", run: volumeRemove},
		{Name: "volume/remove-at-once", Rule: "Remove deletes a volume and its data.", run: volumeRemoveAtOnce},
		{Name: "volume/mount", Rule: "Mount makes a volume usable for a consumer and answers the mount that the runtime has to make.", run: volumeMount},
		{Name: "volume/mount-again", Rule: "Idempotent per consumer.", run: volumeMountAgain},
		{Name: "volume/remove-in-use", Rule: "FAILED_PRECONDITION while a consumer has it mounted.", run: volumeInUse},
		{Name: "volume/unmount-unknown", Rule: "Succeeds for an unknown consumer or volume.", run: volumeUnmountUnknown},
		{Name: "volume/usage", Rule: "Bytes; -1 if the driver cannot tell.", run: volumeUsage},
		{Name: "volume/reconcile", Rule: "Reconcile names all claims that are valid; the driver takes them for its own and drops every other.", run: volumeReconcile},
		{Name: "volume/reconcile-keeps-volumes", Rule: "It never removes a volume; a claim on an unknown one is no error.", run: volumeReconcileKeeps},
		{Name: "volume/restart", Rule: "Volume drivers keep named directories whose life is independent of the containers that use them.", run: volumeRestart},
		{Name: "volume/many-at-once", Rule: "Every RPC therefore answers a repetition with the same IDs and arguments as it answered the first", run: volumeMany},
	}
}

// made is a volume that is removed when the check is over.
func (t *T) made(name string) volume.Volume {
	v, err := t.volume().Create(t.ctx, t.name(name), t.o.DriverOptions, map[string]string{"kit": "yes"})
	t.must(err, "Create")
	t.cleanup(func() { t.gone(v.Name) })
	return v
}

// gone removes a volume that may not be there.
func (t *T) gone(name string) {
	if err := t.start(t.ctx); err != nil {
		t.errorf("starting the plugin: %v", err)
		return
	}
	if err := t.volume().Remove(t.ctx, name); err != nil && !errdefs.IsNotFound(err) {
		t.errorf("removing volume %s in the end: %v", name, err)
	}
}

// use mounts a volume for a consumer and calls fn with its directory.
func (t *T) use(name, consumer string, fn func(dir string)) {
	m, err := t.volume().Mount(t.ctx, name, consumer)
	t.must(err, "Mount")
	t.cleanup(func() { _ = t.volume().Unmount(t.ctx, name, consumer) })
	dir, unmount := t.mounted(m)
	fn(dir)
	unmount()
	t.must(t.volume().Unmount(t.ctx, name, consumer), "Unmount")
}

func volumeCreate(t *T) {
	v := t.made("new")
	if v.Name != t.name("new") {
		t.errorf("the new volume is called %q, not %q", v.Name, t.name("new"))
	}
	if !v.Fresh {
		t.errorf("a new volume is not fresh")
	}
	got, err := t.volume().Get(t.ctx, v.Name)
	t.must(err, "Get")
	if got.Name != v.Name || got.Mountpoint != v.Mountpoint {
		t.errorf("Get answers %+v, Create %+v", got, v)
	}
	if v.Mountpoint != "" && !filepath.IsAbs(v.Mountpoint) {
		t.errorf("the mountpoint %q is not absolute", v.Mountpoint)
	}
}

func volumeCreateAgain(t *T) {
	first := t.made("twice")
	for what, options := range map[string]map[string]string{"the same options": t.o.DriverOptions, "no options": nil} {
		v, err := t.volume().Create(t.ctx, first.Name, options, nil)
		if err != nil {
			t.errorf("Create again with %s: %v", what, err)
			continue
		}
		if v.Mountpoint != first.Mountpoint || v.Name != first.Name {
			t.errorf("Create again with %s answers %+v, the first time %+v", what, v, first)
		}
	}
}

func volumeCreateAtOnce(t *T) {
	name := t.name("race")
	t.cleanup(func() { t.gone(name) })
	fresh := make([]bool, 16)
	for i, err := range together(len(fresh), func(i int) error {
		v, err := t.volume().Create(t.ctx, name, t.o.DriverOptions, nil)
		fresh[i] = v.Fresh
		return err
	}) {
		t.must(err, "call %d of %d at once", i, len(fresh))
	}
	if n := len(slices.DeleteFunc(fresh, func(f bool) bool { return !f })); n != 1 {
		t.errorf("%d calls made one volume", n)
	}
}

func volumeFresh(t *T) {
	v := t.made("fresh")
	again, err := t.volume().Create(t.ctx, v.Name, t.o.DriverOptions, nil)
	t.must(err, "Create again")
	got, err := t.volume().Get(t.ctx, v.Name)
	t.must(err, "Get")
	if again.Fresh || got.Fresh {
		t.errorf("fresh: Create again %v, Get %v", again.Fresh, got.Fresh)
	}
	for _, listed := range t.volumes() {
		if listed.Fresh {
			t.errorf("volume %s is listed as fresh", listed.Name)
		}
	}
}

func volumeUnknownOption(t *T) {
	name := t.name("odd")
	t.cleanup(func() { t.gone(name) })
	options := map[string]string{"kit-no-such-option": "1"}
	maps.Copy(options, t.o.DriverOptions)
	_, err := t.volume().Create(t.ctx, name, options, nil)
	t.fails(err, errdefs.ErrInvalidArgument, "Create with an unknown option")
	if err != nil && !strings.Contains(err.Error(), "kit-no-such-option") {
		t.errorf("the error does not name the option: %v", err)
	}
	_, err = t.volume().Get(t.ctx, name)
	t.fails(err, errdefs.ErrNotFound, "Get after a Create that failed")
}

func (t *T) needOptions() {
	if len(t.o.DriverOptions) == 0 {
		t.skipf("no driver option to try it with was given (--option)")
	}
}

func volumeOtherOptions(t *T) {
	t.needOptions()
	v, err := t.volume().Create(t.ctx, t.name("plain"), nil, nil)
	if err != nil {
		t.skipf("the driver makes no volume without options: %v", err)
	}
	t.cleanup(func() { t.gone(v.Name) })
	_, err = t.volume().Create(t.ctx, v.Name, t.o.DriverOptions, nil)
	t.fails(err, errdefs.ErrAlreadyExists, "Create again with %v", t.o.DriverOptions)
}

func volumeOptions(t *T) {
	t.needOptions()
	v := t.made("options")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	got, err := t.volume().Get(t.ctx, v.Name)
	t.must(err, "Get")
	for _, o := range []map[string]string{v.Options, got.Options} {
		if !maps.Equal(o, t.o.DriverOptions) {
			t.errorf("created with %v, it has %v", t.o.DriverOptions, o)
		}
	}
}

// volumeNames: what a driver makes of a name that it should have refused is never
// removed through it, which could remove anything.
func volumeNames(t *T) {
	for _, name := range []string{"", "a/b", t.name("x") + "/y"} {
		_, err := t.volume().Create(t.ctx, name, t.o.DriverOptions, nil)
		t.fails(err, errdefs.ErrInvalidArgument, "Create of %q", name)
	}
}

func volumeUnknown(t *T) {
	d, none := t.volume(), t.name("none")
	_, err := d.Get(t.ctx, none)
	t.fails(err, errdefs.ErrNotFound, "Get of an unknown volume")
	t.fails(d.Remove(t.ctx, none), errdefs.ErrNotFound, "Remove of an unknown volume")
	_, err = d.Mount(t.ctx, none, "kit")
	t.fails(err, errdefs.ErrNotFound, "Mount of an unknown volume")
}

// volumes are all that the driver lists, without names that are there twice.
func (t *T) volumes() map[string]volume.Volume {
	list, err := t.volume().List(t.ctx)
	t.must(err, "List")
	all := map[string]volume.Volume{}
	for _, v := range list {
		if _, twice := all[v.Name]; twice {
			t.errorf("volume %s is listed twice", v.Name)
		}
		all[v.Name] = v
	}
	return all
}

func volumeList(t *T) {
	for _, name := range []string{"one", "two", "three"} {
		v := t.made(name)
		if listed, ok := t.volumes()[v.Name]; !ok || listed.Mountpoint != v.Mountpoint {
			t.errorf("volume %+v is listed as %+v", v, listed)
		}
	}
	for name := range t.volumes() {
		if !strings.HasPrefix(name, t.prefix) {
			t.errorf("List has volume %q, which nobody made or which was removed", name)
		}
	}
}

func volumeRemove(t *T) {
	v := t.made("gone")
	t.use(v.Name, "c1", func(dir string) { t.write(filepath.Join(dir, "d", "old"), "old") })
	t.must(t.volume().Remove(t.ctx, v.Name), "Remove")
	_, err := t.volume().Get(t.ctx, v.Name)
	t.fails(err, errdefs.ErrNotFound, "Get after Remove")
	t.fails(t.volume().Remove(t.ctx, v.Name), errdefs.ErrNotFound, "Remove again")
	if _, listed := t.volumes()[v.Name]; listed {
		t.errorf("a removed volume is listed")
	}
	again := t.made("gone")
	if !again.Fresh {
		t.errorf("a volume of the name of a removed one is not fresh")
	}
	t.use(v.Name, "c1", func(dir string) { t.holds(filepath.Join(dir, "d", "old"), "", "a volume of the name of a removed one") })
}

func volumeRemoveAtOnce(t *T) {
	v := t.made("race")
	t.oneSucceeds(together(8, func(int) error { return t.volume().Remove(t.ctx, v.Name) }), errdefs.ErrNotFound, "Remove at once")
}

func volumeMount(t *T) {
	v := t.made("data")
	t.use(v.Name, "c1", func(dir string) {
		t.write(filepath.Join(dir, "file"), "hello")
		t.use(v.Name, "c2", func(other string) { t.holds(filepath.Join(other, "file"), "hello", "the second consumer") })
		t.holds(filepath.Join(dir, "file"), "hello", "the first consumer, when the second has gone")
	})
}

func volumeMountAgain(t *T) {
	v := t.made("data")
	first, err := t.volume().Mount(t.ctx, v.Name, "c1")
	t.must(err, "Mount")
	again, err := t.volume().Mount(t.ctx, v.Name, "c1")
	t.must(err, "Mount again")
	if first.Type != again.Type || first.Source != again.Source || !slices.Equal(first.Options, again.Options) {
		t.errorf("Mount answers %+v, and again %+v", first, again)
	}
	t.must(t.volume().Unmount(t.ctx, v.Name, "c1"), "Unmount")
	t.must(t.volume().Unmount(t.ctx, v.Name, "c1"), "Unmount again")
	if err := t.volume().Remove(t.ctx, v.Name); err != nil {
		t.errorf("mounted twice and unmounted by one consumer, it cannot be removed: %v", err)
	}
}

func volumeInUse(t *T) {
	v := t.made("used")
	for _, consumer := range []string{"c1", "c2"} {
		_, err := t.volume().Mount(t.ctx, v.Name, consumer)
		t.must(err, "Mount")
	}
	for _, consumer := range []string{"c1", "c2"} {
		t.fails(t.volume().Remove(t.ctx, v.Name), errdefs.ErrFailedPrecondition, "Remove while %s has it", consumer)
		_, err := t.volume().Get(t.ctx, v.Name)
		t.must(err, "Get after a Remove that failed")
		t.must(t.volume().Unmount(t.ctx, v.Name, consumer), "Unmount")
	}
	t.must(t.volume().Remove(t.ctx, v.Name), "Remove when nobody has it any more")
}

func volumeUnmountUnknown(t *T) {
	v := t.made("data")
	t.must(t.volume().Unmount(t.ctx, v.Name, "nobody"), "Unmount of an unknown consumer")
	t.must(t.volume().Unmount(t.ctx, t.name("none"), "c1"), "Unmount of an unknown volume")
}

func volumeUsage(t *T) {
	v := t.made("big")
	empty, err := t.volume().Usage(t.ctx, v.Name)
	t.must(err, "Usage")
	if unknown, err := t.volume().Usage(t.ctx, t.name("none")); err == nil && unknown.Size != -1 {
		t.errorf("an unknown volume has %d bytes", unknown.Size)
	} else if err != nil {
		t.fails(err, errdefs.ErrNotFound, "Usage of an unknown volume")
	}
	if empty.Size == -1 {
		return
	}
	// Held mounted: a volume may keep nothing without a consumer.
	m, err := t.volume().Mount(t.ctx, v.Name, "c1")
	t.must(err, "Mount")
	t.cleanup(func() { _ = t.volume().Unmount(t.ctx, v.Name, "c1") })
	dir, unmount := t.mounted(m)
	t.write(filepath.Join(dir, "file"), strings.Repeat("0123456789abcdef", 1<<16))
	if f, err := os.Open(filepath.Join(dir, "file")); err == nil {
		_ = f.Sync()
		_ = f.Close()
	}
	full, err := t.volume().Usage(t.ctx, v.Name)
	t.must(err, "Usage")
	if more := full.Size - empty.Size; more < 1<<19 || more > 1<<21 {
		t.errorf("a file of 1 MiB adds %d bytes", more)
	}
	unmount()
	t.must(t.volume().Unmount(t.ctx, v.Name, "c1"), "Unmount")
}

func volumeReconcile(t *T) {
	kept, dropped, later := t.made("kept"), t.made("dropped"), t.made("later")
	for _, v := range []volume.Volume{kept, dropped, later} {
		_, err := t.volume().Mount(t.ctx, v.Name, "c1")
		t.must(err, "Mount")
	}
	valid := []volume.Claim{{Volume: kept.Name, Consumer: "c1"}, {Volume: later.Name, Consumer: "c1"}}
	t.must(t.volume().Reconcile(t.ctx, valid), "Reconcile")
	t.must(t.volume().Remove(t.ctx, dropped.Name), "Remove of a volume whose claim was dropped")
	t.fails(t.volume().Remove(t.ctx, kept.Name), errdefs.ErrFailedPrecondition, "Remove of a volume with a valid claim")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	t.must(t.volume().Reconcile(t.ctx, valid[:1]), "Reconcile of a new process")
	t.must(t.volume().Remove(t.ctx, later.Name), "Remove of a volume whose claim was dropped, by a new process")
	t.fails(t.volume().Remove(t.ctx, kept.Name), errdefs.ErrFailedPrecondition, "Remove of a volume with a valid claim, by a new process")
	t.must(t.volume().Unmount(t.ctx, kept.Name, "c1"), "Unmount")
}

func volumeReconcileKeeps(t *T) {
	v := t.made("kept")
	t.must(t.volume().Reconcile(t.ctx, nil), "Reconcile without claims")
	_, err := t.volume().Get(t.ctx, v.Name)
	t.must(err, "Get after Reconcile")
	t.must(t.volume().Reconcile(t.ctx, []volume.Claim{{Volume: t.name("none"), Consumer: "c1"}}), "Reconcile with a claim on an unknown volume")
	t.must(t.volume().Reconcile(t.ctx, nil), "Reconcile without claims")
}

func volumeRestart(t *T) {
	v := t.made("kept")
	m, err := t.volume().Mount(t.ctx, v.Name, "c1")
	t.must(err, "Mount")
	dir, unmount := t.mounted(m)
	t.write(filepath.Join(dir, "file"), "hello")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	t.holds(filepath.Join(dir, "file"), "hello", "a consumer whose driver was killed")
	t.must(t.volume().Reconcile(t.ctx, []volume.Claim{{Volume: v.Name, Consumer: "c1"}}), "Reconcile")
	got, err := t.volume().Get(t.ctx, v.Name)
	t.must(err, "Get")
	if got.Mountpoint != v.Mountpoint {
		t.errorf("its mountpoint became %s, and was %s", got.Mountpoint, v.Mountpoint)
	}
	t.use(v.Name, "c2", func(other string) {
		t.holds(filepath.Join(other, "file"), "hello", "a consumer that came after the restart")
	})
	unmount()
	t.must(t.volume().Unmount(t.ctx, v.Name, "c1"), "Unmount")
}

func volumeMany(t *T) {
	for i, err := range together(16, func(i int) error {
		name, d := t.name("many")+string(rune('a'+i)), t.volume()
		if _, err := d.Create(t.ctx, name, t.o.DriverOptions, nil); err != nil {
			return err
		}
		if _, err := d.Mount(t.ctx, name, "c1"); err != nil {
			return err
		}
		if _, err := d.List(t.ctx); err != nil {
			return err
		}
		if err := d.Unmount(t.ctx, name, "c1"); err != nil {
			return err
		}
		return d.Remove(t.ctx, name)
	}) {
		if err != nil {
			t.errorf("life %d of 16 at once: %v", i, err)
		}
	}
}
