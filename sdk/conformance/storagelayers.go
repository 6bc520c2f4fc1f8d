package conformance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/storage"
)

func storageLayers(t *T) {
	one := t.committed("one", "", func(dir string) {
		t.write(filepath.Join(dir, "kept"), "1")
		t.write(filepath.Join(dir, "changed"), "1")
		t.write(filepath.Join(dir, "deleted"), "1")
		t.write(filepath.Join(dir, "dir", "inside"), "1")
		t.write(filepath.Join(dir, "file-then-dir"), "1")
	})
	two := t.committed("two", one, func(dir string) {
		t.write(filepath.Join(dir, "changed"), "2")
		t.must(os.Remove(filepath.Join(dir, "deleted")), "deleting a file of the parent")
		t.must(os.RemoveAll(filepath.Join(dir, "dir")), "deleting a directory of the parent")
		t.write(filepath.Join(dir, "dir", "new"), "2")
		t.must(os.Remove(filepath.Join(dir, "file-then-dir")), "deleting a file of the parent")
		t.write(filepath.Join(dir, "file-then-dir", "inside"), "2")
	})
	three := t.committed("three", two, func(dir string) { t.write(filepath.Join(dir, "deleted"), "3") })
	for _, c := range []struct {
		of   string
		want map[string]string
	}{
		{one, map[string]string{"kept": "1", "changed": "1", "deleted": "1", "dir/inside": "1", "dir/new": "", "file-then-dir": "1"}},
		{two, map[string]string{"kept": "1", "changed": "2", "deleted": "", "dir/inside": "", "dir/new": "2", "file-then-dir/inside": "2"}},
		{three, map[string]string{"kept": "1", "changed": "2", "deleted": "3", "dir/inside": "", "dir/new": "2", "file-then-dir/inside": "2"}},
	} {
		t.viewed(c.of, func(dir string) {
			for path, content := range c.want {
				t.holds(filepath.Join(dir, path), content, "the view of "+c.of)
			}
		})
	}
}

func storageSiblings(t *T) {
	base := t.committed("base", "", func(dir string) { t.write(filepath.Join(dir, "file"), "base") })
	a, b := t.prepared("a", base), t.prepared("b", base)
	t.in(a, func(dirA string) {
		t.write(filepath.Join(dirA, "file"), "a")
		t.write(filepath.Join(dirA, "only-a"), "a")
		t.in(b, func(dirB string) {
			t.holds(filepath.Join(dirB, "file"), "base", "a sibling of a snapshot that was written to")
			t.holds(filepath.Join(dirB, "only-a"), "", "a sibling of a snapshot that was written to")
		})
	})
	t.viewed(base, func(dir string) {
		t.holds(filepath.Join(dir, "file"), "base", "the parent of a snapshot that was written to")
	})
}

// storageAttributes: what images depend on goes from a snapshot to those on it.
func storageAttributes(t *T) {
	look := func(dir string) string {
		var out strings.Builder
		for _, name := range []string{".", "setuid", "sticky", "hard", "link", "fifo", "sparse"} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
				fmt.Fprintf(&out, "%s: %v\n", name, err)
				continue
			}
			if name == "." {
				st.Nlink = 0 // grows with the directories in it
			}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				st.Size, st.Nlink = 0, 0
			}
			value := make([]byte, 16)
			n, _ := unix.Lgetxattr(filepath.Join(dir, name), "security.kit", value)
			target, _ := os.Readlink(filepath.Join(dir, name))
			fmt.Fprintf(&out, "%s: mode %o owner %d:%d links %d size %d changed %d.%09d attribute %q target %q\n", name,
				st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim.Sec, st.Mtim.Nsec, value[:max(n, 0)], target)
		}
		return out.String()
	}
	var want string
	base := t.committed("base", "", func(dir string) {
		path := func(name string) string { return filepath.Join(dir, name) }
		t.write(path("setuid"), "x")
		t.must(errors.Join(
			os.Chown(path("setuid"), 1234, 5678), os.Chmod(path("setuid"), 0o755|os.ModeSetuid),
			unix.Setxattr(path("setuid"), "security.kit", []byte("value"), 0),
			os.Link(path("setuid"), path("hard")), os.Symlink("/no/where", path("link")), unix.Mkfifo(path("fifo"), 0o600),
			os.Mkdir(path("sticky"), 0o700), os.Chmod(path("sticky"), 0o777|os.ModeSticky),
			os.WriteFile(path("sparse"), nil, 0o600), os.Truncate(path("sparse"), 1<<20),
			os.Chown(dir, 12, 34), os.Chmod(dir, 0o750),
		), "making files")
		old := []unix.Timespec{{Sec: 1e9, Nsec: 123456789}, {Sec: 1e9, Nsec: 123456789}}
		for _, name := range []string{"setuid", "link", "fifo", "sparse", "sticky", "."} {
			t.must(unix.UtimesNanoAt(unix.AT_FDCWD, path(name), old, unix.AT_SYMLINK_NOFOLLOW), "setting times")
		}
		want = look(dir)
	})
	compare := func(dir string, where string) {
		if got := look(dir); got != want {
			t.errorf("%s has\n%s\nand was written as\n%s", where, got, want)
		}
	}
	t.viewed(base, func(dir string) { compare(dir, "the view") })
	t.in(t.prepared("top", base), func(dir string) {
		// The directory itself is the new snapshot's, so its time may be, too.
		t.must(unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{{Sec: 1e9, Nsec: 123456789}, {Sec: 1e9, Nsec: 123456789}}, 0), "setting times")
		compare(dir, "a snapshot on it")
	})
}

func storageRestart(t *T) {
	base := t.committed("base", "", func(dir string) { t.write(filepath.Join(dir, "file"), "base") })
	dir, unmount := t.mounted(t.prepared("key", base)...)
	t.write(filepath.Join(dir, "mine"), "active")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	t.holds(filepath.Join(dir, "mine"), "active", "a snapshot in use whose driver was killed")
	unmount()
	mounts, err := t.storage().Mounts(t.ctx, t.name("key"))
	t.must(err, "Mounts after a restart")
	t.in(mounts, func(dir string) {
		t.holds(filepath.Join(dir, "file"), "base", "an active snapshot after a restart")
		t.holds(filepath.Join(dir, "mine"), "active", "an active snapshot after a restart")
	})
	info, err := t.storage().Stat(t.ctx, t.name("key"))
	if err != nil || info.Kind != storage.KindActive || info.Parent != base {
		t.errorf("after a restart an active snapshot on %s is %+v (%v)", base, info, err)
	}
	t.fails(t.storage().Remove(t.ctx, base), errdefs.ErrFailedPrecondition, "Remove of a snapshot with a child, after a restart")
}

func storageMany(t *T) {
	base := t.committed("base", "", func(dir string) { t.write(filepath.Join(dir, "file"), "base") })
	for i, err := range together(12, func(i int) error {
		key, name, d := fmt.Sprintf("%s%d", t.name("key"), i), fmt.Sprintf("%s%d", t.name("name"), i), t.storage()
		if _, err := d.Prepare(t.ctx, key, base, nil); err != nil {
			return err
		}
		if err := errors.Join(d.Release(t.ctx, key), d.Commit(t.ctx, name, key, nil)); err != nil {
			return err
		}
		if _, err := d.View(t.ctx, key, name, nil); err != nil {
			return err
		}
		if err := d.List(t.ctx, t.prefix, func(storage.Info) error { return nil }); err != nil {
			return err
		}
		return errors.Join(d.Release(t.ctx, key), d.Remove(t.ctx, key), d.Remove(t.ctx, name))
	}) {
		if err != nil {
			t.errorf("life %d of 12 at once: %v", i, err)
		}
	}
}
