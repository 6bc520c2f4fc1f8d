package volume

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
)

func TestOneOfManyRemoves(t *testing.T) {
	var c Claims
	c.Claim("v", "one")
	if err := c.RemoveUnused("v", func() error { t.Error("a volume in use is removed"); return nil }); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("in use: %v", err)
	}
	if err := c.Unmount(t.Context(), "v", "one"); err != nil {
		t.Fatal(err)
	}
	there, removed := true, atomic.Int32{}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			err := c.RemoveUnused("v", func() error {
				if !there {
					return errdefs.ErrNotFound
				}
				there = false
				return nil
			})
			if err == nil {
				removed.Add(1)
			} else if !errdefs.IsNotFound(err) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := removed.Load(); n != 1 {
		t.Errorf("%d removed it", n)
	}
}

func TestAnOptionIsNamed(t *testing.T) {
	if err := NoOptions(nil); err != nil {
		t.Error(err)
	}
	if err := NoOptions(map[string]string{"size": "1"}); !errdefs.IsInvalidArgument(err) || err.Error() != `volume option "size": invalid argument` {
		t.Errorf("got %v", err)
	}
}
