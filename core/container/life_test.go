package container

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestOperationsTakeTurns(t *testing.T) {
	s, _ := open(t, t.TempDir())
	c := add(t, s, Record{ID: id("aa"), Name: "web"})
	ctx := patience(t)
	var group sync.WaitGroup
	var inside, most atomic.Int32
	turns := 0 // not atomic: the turn is the lock
	for range 16 {
		group.Go(func() {
			for range 50 {
				end, err := c.Begin(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n > most.Load() {
					most.Store(n)
				}
				turns++
				inside.Add(-1)
				end()
			}
		})
	}
	group.Wait()
	if most.Load() != 1 || turns != 16*50 {
		t.Errorf("%d turns, %d at a time", turns, most.Load())
	}
}

func TestWaitingForATurnCanBeGivenUp(t *testing.T) {
	s, _ := open(t, t.TempDir())
	c, other := add(t, s, Record{ID: id("aa"), Name: "web"}), add(t, s, Record{ID: id("bb"), Name: "db"})
	end, err := c.Begin(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Begin(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), c.ID) {
		t.Errorf("error %v", err)
	}
	// Neither reading nor another container waits.
	if c.Record().Name != "web" {
		t.Error("the record cannot be read")
	}
	endOther, err := other.Begin(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	endOther()
	end()
	// The turn that was given up is not lost.
	end, err = c.Begin(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	end()
}

func TestADeletedContainerIsGoneWithItsName(t *testing.T) {
	s, _ := open(t, t.TempDir())
	c := add(t, s, Record{ID: id("aa"), Name: "web"})
	if err := s.Reserve("www", c.ID); err != nil { // a rename that was under way
		t.Fatal(err)
	}
	if err := c.Delete(); err != nil {
		t.Fatal(err)
	}
	if !c.Gone() || len(s.All()) != 0 {
		t.Errorf("gone is %v, %d containers are left", c.Gone(), len(s.All()))
	}
	for _, ref := range []string{"web", "www", c.ID} {
		if _, err := s.Find(ref); !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, name := range []string{"web", "www"} {
		if err := s.Reserve(name, id("bb")); err != nil {
			t.Errorf("%s is not free: %v", name, err)
		}
	}
}

func TestAnUpdateAfterTheEndIsNotWritten(t *testing.T) {
	root := t.TempDir()
	s, db := open(t, root)
	c := add(t, s, Record{ID: id("aa"), Name: "web"})
	if err := c.Delete(); err != nil {
		t.Fatal(err)
	}
	if err := c.Update(func(r *Record) error { r.ExitCode = 1; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if s, _ = open(t, root); len(s.All()) != 0 {
		t.Error("the container is back")
	}
}

func TestAnUpdateDuringTheDeletionIsNotWritten(t *testing.T) {
	root := t.TempDir()
	s, db := open(t, root)
	c := add(t, s, Record{ID: id("aa"), Name: "web"})
	updating, deleted := make(chan struct{}), make(chan error, 1)
	var group sync.WaitGroup
	group.Go(func() {
		if err := c.Update(func(*Record) error {
			close(updating)
			// Holds the container while the deletion comes as far as it can.
			poll := time.NewTicker(time.Millisecond)
			defer poll.Stop()
			for deadline := time.Now().Add(200 * time.Millisecond); time.Now().Before(deadline); <-poll.C {
				if _, err := s.Find("web"); err != nil {
					break
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-updating
	group.Go(func() { deleted <- c.Delete() })
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	group.Wait()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if s, _ = open(t, root); len(s.All()) != 0 {
		t.Error("the container is back")
	}
}

func TestAwaitReturnsWhenTheContainerEnds(t *testing.T) {
	s, _ := open(t, t.TempDir())
	c := add(t, s, Record{ID: id("aa"), Name: "web", Status: Running})
	begin := c.Now()
	var group sync.WaitGroup
	waits := func(want int) {
		group.Go(func() {
			r, err := c.Await(patience(t), begin, func(_ Record, ended, _ bool) bool { return ended })
			if err != nil || r.ExitCode != want {
				t.Errorf("exit code %d, %v", r.ExitCode, err)
			}
		})
	}
	waits(42)
	for _, status := range []Status{Paused, Running, Exited} {
		code := map[Status]int{Exited: 42}[status]
		if err := c.Update(func(r *Record) error { r.Status, r.ExitCode = status, code; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	group.Wait()
	// One that comes late finds that it has ended, one that waits from now on does not.
	waits(42)
	group.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Await(ctx, c.Now(), func(_ Record, ended, _ bool) bool { return ended }); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait for the next end: %v", err)
	}
}

func TestAwaitReturnsWhenTheContainerIsRemoved(t *testing.T) {
	s, _ := open(t, t.TempDir())
	c := add(t, s, Record{ID: id("aa"), Name: "web", Status: Exited})
	waiting, done := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		_, err := c.Await(patience(t), c.Now(), func(_ Record, _, removed bool) bool {
			once.Do(func() { close(waiting) })
			return removed
		})
		if _, found := s.Find("web"); err == nil && found == nil {
			err = errors.New("the name is still taken: docker run --rm twice in a row would fail")
		}
		done <- err
	}()
	<-waiting
	if err := c.Delete(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
