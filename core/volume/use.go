package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/moby/moby/api/types/events"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/volume"
)

// Mount implements the engine's Volumes.
func (s *Service) Mount(ctx context.Context, name, containerID string, details map[string]string) (mount.Mount, error) {
	m, r, err := s.claimed(ctx, name, containerID)
	if err == nil {
		s.emit(r, events.ActionMount, with(details, containerID))
	}
	return m, err
}

func with(details map[string]string, containerID string) map[string]string {
	all := map[string]string{"container": containerID}
	maps.Copy(all, details)
	return all
}

// claimed has a driver mount a volume for a consumer.
func (s *Service) claimed(ctx context.Context, name, consumer string) (mount.Mount, Record, error) {
	r, driver, err := s.find(name)
	if err != nil {
		return mount.Mount{}, r, err
	}
	// Before the driver has it: a reconciliation in between must not drop it.
	claim := volume.Claim{Volume: name, Consumer: consumer}
	s.claim(claim, true)
	m, err := driver.Mount(ctx, name, consumer)
	if err != nil {
		s.claim(claim, false)
	}
	return m, r, err
}

// find answers a volume and its driver.
func (s *Service) find(name string) (Record, volume.Driver, error) {
	r, ok := s.get(name)
	if !ok {
		return r, nil, noSuch(name)
	}
	driver, err := s.Driver(r.Driver)
	return r, driver, err
}

// Unmount implements the engine's Volumes.
func (s *Service) Unmount(ctx context.Context, name, containerID string) error {
	r, ok := s.get(name)
	if !ok {
		return nil
	}
	if err := s.released(ctx, r, containerID); err != nil {
		return err
	}
	s.emit(r, events.ActionUnmount, with(nil, containerID))
	return nil
}

func (s *Service) released(ctx context.Context, r Record, consumer string) error {
	driver, err := s.Driver(r.Driver)
	if err != nil {
		return err
	}
	if err := driver.Unmount(ctx, r.Name, consumer); err != nil {
		return err
	}
	s.claim(volume.Claim{Volume: r.Name, Consumer: consumer}, false)
	return nil
}

// Borrow implements the engine's Volumes.
func (s *Service) Borrow(ctx context.Context, name string) (mount.Mount, func() error, error) {
	consumer := "engine-" + s.NewName()
	m, r, err := s.claimed(ctx, name, consumer)
	if err != nil {
		return m, nil, err
	}
	// Given back also when the caller has left.
	return m, func() error { return s.released(context.WithoutCancel(ctx), r, consumer) }, nil
}

// Fill implements the engine's Volumes.
func (s *Service) Fill(ctx context.Context, name string, fn func(mount.Mount) error) (err error) {
	give, err := s.fills.take(ctx, name)
	if err != nil {
		return err
	}
	defer give()
	m, giveBack, err := s.Borrow(ctx, name)
	if err != nil {
		return err
	}
	return errors.Join(fn(m), giveBack())
}

func (s *Service) claim(c volume.Claim, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if on {
		s.claims[c] = true
	} else {
		delete(s.claims, c)
	}
}

// reserve keeps a volume for a container that is being made.
func (s *Service) reserve(name, containerID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved[volume.Claim{Volume: name, Consumer: containerID}] = true
}

// Settled implements the engine's Volumes.
func (s *Service) Settled(containerID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.reserved, func(c volume.Claim, _ bool) bool { return c.Consumer == containerID })
}

// reservedBy are the containers being made that have a volume.
func (s *Service) reservedBy(name string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var ids []string
	for c := range s.reserved {
		if c.Volume == name {
			ids = append(ids, c.Consumer)
		}
	}
	return ids
}

// Reconcile implements the engine's Volumes.
func (s *Service) Reconcile(ctx context.Context, driver string, inUse []volume.Claim) error {
	claims := map[string][]volume.Claim{}
	if driver == "" || driver == s.DefaultDriver {
		claims[s.DefaultDriver] = nil // it may have mounts that a crash left, and no volume
	}
	s.mu.RLock()
	for _, r := range s.all {
		if driver == "" || r.Driver == driver {
			claims[r.Driver] = nil
		}
	}
	valid := maps.Clone(s.claims)
	for _, claim := range inUse {
		valid[claim] = true
	}
	for claim := range valid {
		if r, ok := s.all[claim.Volume]; ok && (driver == "" || r.Driver == driver) {
			claims[r.Driver] = append(claims[r.Driver], claim)
		}
	}
	s.mu.RUnlock()
	var errs []error
	for name, valid := range claims {
		d, err := s.Driver(name)
		if err == nil {
			err = errors.Join(s.settle(ctx, name, d), d.Reconcile(ctx, valid))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("volume driver %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
