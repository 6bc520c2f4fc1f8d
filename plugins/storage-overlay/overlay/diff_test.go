package overlay

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/davit-engine/davit/sdk/storage"
)

// changes answers a snapshot's Diff by path.
func changes(t *testing.T, d *Driver, key string) map[string]storage.ChangeKind {
	t.Helper()
	found := map[string]storage.ChangeKind{}
	if err := d.Diff(t.Context(), key, func(c storage.Change) error {
		if _, twice := found[c.Path]; twice {
			t.Errorf("%s is reported twice", c.Path)
		}
		found[c.Path] = c.Kind
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

const (
	added    = storage.ChangeAdd
	modified = storage.ChangeModify
	deleted  = storage.ChangeDelete
)

func wantChanges(t *testing.T, d *Driver, key string, want map[string]storage.ChangeKind) {
	t.Helper()
	if diff := cmp.Diff(want, changes(t, d, key)); diff != "" {
		t.Errorf("changes of %s (-want +got):\n%s", key, diff)
	}
}

func TestDiffNamesWhatWasAddedModifiedAndDeleted(t *testing.T) {
	d := open(t, t.TempDir())
	layer(t, d, "base", "", func(dir string) { write(t, dir, "etc/passwd", "etc/motd", "bin/sh", "tmp/old/deep/file", "same") })
	wantChanges(t, d, "base", map[string]storage.ChangeKind{
		"/etc": added, "/etc/passwd": added, "/etc/motd": added, "/bin": added, "/bin/sh": added, "/same": added,
		"/tmp": added, "/tmp/old": added, "/tmp/old/deep": added, "/tmp/old/deep/file": added,
	})
	layer(t, d, "empty", "base", nil) // a layer that says nothing about any path
	prepare(t, d, "active", "empty")
	wantChanges(t, d, "active", map[string]storage.ChangeKind{})
	inside(t, d, "active", func(dir string) {
		write(t, dir, "etc/passwd", "new", "srv/www/index")
		remove(t, dir, "etc/motd", "tmp/old")
		if err := os.Chmod(filepath.Join(dir, "bin/sh"), 0o700); err != nil {
			t.Fatal(err)
		}
	})
	want := map[string]storage.ChangeKind{
		"/etc": modified, "/etc/passwd": modified, "/etc/motd": deleted,
		"/bin": modified, "/bin/sh": modified,
		"/tmp": modified, "/tmp/old": deleted, // and what was in it by implication
		"/new": added, "/srv": added, "/srv/www": added, "/srv/www/index": added,
	}
	wantChanges(t, d, "active", want)
	if err := d.Commit(t.Context(), "committed", "active", nil); err != nil {
		t.Fatal(err)
	}
	wantChanges(t, d, "committed", want)
}

func TestWhatAParentDeletedIsAddedAnew(t *testing.T) {
	d := open(t, t.TempDir())
	layer(t, d, "base", "", func(dir string) { write(t, dir, "file", "dir/old", "gone/old") })
	layer(t, d, "without", "base", func(dir string) {
		remove(t, dir, "file", "gone", "dir")
		write(t, dir, "dir/other") // the new directory is opaque
	})
	prepare(t, d, "active", "without")
	inside(t, d, "active", func(dir string) { write(t, dir, "file", "dir/old", "gone/old") })
	wantChanges(t, d, "active", map[string]storage.ChangeKind{
		"/file": added, "/gone": added, "/gone/old": added, "/dir": modified, "/dir/old": added,
	})
}

func TestAFileOfAParentHidesADirectoryFurtherDown(t *testing.T) {
	d := open(t, t.TempDir())
	layer(t, d, "base", "", func(dir string) { write(t, dir, "a/b/c") })
	layer(t, d, "file", "base", func(dir string) {
		remove(t, dir, "a")
		write(t, dir, "a")
	})
	prepare(t, d, "active", "file")
	inside(t, d, "active", func(dir string) {
		remove(t, dir, "a")
		write(t, dir, "a/b/c")
	})
	wantChanges(t, d, "active", map[string]storage.ChangeKind{"/a": modified, "/a/b": added, "/a/b/c": added})
}

func TestWhatAReplacedDirectoryHidesIsDeleted(t *testing.T) {
	d := open(t, t.TempDir())
	layer(t, d, "base", "", func(dir string) { write(t, dir, "dir/old", "dir/again", "dir/deep/file") })
	layer(t, d, "more", "base", func(dir string) { write(t, dir, "dir/later") })
	prepare(t, d, "active", "more")
	inside(t, d, "active", func(dir string) {
		remove(t, dir, "dir")
		write(t, dir, "dir/new", "dir/again")
	})
	wantChanges(t, d, "active", map[string]storage.ChangeKind{
		"/dir": modified, "/dir/new": added, "/dir/again": modified, "/dir/old": deleted, "/dir/later": deleted, "/dir/deep": deleted,
	})
	// A directory in it that was made anew, too, hides what was in the old one; what a
	// parent had deleted is not deleted again.
	layer(t, d, "less", "more", func(dir string) { remove(t, dir, "dir/old") })
	prepare(t, d, "deep", "less")
	inside(t, d, "deep", func(dir string) {
		remove(t, dir, "dir")
		write(t, dir, "dir/deep/other")
	})
	wantChanges(t, d, "deep", map[string]storage.ChangeKind{
		"/dir": modified, "/dir/deep": modified, "/dir/deep/other": added, "/dir/deep/file": deleted, "/dir/again": deleted, "/dir/later": deleted,
	})
}

func TestADeviceIsNotTakenForADeletion(t *testing.T) {
	d := open(t, t.TempDir())
	prepare(t, d, "active", "")
	inside(t, d, "active", func(dir string) {
		// Like a whiteout, but of /dev/null's numbers.
		if err := syscall.Mknod(filepath.Join(dir, "null"), syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
			t.Fatal(err)
		}
	})
	wantChanges(t, d, "active", map[string]storage.ChangeKind{"/null": added})
}

func TestDiffEndsWhenItsReaderDoes(t *testing.T) {
	d := open(t, t.TempDir())
	layer(t, d, "base", "", func(dir string) { write(t, dir, "a", "b", "c") })
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := d.Diff(ctx, "base", func(storage.Change) error { calls++; cancel(); return nil })
	wantKind(t, "Diff", err, context.Canceled)
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
	_, err = d.Usage(ctx, "base")
	wantKind(t, "Usage", err, context.Canceled)
}

// blocks is what the disk holds of some files.
func blocks(t *testing.T, dir string, names ...string) int64 {
	t.Helper()
	var sum int64
	for _, name := range names {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		sum += st.Blocks * 512
	}
	return sum
}

func TestUsageCountsAHardLinkOnce(t *testing.T) {
	d := open(t, t.TempDir())
	layer(t, d, "base", "", func(dir string) { write(t, dir, "parents/are/not/counted") })
	prepare(t, d, "active", "base")
	empty, err := d.Usage(t.Context(), "active")
	if err != nil || empty.Inodes != 1 {
		t.Errorf("usage of nothing but the root: %+v, %v", empty, err)
	}
	inside(t, d, "active", func(dir string) {
		write(t, dir, "dir/file")
		if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, link := range []string{"link", "dir/link"} {
			if err := os.Link(filepath.Join(dir, "large"), filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
	})
	got, err := d.Usage(t.Context(), "active")
	if err != nil {
		t.Fatal(err)
	}
	upper := d.Tree(number(t, d, "active"))
	want := storage.Usage{Inodes: 4, Size: blocks(t, upper, ".", "dir", "dir/file", "large")}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got.Size < 1<<20 || got.Size > 3<<19 {
		t.Errorf("%d bytes for one MiB", got.Size)
	}
	if _, err := d.View(t.Context(), "view", "base", nil); err != nil {
		t.Fatal(err)
	}
	if view, err := d.Usage(t.Context(), "view"); err != nil || view.Inodes != 1 {
		t.Errorf("usage of a view: %+v, %v", view, err)
	}
}

func TestTheRootHasItsParentsOwnerAndMode(t *testing.T) {
	d := open(t, t.TempDir())
	layer(t, d, "base", "", func(dir string) {
		if err := os.Chown(dir, 1000, 100); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, os.ModeSticky|0o777); err != nil {
			t.Fatal(err)
		}
	})
	prepare(t, d, "active", "base")
	inside(t, d, "active", func(dir string) {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if info.Mode() != os.ModeDir|os.ModeSticky|0o777 || st.Uid != 1000 || st.Gid != 100 {
			t.Errorf("%s of %d:%d", info.Mode(), st.Uid, st.Gid)
		}
	})
}
