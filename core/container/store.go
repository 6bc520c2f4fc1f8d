package container

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"go.etcd.io/bbolt"

	"github.com/davit-engine/davit/core/state"
)

// Container is a living record.
type Container struct {
	ID string

	mu      sync.Mutex
	record  Record
	changed chan struct{} // closed and replaced at every change
	exits   int           // how often it has ended, since the engine started
	gone    bool          // the record is
	told    bool          // those who await that

	operation chan struct{} // holds one token: lifecycle operations take turns
	store     *Store
}

// Store holds all containers.
type Store struct {
	records *state.Collection[Record]

	mu    sync.RWMutex
	byID  map[string]*Container
	names map[string]string // name → ID, reserved before the record exists
}

// NewStore reads the containers of the database.
func NewStore(db *bbolt.DB) (*Store, error) {
	records, err := state.NewCollection[Record](db, "containers")
	if err != nil {
		return nil, err
	}
	all, err := records.All()
	if err != nil {
		return nil, err
	}
	s := &Store{records: records, byID: map[string]*Container{}, names: map[string]string{}}
	for id, record := range all {
		s.byID[id] = s.newContainer(record)
		s.names[record.Name] = id
	}
	return s, nil
}

func (s *Store) newContainer(r Record) *Container {
	c := &Container{ID: r.ID, record: r, changed: make(chan struct{}), operation: make(chan struct{}, 1), store: s}
	c.operation <- struct{}{}
	return c
}

// validName is Docker's pattern for container names.
var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// CheckName fails for a name that Docker would refuse.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name))
	}
	return nil
}

// Reserve takes a name for an ID. ErrAlreadyExists names its holder.
func (s *Store) Reserve(name, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if holder, ok := s.names[name]; ok && holder != id {
		return errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf("Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, holder))
	}
	s.names[name] = id
	return nil
}

// Free gives a name up that id holds.
func (s *Store) Free(name, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] == id {
		delete(s.names, name)
	}
}

// Add writes a new container, durably.
func (s *Store) Add(r Record) (*Container, error) {
	if err := s.records.Put(r.ID, r); err != nil {
		return nil, fmt.Errorf("recording container %s: %w", r.ID, err)
	}
	c := s.newContainer(r)
	s.mu.Lock()
	s.byID[r.ID] = c
	s.mu.Unlock()
	return c, nil
}

// Find answers a container by ID, name or unambiguous ID prefix.
func (s *Store) Find(ref string) (*Container, error) {
	name := strings.TrimPrefix(ref, "/")
	s.mu.RLock()
	defer s.mu.RUnlock()
	if c := s.byID[name]; c != nil {
		return c, nil
	}
	if c := s.byID[s.names[name]]; c != nil {
		return c, nil
	}
	var found *Container
	if name != "" {
		for id, c := range s.byID {
			if !strings.HasPrefix(id, name) {
				continue
			}
			if found != nil {
				return nil, errdefs.ErrInvalidArgument.WithMessage("multiple IDs found with provided prefix: " + name)
			}
			found = c
		}
	}
	if found == nil {
		return nil, errdefs.ErrNotFound.WithMessage("No such container: " + ref)
	}
	return found, nil
}

// All answers every container, the youngest first.
func (s *Store) All() []*Container {
	s.mu.RLock()
	list := make([]*Container, 0, len(s.byID))
	for _, c := range s.byID {
		list = append(list, c)
	}
	s.mu.RUnlock()
	slices.SortFunc(list, func(a, b *Container) int {
		if order := b.Record().Created.Compare(a.Record().Created); order != 0 {
			return order
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// Record answers a copy to read.
func (c *Container) Record() Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record
}

// Update changes the record and writes it durably; fn's error leaves it as it
// was.
func (c *Container) Update(fn func(*Record) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.update(fn, true)
}

// UpdateVolatile changes the record in memory only: for what recovery finds out
// again from driver and monitor.
func (c *Container) UpdateVolatile(fn func(*Record) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.update(fn, false)
}

func (c *Container) update(fn func(*Record) error, durable bool) error {
	changed := c.record.clone()
	if err := fn(&changed); err != nil {
		return err
	}
	if durable && !c.gone {
		if err := c.store.records.Put(c.ID, changed); err != nil {
			return fmt.Errorf("recording container %s: %w", c.ID, err)
		}
	}
	wasAlive := c.record.Status.Alive()
	c.record = changed
	if wasAlive && !changed.Status.Alive() {
		c.exits++
	}
	c.signal()
	return nil
}

func (c *Container) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Delete removes the record durably; its name is free when it returns. Who awaits
// the removal hears of it after what else goes with the container is gone: then.
func (c *Container) Delete(then ...func()) error {
	if err := c.forget(); err != nil {
		return err
	}
	for _, fn := range then {
		fn()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = true
	c.signal()
	return nil
}

func (c *Container) forget() error {
	// Held to the end: an update in between would write the record again.
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.store.records.Delete(c.ID); err != nil {
		return fmt.Errorf("removing the record of container %s: %w", c.ID, err)
	}
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, c.ID)
	for name, id := range s.names {
		if id == c.ID {
			delete(s.names, name)
		}
	}
	c.gone = true
	return nil
}

// Begin takes the container's turn for a lifecycle operation; the caller must
// call the function it answers. Reading never needs a turn.
func (c *Container) Begin(ctx context.Context) (end func(), err error) {
	select {
	case <-c.operation:
		return func() { c.operation <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for another operation on container %s: %w", c.ID, ctx.Err())
	}
}

// Gone says whether the container has been removed.
func (c *Container) Gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// Moment is what a waiter waits relative to.
type Moment struct{ exits int }

// Now marks the present for [Container.Await].
func (c *Container) Now() Moment {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Moment{c.exits}
}

// Await returns when done says so of the record, of whether the container has
// ended since the moment m, and of whether it is removed.
func (c *Container) Await(ctx context.Context, m Moment, done func(r Record, ended, removed bool) bool) (Record, error) {
	for {
		c.mu.Lock()
		record, ended, removed, changed := c.record, c.exits > m.exits, c.told, c.changed
		c.mu.Unlock()
		if done(record, ended, removed) {
			return record, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return record, ctx.Err()
		}
	}
}
