package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	mobyvolume "github.com/moby/moby/api/types/volume"

	"github.com/davit-engine/davit/sdk/volume"
)

// Ensure implements the engine's Volumes.
func (s *Service) Ensure(ctx context.Context, req mobyvolume.CreateRequest, containerID string, anonymous bool) (mobyvolume.Volume, bool, error) {
	give, err := s.turns.take(ctx, req.Name)
	if err != nil {
		return mobyvolume.Volume{}, false, err
	}
	defer give()
	r, exists := s.get(req.Name)
	exists = exists && !r.Pending
	if exists && req.Driver != "" && req.Driver != r.Driver {
		return mobyvolume.Volume{}, false, errdefs.ErrConflict.WithMessage(fmt.Sprintf("a volume named %s already exists with the %s driver: choose another name", req.Name, r.Driver))
	}
	if !exists {
		owner := ""
		if anonymous {
			owner = containerID
		}
		if r, err = s.make(ctx, req, anonymous, owner); err != nil {
			return mobyvolume.Volume{}, false, err
		}
	}
	if containerID != "" {
		s.reserve(req.Name, containerID)
	}
	return show(r), !exists, nil
}

// make creates a volume in its driver. Its record is there before: what a crash
// makes of a creation, the driver is asked after the next start.
func (s *Service) make(ctx context.Context, req mobyvolume.CreateRequest, anonymous bool, owner string) (Record, error) {
	if req.ClusterVolumeSpec != nil {
		return Record{}, fmt.Errorf("cluster volumes: %w", errdefs.ErrNotImplemented)
	}
	if req.Driver == "" {
		req.Driver = s.DefaultDriver
	}
	driver, err := s.Driver(req.Driver)
	if err != nil {
		if errdefs.IsNotFound(err) {
			return Record{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("create %s: %v", req.Name, err))
		}
		return Record{}, err
	}
	r := Record{Name: req.Name, Driver: req.Driver, Options: req.DriverOpts, Labels: req.Labels, Anonymous: anonymous, Owner: owner}
	return s.record(ctx, r, func() (volume.Volume, error) {
		made, err := driver.Create(ctx, r.Name, r.Options, r.Labels)
		if err != nil {
			err = fmt.Errorf("create %s: %w", r.Name, err)
		}
		return made, err
	})
}

// record writes down that a volume is being made, has it made, and knows it from
// then on.
func (s *Service) record(ctx context.Context, r Record, create func() (volume.Volume, error)) (Record, error) {
	r.Pending, r.Created = true, time.Now().UTC()
	if err := s.records.Put(r.Name, r); err != nil {
		return r, err
	}
	made, err := create()
	if err != nil {
		// Of one that was cut off nobody knows how far it came: the record stays until
		// the driver is asked.
		if ctx.Err() != nil || errdefs.IsUnavailable(err) {
			s.remember(r)
			return r, err
		}
		return r, errors.Join(err, s.records.Delete(r.Name))
	}
	r = complete(r, made)
	s.remember(r)
	s.emit(r, events.ActionCreate, nil)
	return r, nil
}

// complete adds what only the driver knows.
func complete(r Record, made volume.Volume) Record {
	r.Pending, r.Mountpoint = false, made.Mountpoint
	if !made.Created.IsZero() {
		r.Created = made.Created
	}
	return r
}

// settle asks a driver what became of the volumes whose creation was cut off.
func (s *Service) settle(ctx context.Context, name string, driver volume.Driver) error {
	s.mu.RLock()
	var pending []Record
	for _, r := range s.all {
		if r.Pending && r.Driver == name {
			pending = append(pending, r)
		}
	}
	s.mu.RUnlock()
	var errs []error
	for _, r := range pending {
		found, err := driver.Get(ctx, r.Name)
		switch {
		case err == nil:
			r = complete(r, found)
			if err = s.records.Put(r.Name, r); err == nil {
				s.remember(r)
			}
		case errdefs.IsNotFound(err):
			err = s.forget(r.Name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *Service) remember(r Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[r.Name] = r
}

func (s *Service) forget(name string) error {
	if err := s.records.Delete(name); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.all, name)
	s.mu.Unlock()
	return nil
}

// Create implements the engine's Volumes.
func (s *Service) Create(ctx context.Context, req mobyvolume.CreateRequest) (mobyvolume.Volume, error) {
	if req.Name == "" {
		req.Name = s.NewName()
		r, err := s.make(ctx, req, true, "")
		return show(r), err
	}
	v, _, err := s.Ensure(ctx, req, "", false)
	return v, err
}
