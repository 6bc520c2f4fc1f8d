package volume

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// turns let one at a time work on a name.
type turns struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when the turn is given back
}

// take waits for the turns of all names, in an order that everybody keeps.
func (t *turns) take(ctx context.Context, names ...string) (give func(), err error) {
	slices.Sort(names)
	names = slices.Compact(names)
	for i, name := range names {
		if err := t.takeOne(ctx, name); err != nil {
			t.give(names[:i])
			return nil, fmt.Errorf("waiting for volume %s: %w", name, err)
		}
	}
	return func() { t.give(names) }, nil
}

func (t *turns) takeOne(ctx context.Context, name string) error {
	for {
		t.mu.Lock()
		if t.held == nil {
			t.held = map[string]chan struct{}{}
		}
		busy := t.held[name]
		if busy == nil {
			t.held[name] = make(chan struct{})
		}
		t.mu.Unlock()
		if busy == nil {
			return nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *turns) give(names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		close(t.held[name])
		delete(t.held, name)
	}
}
