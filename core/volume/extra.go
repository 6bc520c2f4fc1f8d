package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	mobyvolume "github.com/moby/moby/api/types/volume"

	"github.com/davit-engine/davit/sdk/volume"
)

// copyLimit bounds a clone: data takes its time.
const copyLimit = 6 * time.Hour

// Events of what Docker does not do.
const (
	actionClone  events.Action = "clone"
	actionRename events.Action = "rename"
	actionResize events.Action = "resize"
)

// lacks says that a driver has not learned something.
func lacks(r Record, what string) error {
	return fmt.Errorf("driver %s does not %s volumes: %w", r.Driver, what, errdefs.ErrNotImplemented)
}

// idle refuses a volume that running containers use, or that is just being used.
func (s *Service) idle(name, what string, running func(string) []string) error {
	ids := append(s.reservedBy(name), running(name)...)
	if len(ids) > 0 {
		return errdefs.ErrConflict.WithMessage(fmt.Sprintf("%s %s: volume is in use by running containers - [%s]", what, name, strings.Join(ids, ", ")))
	}
	return nil
}

// vacant refuses a name that another volume has.
func (s *Service) vacant(name string) error {
	if other, taken := s.get(name); taken && !other.Pending {
		return errdefs.ErrConflict.WithMessage(fmt.Sprintf("a volume named %s already exists: choose another name", name))
	}
	return nil
}

// Clone implements the engine's Volumes.
func (s *Service) Clone(ctx context.Context, source, name string, labels map[string]string, force bool, running func(string) []string) (mobyvolume.Volume, error) {
	if name == "" {
		return mobyvolume.Volume{}, errdefs.ErrInvalidArgument.WithMessage("a clone needs a name")
	}
	give, err := s.turns.take(ctx, source, name)
	if err != nil {
		return mobyvolume.Volume{}, err
	}
	defer give()
	from, driver, err := s.find(source)
	if err != nil {
		return mobyvolume.Volume{}, err
	}
	if err := s.vacant(name); err != nil {
		return mobyvolume.Volume{}, err
	}
	if !force {
		if err := s.idle(source, "clone", running); err != nil {
			return mobyvolume.Volume{}, err
		}
	}
	cloner, ok := driver.(volume.Cloner)
	if !ok {
		return mobyvolume.Volume{}, lacks(from, "clone")
	}
	ctx, cancel := context.WithTimeout(ctx, copyLimit)
	defer cancel()
	r, err := s.record(ctx, Record{Name: name, Driver: from.Driver, Options: from.Options, Labels: labels}, func() (volume.Volume, error) {
		return cloner.Clone(ctx, source, name, labels)
	})
	if err != nil {
		return mobyvolume.Volume{}, err
	}
	s.emit(from, actionClone, map[string]string{"clone": name})
	return show(r), nil
}

// Rename implements the engine's Volumes. The new record says what is going on
// until the containers that have the volume know its new name: a crash in between
// is found by it.
func (s *Service) Rename(ctx context.Context, name, newName string, running func(string) []string, moved func(Renamed) error) (mobyvolume.Volume, error) {
	if newName == "" {
		return mobyvolume.Volume{}, errdefs.ErrInvalidArgument.WithMessage("a volume needs a name")
	}
	give, err := s.turns.take(ctx, name, newName)
	if err != nil {
		return mobyvolume.Volume{}, err
	}
	defer give()
	r, driver, err := s.find(name)
	if err != nil {
		return mobyvolume.Volume{}, err
	}
	if err := s.vacant(newName); err != nil {
		return mobyvolume.Volume{}, err
	}
	if err := s.idle(name, "rename", running); err != nil {
		return mobyvolume.Volume{}, err
	}
	renamer, ok := driver.(volume.Renamer)
	if !ok {
		return mobyvolume.Volume{}, lacks(r, "rename")
	}
	r.Name, r.RenamedFrom, r.Pending, r.Anonymous, r.Owner = newName, name, true, false, ""
	if err := s.records.Put(newName, r); err != nil {
		return mobyvolume.Volume{}, err
	}
	renamed, err := renamer.Rename(ctx, name, newName)
	if err != nil {
		if ctx.Err() != nil || errdefs.IsUnavailable(err) {
			return mobyvolume.Volume{}, err // the next start finds out, or the next attempt
		}
		return mobyvolume.Volume{}, errors.Join(fmt.Errorf("rename %s: %w", name, err), s.records.Delete(newName))
	}
	r.Pending, r.Mountpoint = false, renamed.Mountpoint
	if err := s.finishRename(r, moved); err != nil {
		return mobyvolume.Volume{}, err
	}
	s.emit(r, actionRename, map[string]string{"oldName": name})
	return s.Inspect(ctx, newName)
}

// Renamed is a volume whose containers have to learn its new name.
type Renamed struct{ Old, New, Mountpoint string }

// finishRename lets a renamed volume be known by its new name only.
func (s *Service) finishRename(r Record, moved func(Renamed) error) error {
	if err := s.records.Put(r.Name, r); err != nil {
		return err
	}
	old := r.RenamedFrom
	s.mu.Lock()
	s.all[r.Name] = r
	delete(s.all, old)
	s.mu.Unlock()
	if err := moved(Renamed{Old: old, New: r.Name, Mountpoint: r.Mountpoint}); err != nil {
		return fmt.Errorf("volume %s is now %s, but not in all containers that have it: %w", old, r.Name, err)
	}
	if err := s.records.Delete(old); err != nil {
		return err
	}
	r.RenamedFrom = ""
	if err := s.records.Put(r.Name, r); err != nil {
		return err
	}
	s.remember(r)
	return nil
}

// FinishRenames implements the engine's Volumes: after a start, for renames that
// a crash cut off.
func (s *Service) FinishRenames(moved func(Renamed) error) error {
	s.mu.RLock()
	var cut []Record
	for _, r := range s.all {
		if r.RenamedFrom != "" && !r.Pending {
			cut = append(cut, r)
		}
	}
	s.mu.RUnlock()
	var errs []error
	for _, r := range cut {
		errs = append(errs, s.finishRename(r, moved))
	}
	return errors.Join(errs...)
}

// Resize implements the engine's Volumes.
func (s *Service) Resize(ctx context.Context, name string, size int64) (mobyvolume.Volume, error) {
	give, err := s.turns.take(ctx, name)
	if err != nil {
		return mobyvolume.Volume{}, err
	}
	defer give()
	r, driver, err := s.find(name)
	if err != nil {
		return mobyvolume.Volume{}, err
	}
	resizer, ok := driver.(volume.Resizer)
	if !ok {
		return mobyvolume.Volume{}, lacks(r, "resize")
	}
	resized, err := resizer.Resize(ctx, name, size)
	if err != nil {
		return mobyvolume.Volume{}, fmt.Errorf("resize %s: %w", name, err)
	}
	r.Options = maps.Clone(resized.Options)
	if err := s.records.Put(name, r); err != nil {
		return mobyvolume.Volume{}, err
	}
	s.remember(r)
	s.emit(r, actionResize, map[string]string{"size": strconv.FormatInt(size, 10)})
	return show(r), nil
}
