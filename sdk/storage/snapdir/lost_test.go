package snapdir

import (
	"context"
	"os"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/storage"
)

// plain is a Content of empty directories.
type plain struct{}

func (plain) Build(context.Context, Snapshot) error  { return nil }
func (plain) Mounts(Snapshot) []mount.Mount          { return nil }
func (plain) Commit(context.Context, Snapshot) error { return nil }
func (plain) Settle(string) error                    { return nil }
func (plain) Delete(dir string) error                { return os.RemoveAll(dir) }

// A committed snapshot whose directory somebody else removed can be committed again,
// while the store is open and when it was closed, and those that stand on it do then
// stand on the new one.
func TestALostSnapshotIsMadeAnew(t *testing.T) {
	for _, closed := range []bool{false, true} {
		root := t.TempDir()
		begin := func() *Store {
			s, err := Open(root, plain{}, hclog.NewNullLogger())
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s, ctx := begin(), t.Context()
		commit := func(name, parent string) {
			t.Helper()
			if _, err := s.Prepare(ctx, "key", parent, nil); err != nil {
				t.Fatal(err)
			}
			if err := s.Commit(ctx, name, "key", nil); err != nil {
				t.Fatal(err)
			}
		}
		find := func(key string) Snapshot {
			t.Helper()
			found, err := s.Find(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		commit("base", "")
		commit("middle", "base")
		commit("top", "middle")
		if _, err := s.Prepare(ctx, "container", "top", nil); err != nil {
			t.Fatal(err)
		}
		lost := find("base").Number
		if err := os.RemoveAll(s.Dir(lost)); err != nil {
			t.Fatal(err)
		}
		if closed {
			s.Close()
			s = begin()
		}
		if _, err := s.Stat(ctx, "top"); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("what stands on it: %v", err)
		}
		if _, err := s.Stat(ctx, "base"); !errdefs.IsNotFound(err) {
			t.Errorf("it: %v", err)
		}
		if info, err := s.Stat(ctx, "container"); err != nil || info.Kind != storage.KindActive {
			t.Errorf("a container's: %+v, %v", info, err)
		}
		commit("base", "")
		for range 2 {
			chain := []int{find("top").Number, find("middle").Number, find("base").Number}
			if got := find("container").Chain; !slices.Equal(got, chain) || slices.Contains(got, lost) {
				t.Errorf("the container stands on %v, not %v", got, chain)
			}
			if got := find("middle").Chain; !slices.Equal(got, chain[2:]) {
				t.Errorf("a layer stands on %v, not %v", got, chain[2:])
			}
			for _, name := range []string{"base", "middle", "top"} {
				if _, err := s.Stat(ctx, name); err != nil {
					t.Error(err)
				}
			}
			if err := s.Remove(ctx, "base"); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("removed under others: %v", err)
			}
			s.Close()
			s = begin()
		}
		// One that is lost can be removed, too.
		if err := os.RemoveAll(s.Dir(find("container").Number)); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"container", "top", "middle", "base"} {
			if err := s.Remove(ctx, name); err != nil {
				t.Errorf("removing %s: %v", name, err)
			}
		}
		s.Close()
	}
}
