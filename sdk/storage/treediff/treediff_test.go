package treediff

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/storage"
	"github.com/davit-engine/davit/sdk/treecopy"
)

const (
	added    = storage.ChangeAdd
	modified = storage.ChangeModify
	deleted  = storage.ChangeDelete
)

// copied makes a tree with a file of each of the names, and a copy of it.
func copied(t *testing.T, names ...string) (below, above string) {
	t.Helper()
	below, above = t.TempDir(), t.TempDir()
	for _, name := range names {
		write(t, below, name, name)
	}
	from, err := os.Open(below)
	if err != nil {
		t.Fatal(err)
	}
	into, err := os.Open(above)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(treecopy.Copy(t.Context(), from, into), from.Close(), into.Close()); err != nil {
		t.Fatal(err)
	}
	return below, above
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// wantChanges compares what Compare reports, in its order.
func wantChanges(t *testing.T, below, above string, untouched time.Time, want ...storage.Change) {
	t.Helper()
	var got []storage.Change
	if err := Compare(t.Context(), below, above, untouched, func(c storage.Change) error { got = append(got, c); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestACopyDiffersInNothing(t *testing.T) {
	below, above := copied(t, "a", "dir/b", "dir/deep/c")
	wantChanges(t, below, above, time.Now())
	wantChanges(t, below, above, time.Time{}) // everything is read
}

func TestDirectoriesOfWhatDiffersComeFirst(t *testing.T) {
	below, above := copied(t, "same/a", "dir/deep/file", "dir/other", "gone/with/all", "z/was-dir/a", "z/was-file")
	when := time.Now()
	write(t, above, "dir/deep/file", "other")
	write(t, above, "new/sub/file", "x")
	if err := errors.Join(os.RemoveAll(filepath.Join(above, "gone")), os.RemoveAll(filepath.Join(above, "z")),
		os.MkdirAll(filepath.Join(above, "z/was-file/in"), 0o755), os.WriteFile(filepath.Join(above, "z/was-dir"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	wantChanges(t, below, above, when,
		storage.Change{Kind: modified, Path: "/dir"}, storage.Change{Kind: modified, Path: "/dir/deep"}, storage.Change{Kind: modified, Path: "/dir/deep/file"},
		storage.Change{Kind: deleted, Path: "/gone"},
		storage.Change{Kind: added, Path: "/new"}, storage.Change{Kind: added, Path: "/new/sub"}, storage.Change{Kind: added, Path: "/new/sub/file"},
		storage.Change{Kind: modified, Path: "/z"}, storage.Change{Kind: modified, Path: "/z/was-dir"},
		storage.Change{Kind: modified, Path: "/z/was-file"}, storage.Change{Kind: added, Path: "/z/was-file/in"},
	)
}

// TestWhatOnlyOneAttributeShows are changes with nothing else to see them by.
func TestWhatOnlyOneAttributeShows(t *testing.T) {
	for what, change := range map[string]func(path string) error{
		"mode":      func(path string) error { return os.Chmod(path, 0o600) },
		"owner":     func(path string) error { return os.Chown(path, 1, 0) },
		"time":      func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1, 1)) },
		"attribute": func(path string) error { return unix.Setxattr(path, "security.test", []byte("x"), 0) },
		"content of the same size and time": func(path string) error {
			info, err := os.Stat(path)
			if err == nil {
				err = os.WriteFile(path, []byte("FILE"), 0o644)
			}
			if err != nil {
				return err
			}
			return os.Chtimes(path, time.Time{}, info.ModTime())
		},
		"target of the same length": func(path string) error {
			dir := filepath.Dir(path)
			return errors.Join(os.Remove(path), os.Symlink("file", path), os.Chtimes(dir, time.Time{}, time.Unix(5, 0)))
		},
	} {
		t.Run(what, func(t *testing.T) {
			below, above := copied(t, "file")
			when := time.Now()
			if err := change(filepath.Join(above, "file")); errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			wantChanges(t, below, above, when, storage.Change{Kind: modified, Path: "/file"})
		})
	}
}

func TestAPointerThatPointsElsewhere(t *testing.T) {
	below, above := copied(t, "a/file")
	old := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	for dir, target := range map[string]string{below: "aaaa", above: "bbbb"} {
		link := filepath.Join(dir, "a", "link")
		if err := errors.Join(os.Symlink(target, link), unix.UtimesNanoAt(unix.AT_FDCWD, link, old, unix.AT_SYMLINK_NOFOLLOW),
			unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "a"), old, 0)); err != nil {
			t.Fatal(err)
		}
	}
	wantChanges(t, below, above, time.Time{}, storage.Change{Kind: modified, Path: "/a"}, storage.Change{Kind: modified, Path: "/a/link"})
}

// TestNoPointerLeadsOut: the tree above is its user's, who may put links where
// directories and files were.
func TestNoPointerLeadsOut(t *testing.T) {
	below, above := copied(t, "etc/passwd", "file")
	outside := t.TempDir()
	write(t, outside, "passwd", "secret")
	if err := errors.Join(os.RemoveAll(filepath.Join(above, "etc")), os.Symlink(outside, filepath.Join(above, "etc")),
		os.Remove(filepath.Join(above, "file")), unix.Mkfifo(filepath.Join(above, "file"), 0o644)); err != nil {
		t.Fatal(err)
	}
	wantChanges(t, below, above, time.Time{}, storage.Change{Kind: modified, Path: "/etc"}, storage.Change{Kind: modified, Path: "/file"})
}

func TestCompareEndsWhenItsReaderDoes(t *testing.T) {
	below, above := copied(t, "a")
	for _, name := range []string{"b", "c"} {
		write(t, above, name, name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := Compare(ctx, below, above, time.Now(), func(storage.Change) error { calls++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("after %d calls: %v", calls, err)
	}
	enough := errors.New("enough")
	if err := Added(t.Context(), above, func(storage.Change) error { return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
}
