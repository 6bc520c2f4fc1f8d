package conformance

import (
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/storage"
)

func storageWithoutRebase(t *T) {
	if slices.Contains(t.features(), storage.FeatureRebase) {
		t.skipf("the driver has the feature")
	}
	base := t.committed("base", "", func(string) {})
	t.prepared("key", "")
	t.fails(t.storage().CommitOnto(t.ctx, t.name("top"), t.name("key"), base, nil), errdefs.ErrNotImplemented, "Commit onto a parent")
}

// storageRebase makes the upper layer first.
func storageRebase(t *T) {
	t.in(t.prepared("key", ""), func(dir string) {
		t.write(filepath.Join(dir, "added"), "top")
		t.must(unix.Mknod(filepath.Join(dir, "gone"), unix.S_IFCHR, 0), "mknod")
		t.write(filepath.Join(dir, "d", "new"), "top")
		t.must(unix.Setxattr(filepath.Join(dir, "d"), "trusted.overlay.opaque", []byte("y"), 0), "setxattr")
	})
	t.must(t.storage().Release(t.ctx, t.name("key")), "Release")
	base := t.committed("base", "", func(dir string) {
		for _, name := range []string{"gone", "d/hidden", "stays"} {
			t.write(filepath.Join(dir, name), "base")
		}
	})
	top := t.name("top")
	t.cleanup(func() { t.removed(top) })
	t.must(t.storage().CommitOnto(t.ctx, top, t.name("key"), base, nil), "Commit onto a parent")
	t.fails(t.storage().CommitOnto(t.ctx, top, t.name("key"), base, nil), errdefs.ErrAlreadyExists, "Commit onto a parent again")
	info, err := t.storage().Stat(t.ctx, top)
	t.must(err, "Stat")
	if info.Parent != base || info.Kind != storage.KindCommitted {
		t.errorf("committed onto %s, it is described as %+v", base, info)
	}
	t.in(t.prepared("container", top), func(dir string) {
		for name, content := range map[string]string{"added": "top", "gone": "", "d/new": "top", "d/hidden": "", "stays": "base"} {
			t.holds(filepath.Join(dir, name), content, "a snapshot on it")
		}
	})
	t.fails(t.storage().Remove(t.ctx, base), errdefs.ErrFailedPrecondition, "Remove of the parent")
}

func storageRebaseRefused(t *T) {
	t.prepared("key", "")
	t.fails(t.storage().CommitOnto(t.ctx, t.name("top"), t.name("key"), t.name("none"), nil), errdefs.ErrNotFound, "Commit onto an unknown parent")
	base := t.committed("base", "", func(string) {})
	t.prepared("other", base)
	t.fails(t.storage().CommitOnto(t.ctx, t.name("top"), t.name("other"), base, nil), errdefs.ErrFailedPrecondition, "Commit onto a parent of a snapshot that has one")
	t.fails(t.storage().CommitOnto(t.ctx, t.name("top"), t.name("key"), t.name("other"), nil), errdefs.ErrInvalidArgument, "Commit onto an active snapshot")
	info, err := t.storage().Stat(t.ctx, t.name("key"))
	if err != nil || info.Kind != storage.KindActive {
		t.errorf("after a Commit that was refused, the snapshot is %+v (%v)", info, err)
	}
}
