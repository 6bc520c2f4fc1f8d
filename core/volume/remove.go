package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	mobyvolume "github.com/moby/moby/api/types/volume"

	"github.com/davit-engine/davit/core/filter"
)

// Remove implements the engine's Volumes.
func (s *Service) Remove(ctx context.Context, name string, force bool, users func(string) []string) error {
	give, err := s.turns.take(ctx, name)
	if err != nil {
		return err
	}
	defer give()
	r, ok := s.get(name)
	if !ok {
		if force {
			return nil
		}
		return noSuch(name)
	}
	// Reservations first: what leaves them is a user by then.
	ids := s.reservedBy(name)
	for _, id := range users(name) {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		return errdefs.ErrConflict.WithMessage(fmt.Sprintf("remove %s: volume is in use - [%s]", name, strings.Join(ids, ", ")))
	}
	driver, err := s.Driver(r.Driver)
	if err == nil {
		err = driver.Remove(ctx, name)
	}
	if errdefs.IsNotFound(err) && driver != nil {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("remove %s: %w", name, err)
		if !force || errdefs.IsFailedPrecondition(err) || ctx.Err() != nil {
			return err
		}
	}
	// With force it is forgotten even if its driver is gone or fails, which is said.
	if forgotten := s.forget(name); forgotten != nil {
		return errors.Join(err, forgotten)
	}
	s.emit(r, events.ActionDestroy, nil)
	return err
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
		errs = append(errs, s.Remove(ctx, name, false, users))
	}
	return errors.Join(errs...)
}

// Prune implements the engine's Volumes: volumes of driver local that nobody uses
// and nobody named, or with the filter all=true every unused one.
func (s *Service) Prune(ctx context.Context, f filter.Args, users func(string) []string) (mobyvolume.PruneReport, error) {
	report := mobyvolume.PruneReport{VolumesDeleted: []string{}}
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
		labels := show(r).Labels
		if r.Driver != localDriver || !all && !r.Anonymous || len(users(r.Name)) > 0 || !f.Labels("label", labels) || f.Has("label!") && f.Labels("label!", labels) {
			continue
		}
		size := max(s.size(ctx, r), 0)
		if err := s.Remove(ctx, r.Name, false, users); err != nil {
			if errdefs.IsConflict(err) || errdefs.IsNotFound(err) {
				continue // taken into use, or gone, meanwhile
			}
			return report, err
		}
		report.VolumesDeleted = append(report.VolumesDeleted, r.Name)
		report.SpaceReclaimed += uint64(size)
	}
	s.Emit(events.Message{Type: events.VolumeEventType, Action: events.ActionPrune, Actor: events.Actor{Attributes: map[string]string{"reclaimed": fmt.Sprint(report.SpaceReclaimed)}}})
	return report, nil
}

// localDriver is the one whose volumes are pruned, as in Docker: others' may be
// shared with machines that use them.
const localDriver = "local"

// size is what a volume occupies; -1 if nobody can tell.
func (s *Service) size(ctx context.Context, r Record) int64 {
	driver, err := s.Driver(r.Driver)
	if err != nil {
		return -1
	}
	usage, err := driver.Usage(ctx, r.Name)
	if err != nil {
		return -1
	}
	return usage.Size
}

// Size implements the engine's Volumes.
func (s *Service) Size(ctx context.Context, name string) int64 {
	r, ok := s.get(name)
	if !ok {
		return -1
	}
	return s.size(ctx, r)
}
