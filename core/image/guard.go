package image

import (
	"context"
	"sync"
)

// guard keeps snapshots that an operation counts on from being removed before an
// image's name or a container keeps them. It is in memory: a dead operation counts on
// nothing. No lock is held while a driver works: whoever wants a snapshot that is
// being removed waits until it is gone, and makes it anew.
type guard struct {
	mu       sync.Mutex
	users    map[string]int
	removing map[string]chan struct{}
}

// hold keeps snapshots, those that are there and those that will be, until release.
func (g *guard) hold(ctx context.Context, names ...string) (release func(), err error) {
	var held []string
	release = func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, name := range held {
			if g.users[name]--; g.users[name] == 0 {
				delete(g.users, name)
			}
		}
		held = nil
	}
	for _, name := range names {
		if err := g.take(ctx, name); err != nil {
			release()
			return nil, err
		}
		held = append(held, name)
	}
	return release, nil
}

func (g *guard) take(ctx context.Context, name string) error {
	for {
		g.mu.Lock()
		busy := g.removing[name]
		if busy == nil {
			if g.users == nil {
				g.users = map[string]int{}
			}
			g.users[name]++
			g.mu.Unlock()
			return nil
		}
		g.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// remove reserves a snapshot that nobody counts on for being removed; who wants it
// meanwhile waits for done.
func (g *guard) remove(name string) (done func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users[name] > 0 || g.removing[name] != nil {
		return nil, false
	}
	if g.removing == nil {
		g.removing = map[string]chan struct{}{}
	}
	gone := make(chan struct{})
	g.removing[name] = gone
	return func() {
		g.mu.Lock()
		delete(g.removing, name)
		g.mu.Unlock()
		close(gone)
	}, true
}

// holding is what one operation holds of snapshots until it is over.
type holding struct {
	mu      sync.Mutex
	release []func()
}

type holdingKey struct{}

func withHolding(ctx context.Context) (context.Context, *holding) {
	h := &holding{}
	return context.WithValue(ctx, holdingKey{}, h), h
}

func (h *holding) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, release := range h.release {
		release()
	}
	h.release = nil
}

// holdSnapshots keeps snapshots until the operation that ctx belongs to is over.
func (s *Store) holdSnapshots(ctx context.Context, names ...string) error {
	release, err := s.snapshots.hold(ctx, names...)
	if err != nil {
		return err
	}
	h, ok := ctx.Value(holdingKey{}).(*holding)
	if !ok {
		release()
		return nil
	}
	h.mu.Lock()
	h.release = append(h.release, release)
	h.mu.Unlock()
	return nil
}
