package conformance

import (
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/volume"
)

// volumeOptionalChecks are those of the calls that a feature announces.
func volumeOptionalChecks() []Check {
	return []Check{
		{Name: "volume/without-features", Rule: "Drivers with the feature \"clone\"; others UNIMPLEMENTED.", run: volumeWithout},
		{Name: "volume/clone", Rule: "Clone makes a volume with the options and the data of another one.", Need: volume.FeatureClone, run: volumeClone},
		{Name: "volume/clone-again", Rule: "A volume of the new name whose clone was acknowledged is answered; any other: ALREADY_EXISTS.", Need: volume.FeatureClone, run: volumeCloneAgain},
		{Name: "volume/rename", Rule: "Rename gives a volume another name.", Need: volume.FeatureRename, run: volumeRename},
		{Name: "volume/rename-refused", Rule: "FAILED_PRECONDITION while a consumer has it mounted, ALREADY_EXISTS if there is one of the new name.", Need: volume.FeatureRename, run: volumeRenameRefused},
		{Name: "volume/resize", Rule: "Resize sets a volume's limit.", Need: volume.FeatureResize, run: volumeResize},
	}
}

func volumeWithout(t *T) {
	v := t.made("data")
	for feature, call := range map[string]func() error{
		volume.FeatureClone:  func() error { _, err := t.volume().Clone(t.ctx, v.Name, t.name("other"), nil); return err },
		volume.FeatureRename: func() error { _, err := t.volume().Rename(t.ctx, v.Name, t.name("other")); return err },
		volume.FeatureResize: func() error { _, err := t.volume().Resize(t.ctx, v.Name, 1<<30); return err },
	} {
		if len(missing(t.features(), feature)) > 0 {
			t.fails(call(), errdefs.ErrNotImplemented, "the call of feature %s, which the driver does not announce", feature)
		}
	}
}

func volumeClone(t *T) {
	v := t.made("source")
	t.use(v.Name, "c1", func(dir string) { t.write(filepath.Join(dir, "d", "file"), "hello") })
	copied, err := t.volume().Clone(t.ctx, v.Name, t.name("copy"), map[string]string{"is": "copy"})
	t.must(err, "Clone")
	t.cleanup(func() { t.gone(copied.Name) })
	t.use(copied.Name, "c1", func(dir string) {
		t.holds(filepath.Join(dir, "d", "file"), "hello", "the clone")
		t.write(filepath.Join(dir, "d", "file"), "changed")
	})
	t.use(v.Name, "c1", func(dir string) {
		t.holds(filepath.Join(dir, "d", "file"), "hello", "the source, when the clone was written to")
	})
	_, err = t.volume().Clone(t.ctx, t.name("none"), t.name("other"), nil)
	t.fails(err, errdefs.ErrNotFound, "Clone of an unknown volume")
	_, err = t.volume().Get(t.ctx, t.name("other"))
	t.fails(err, errdefs.ErrNotFound, "Get of what a failed Clone should have made")
}

func volumeCloneAgain(t *T) {
	v, taken := t.made("source"), t.made("taken")
	copied, err := t.volume().Clone(t.ctx, v.Name, t.name("copy"), nil)
	t.must(err, "Clone")
	t.cleanup(func() { t.gone(copied.Name) })
	again, err := t.volume().Clone(t.ctx, v.Name, copied.Name, nil)
	t.must(err, "Clone again")
	if again.Name != copied.Name || again.Mountpoint != copied.Mountpoint {
		t.errorf("Clone answers %+v, and again %+v", copied, again)
	}
	_, err = t.volume().Clone(t.ctx, v.Name, taken.Name, nil)
	t.fails(err, errdefs.ErrAlreadyExists, "Clone to the name of another volume")
}

func volumeRename(t *T) {
	v := t.made("old")
	t.use(v.Name, "c1", func(dir string) { t.write(filepath.Join(dir, "file"), "hello") })
	t.cleanup(func() { t.gone(t.name("new")) })
	for _, what := range []string{"Rename", "Rename again"} {
		renamed, err := t.volume().Rename(t.ctx, v.Name, t.name("new"))
		t.must(err, "%s", what)
		if renamed.Name != t.name("new") {
			t.errorf("%s answers volume %s", what, renamed.Name)
		}
	}
	_, err := t.volume().Get(t.ctx, v.Name)
	t.fails(err, errdefs.ErrNotFound, "Get of the old name")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	t.use(t.name("new"), "c1", func(dir string) { t.holds(filepath.Join(dir, "file"), "hello", "the renamed volume") })
	_, err = t.volume().Rename(t.ctx, t.name("none"), t.name("none2"))
	t.fails(err, errdefs.ErrNotFound, "Rename of an unknown volume")
}

func volumeRenameRefused(t *T) {
	v, taken := t.made("used"), t.made("taken")
	_, err := t.volume().Mount(t.ctx, v.Name, "c1")
	t.must(err, "Mount")
	_, err = t.volume().Rename(t.ctx, v.Name, t.name("new"))
	t.fails(err, errdefs.ErrFailedPrecondition, "Rename of a mounted volume")
	t.must(t.volume().Unmount(t.ctx, v.Name, "c1"), "Unmount")
	_, err = t.volume().Rename(t.ctx, v.Name, taken.Name)
	t.fails(err, errdefs.ErrAlreadyExists, "Rename to the name of another volume")
	_, err = t.volume().Get(t.ctx, v.Name)
	t.must(err, "Get after a Rename that failed")
}

func volumeResize(t *T) {
	v := t.made("limited")
	for _, size := range []int64{64 << 20, 0} {
		if _, err := t.volume().Resize(t.ctx, v.Name, size); err != nil {
			t.fails(err, errdefs.ErrFailedPrecondition, "Resize to %d bytes on a host that may hold no limit", size)
		}
	}
	_, err := t.volume().Resize(t.ctx, t.name("none"), 1<<30)
	t.fails(err, errdefs.ErrNotFound, "Resize of an unknown volume")
}
