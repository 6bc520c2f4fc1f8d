package snapdir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/storage"
)

// slow is a Content whose snapshots take as long as the test wants.
type slow struct {
	begun chan int   // a snapshot's number, when it is being built
	end   chan error // how that ends
	store *Store
}

func (c *slow) Build(ctx context.Context, s Snapshot) error {
	if err := os.Mkdir(c.store.Tree(s.Number), 0o755); err != nil {
		return err
	}
	c.begun <- s.Number
	select {
	case err := <-c.end:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *slow) Mounts(s Snapshot) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: c.store.Tree(s.Number)}}
}
func (*slow) Commit(context.Context, Snapshot) error { return nil }
func (*slow) Settle(string) error                    { return nil }
func (*slow) Delete(dir string) error                { return os.RemoveAll(dir) }

func open(t *testing.T, root string) (*Store, *slow) {
	t.Helper()
	c := &slow{begun: make(chan int), end: make(chan error)}
	s, err := Open(root, c, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c.store = s
	return s, c
}

// prepare begins to make a snapshot and answers where its error will come.
func prepare(ctx context.Context, s *Store, c *slow, key string) (number int, done chan error) {
	done = make(chan error, 1)
	go func() {
		_, err := s.Prepare(ctx, key, "", nil)
		done <- err
	}()
	return <-c.begun, done
}

// TestWhoAsksForASnapshotThatIsBeingBuiltWaits lets no call see half of one.
func TestWhoAsksForASnapshotThatIsBeingBuiltWaits(t *testing.T) {
	s, c := open(t, t.TempDir())
	ctx := t.Context()
	_, done := prepare(ctx, s, c, "key")
	if _, err := s.Prepare(ctx, "key", "", nil); !errdefs.IsAlreadyExists(err) {
		t.Errorf("Prepare of the key: %v", err)
	}
	impatient, cancel := context.WithCancel(ctx)
	cancel()
	for what, call := range map[string]func(context.Context) error{
		"Mounts":    func(ctx context.Context) error { _, err := s.Mounts(ctx, "key"); return err },
		"Stat":      func(ctx context.Context) error { _, err := s.Stat(ctx, "key"); return err },
		"SetLabels": func(ctx context.Context) error { _, err := s.SetLabels(ctx, "key", nil); return err },
		"Commit":    func(ctx context.Context) error { return s.Commit(ctx, "name", "key", nil) },
		"Remove":    func(ctx context.Context) error { return s.Remove(ctx, "key") },
		"Usage":     func(ctx context.Context) error { _, err := s.Usage(ctx, "key"); return err },
	} {
		if err := call(impatient); !errors.Is(err, context.Canceled) {
			t.Errorf("%s does not wait: %v", what, err)
		}
	}
	mounted := make(chan error, 1)
	go func() {
		mounts, err := s.Mounts(ctx, "key")
		if err == nil && len(mounts) != 1 {
			err = errors.New("no mounts")
		}
		mounted <- err
	}()
	c.end <- nil
	if err := errors.Join(<-done, <-mounted); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeBuiltIsGone(t *testing.T) {
	root := t.TempDir()
	s, c := open(t, root)
	full := errors.New("no space left")
	n, done := prepare(t.Context(), s, c, "key")
	removed := make(chan error, 1)
	go func() { removed <- s.Remove(t.Context(), "key") }()
	c.end <- full
	if err := <-done; !errors.Is(err, full) {
		t.Errorf("Prepare: %v", err)
	}
	if err := <-removed; !errdefs.IsNotFound(err) {
		t.Errorf("Remove meanwhile: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m, done := prepare(ctx, s, c, "key") // the key is free
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Prepare whose caller has left: %v", err)
	}
	for _, number := range []int{n, m} {
		if _, err := os.Stat(s.Dir(number)); !os.IsNotExist(err) {
			t.Errorf("directory %d: %v", number, err)
		}
	}
}

func TestWhatACrashLeftUnbuiltIsDeleted(t *testing.T) {
	root := t.TempDir()
	s, c := open(t, root)
	n, done := prepare(t.Context(), s, c, "half")
	again, err := Open(root, c, hclog.NewNullLogger()) // as after a crash
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Stat(t.Context(), "half"); !errdefs.IsNotFound(err) {
		t.Errorf("it is there: %v", err)
	}
	again.Close()
	for _, dir := range []string{"s", "trash"} {
		if left, err := os.ReadDir(filepath.Join(root, dir)); err != nil || len(left) > 0 {
			t.Errorf("%s: %v, %v", dir, left, err)
		}
	}
	c.end <- nil
	if err := <-done; err == nil {
		t.Errorf("snapshot %d was made in a directory that was deleted", n)
	}
}

func TestACommitThatFailsLeavesTheSnapshotActive(t *testing.T) {
	s, c := open(t, t.TempDir())
	ctx := t.Context()
	for _, key := range []string{"base", "key"} {
		_, done := prepare(ctx, s, c, key)
		c.end <- nil
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(ctx, "parent", "base", nil); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no space left")
	adopt := func(context.Context, Snapshot) error { return broken }
	if err := s.Rebase(ctx, "name", "key", "parent", nil, adopt); !errors.Is(err, broken) {
		t.Errorf("Rebase: %v", err)
	}
	if info, err := s.Stat(ctx, "key"); err != nil || info.Kind != storage.KindActive || info.Parent != "" {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := s.Stat(ctx, "name"); !errdefs.IsNotFound(err) {
		t.Errorf("the name: %v", err)
	}
	if err := s.Remove(ctx, "parent"); err != nil {
		t.Errorf("the parent has children: %v", err)
	}
}
