// Package volume is the engine's volumes: which driver each is bound to, and
// what it is called. The data is the drivers'; who uses a volume is derived from
// the containers.
package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	mobyvolume "github.com/moby/moby/api/types/volume"
	"go.etcd.io/bbolt"

	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/core/state"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/volume"
)

// Record is what the engine keeps of a volume.
type Record struct {
	Name       string
	Driver     string
	Mountpoint string
	Options    map[string]string
	Labels     map[string]string
	Created    time.Time
	Anonymous  bool
	// Owner is the container that an anonymous volume was made for, as long as the
	// volume goes with it.
	Owner string
}

// Options are what a service is made of.
type Options struct {
	DB *bbolt.DB
	// Driver finds a volume driver; the empty name is the default.
	Driver        func(name string) (volume.Driver, error)
	DefaultDriver string
	NewName       func() string // of volumes that are given none
	Emit          func(events.Message)
}

// Service is the engine's volumes.
type Service struct {
	Options
	records *state.Collection[Record]

	mu  sync.RWMutex
	all map[string]Record
	// creating holds the names that are being made: the second asks again.
	creating map[string]chan struct{}
	// claimed are the uses that containers have, or are just getting.
	claimed map[volume.Claim]bool
}

// New opens the records.
func New(o Options) (*Service, error) {
	records, err := state.NewCollection[Record](o.DB, "volumes")
	if err != nil {
		return nil, err
	}
	all, err := records.All()
	if err != nil {
		return nil, err
	}
	return &Service{Options: o, records: records, all: all, creating: map[string]chan struct{}{}, claimed: map[volume.Claim]bool{}}, nil
}

func (s *Service) get(name string) (Record, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.all[name]
	return r, ok
}

func noSuch(name string) error {
	return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("get %s: no such volume", name))
}

func show(r Record) mobyvolume.Volume {
	v := mobyvolume.Volume{Name: r.Name, Driver: r.Driver, Mountpoint: r.Mountpoint, Options: r.Options, Labels: r.Labels, Scope: "local", CreatedAt: r.Created.Format(time.RFC3339)}
	if r.Anonymous {
		v.Labels = maps.Clone(r.Labels)
		if v.Labels == nil {
			v.Labels = map[string]string{}
		}
		v.Labels["com.docker.volume.anonymous"] = ""
	}
	return v
}

// Ensure implements the engine's Volumes.
func (s *Service) Ensure(ctx context.Context, req mobyvolume.CreateRequest, owner string) (mobyvolume.Volume, bool, error) {
	for {
		if r, ok := s.get(req.Name); ok {
			if req.Driver != "" && req.Driver != r.Driver {
				return mobyvolume.Volume{}, false, errdefs.ErrConflict.WithMessage(fmt.Sprintf("a volume named %s already exists with the %s driver: choose another name", req.Name, r.Driver))
			}
			return show(r), false, nil
		}
		s.mu.Lock()
		pending, busy := s.creating[req.Name]
		if !busy {
			pending = make(chan struct{})
			s.creating[req.Name] = pending
		}
		s.mu.Unlock()
		if !busy {
			v, err := s.make(ctx, req, owner != "", owner)
			s.mu.Lock()
			delete(s.creating, req.Name)
			s.mu.Unlock()
			close(pending)
			return v, err == nil, err
		}
		select {
		case <-pending:
		case <-ctx.Done():
			return mobyvolume.Volume{}, false, ctx.Err()
		}
	}
}

// make creates a volume in its driver and records it. A crash in between leaves
// a volume that the next Create of the same name finds.
func (s *Service) make(ctx context.Context, req mobyvolume.CreateRequest, anonymous bool, owner string) (mobyvolume.Volume, error) {
	if req.ClusterVolumeSpec != nil {
		return mobyvolume.Volume{}, fmt.Errorf("cluster volumes: %w", errdefs.ErrNotImplemented)
	}
	if req.Driver == "" {
		req.Driver = s.DefaultDriver
	}
	driver, err := s.Driver(req.Driver)
	if err != nil {
		if errdefs.IsNotFound(err) {
			return mobyvolume.Volume{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("create %s: %v", req.Name, err))
		}
		return mobyvolume.Volume{}, err
	}
	made, err := driver.Create(ctx, req.Name, req.DriverOpts, req.Labels)
	if err != nil {
		return mobyvolume.Volume{}, fmt.Errorf("create %s: %w", req.Name, err)
	}
	r := Record{Name: req.Name, Driver: req.Driver, Mountpoint: made.Mountpoint, Options: req.DriverOpts, Labels: req.Labels, Created: made.Created, Anonymous: anonymous, Owner: owner}
	if r.Created.IsZero() {
		r.Created = time.Now().UTC()
	}
	if err := s.records.Put(r.Name, r); err != nil {
		if made.Fresh {
			err = errors.Join(err, driver.Remove(ctx, r.Name))
		}
		return mobyvolume.Volume{}, err
	}
	s.mu.Lock()
	s.all[r.Name] = r
	s.mu.Unlock()
	s.emit(r, events.ActionCreate, nil)
	return show(r), nil
}

// Create implements the engine's Volumes.
func (s *Service) Create(ctx context.Context, req mobyvolume.CreateRequest) (mobyvolume.Volume, error) {
	if req.Name == "" {
		req.Name = s.NewName()
		return s.make(ctx, req, true, "")
	}
	v, _, err := s.Ensure(ctx, req, "")
	return v, err
}

// Inspect implements the engine's Volumes.
func (s *Service) Inspect(_ context.Context, name string) (mobyvolume.Volume, error) {
	r, ok := s.get(name)
	if !ok {
		return mobyvolume.Volume{}, noSuch(name)
	}
	return show(r), nil
}

// Mount implements the engine's Volumes.
func (s *Service) Mount(ctx context.Context, name, containerID string) (mount.Mount, error) {
	r, ok := s.get(name)
	if !ok {
		return mount.Mount{}, noSuch(name)
	}
	driver, err := s.Driver(r.Driver)
	if err != nil {
		return mount.Mount{}, err
	}
	// Before the driver has it: a reconciliation in between must not drop it.
	claim := volume.Claim{Volume: name, Consumer: containerID}
	s.claim(claim, true)
	m, err := driver.Mount(ctx, name, containerID)
	if err != nil {
		s.claim(claim, false)
	} else {
		s.emit(r, events.ActionMount, map[string]string{"container": containerID})
	}
	return m, err
}

// Unmount implements the engine's Volumes.
func (s *Service) Unmount(ctx context.Context, name, containerID string) error {
	r, ok := s.get(name)
	if !ok {
		return nil
	}
	driver, err := s.Driver(r.Driver)
	if err != nil {
		return err
	}
	if err := driver.Unmount(ctx, name, containerID); err != nil {
		return err
	}
	s.claim(volume.Claim{Volume: name, Consumer: containerID}, false)
	s.emit(r, events.ActionUnmount, map[string]string{"container": containerID})
	return nil
}

func (s *Service) claim(c volume.Claim, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if on {
		s.claimed[c] = true
	} else {
		delete(s.claimed, c)
	}
}

// Disown keeps an anonymous volume when the container it was made for goes.
func (s *Service) Disown(name string) error {
	r, ok := s.get(name)
	if !ok || r.Owner == "" {
		return nil
	}
	r.Owner = ""
	if err := s.records.Put(name, r); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.all[name]; ok {
		s.all[name] = r
	}
	return nil
}

// Sweep removes the anonymous volumes of containers that are not there: a crash
// came between the making of the two, or between their removals.
func (s *Service) Sweep(ctx context.Context, exists func(containerID string) bool, users func(string) []string) error {
	s.mu.RLock()
	var left []string
	for name, r := range s.all {
		if r.Owner != "" && !exists(r.Owner) && len(users(name)) == 0 {
			left = append(left, name)
		}
	}
	s.mu.RUnlock()
	var errs []error
	for _, name := range left {
		errs = append(errs, s.Remove(ctx, name, true, users))
	}
	return errors.Join(errs...)
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
	valid := maps.Clone(s.claimed)
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
			err = d.Reconcile(ctx, valid)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("volume driver %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// List implements the engine's Volumes.
func (s *Service) List(_ context.Context, f filter.Args, users func(string) int) (mobyvolume.ListResponse, error) {
	response := mobyvolume.ListResponse{Volumes: []mobyvolume.Volume{}, Warnings: []string{}}
	if err := f.Validate("dangling", "driver", "label", "name"); err != nil {
		return response, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return response, err
	}
	s.mu.RLock()
	records := slices.Collect(maps.Values(s.all))
	s.mu.RUnlock()
	for _, r := range records {
		if !f.Exact("driver", r.Driver) || !f.Match("name", r.Name) || !f.Labels("label", r.Labels) || f.Has("dangling") && dangling != (users(r.Name) == 0) {
			continue
		}
		response.Volumes = append(response.Volumes, show(r))
	}
	slices.SortFunc(response.Volumes, func(a, b mobyvolume.Volume) int { return strings.Compare(a.Name, b.Name) })
	return response, nil
}

// Remove implements the engine's Volumes.
func (s *Service) Remove(ctx context.Context, name string, force bool, users func(string) []string) error {
	r, ok := s.get(name)
	if !ok {
		if force {
			return nil
		}
		return noSuch(name)
	}
	if ids := users(name); len(ids) > 0 {
		return errdefs.ErrConflict.WithMessage(fmt.Sprintf("remove %s: volume is in use - [%s]", name, strings.Join(ids, ", ")))
	}
	driver, err := s.Driver(r.Driver)
	if err != nil {
		return err
	}
	if err := driver.Remove(ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if err := s.records.Delete(name); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.all, name)
	s.mu.Unlock()
	s.emit(r, events.ActionDestroy, nil)
	return nil
}

// Prune implements the engine's Volumes: anonymous volumes that nobody uses, or
// with the filter all=true every unused one.
func (s *Service) Prune(ctx context.Context, f filter.Args, users func(string) []string) (mobyvolume.PruneReport, error) {
	report := mobyvolume.PruneReport{}
	if err := f.Validate("all", "label", "label!"); err != nil {
		return report, err
	}
	all, err := f.Bool("all", false)
	if err != nil {
		return report, err
	}
	s.mu.RLock()
	records := slices.Collect(maps.Values(s.all))
	s.mu.RUnlock()
	for _, r := range records {
		if !all && !r.Anonymous || len(users(r.Name)) > 0 || !f.Labels("label", r.Labels) || f.Has("label!") && f.Labels("label!", r.Labels) {
			continue
		}
		var size int64
		if driver, err := s.Driver(r.Driver); err == nil {
			if usage, err := driver.Usage(ctx, r.Name); err == nil {
				size = max(usage.Size, 0)
			}
		}
		if err := s.Remove(ctx, r.Name, false, users); err != nil {
			if errdefs.IsConflict(err) || errdefs.IsNotFound(err) {
				continue // taken into use, or gone, meanwhile
			}
			return report, err
		}
		report.VolumesDeleted = append(report.VolumesDeleted, r.Name)
		report.SpaceReclaimed += uint64(size)
	}
	return report, nil
}

func (s *Service) emit(r Record, action events.Action, extra map[string]string) {
	attributes := map[string]string{"driver": r.Driver}
	maps.Copy(attributes, extra)
	s.Emit(events.Message{Type: events.VolumeEventType, Action: action, Actor: events.Actor{ID: r.Name, Attributes: attributes}})
}
