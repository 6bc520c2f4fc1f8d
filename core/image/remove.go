package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/image-spec/identity"
	"go.etcd.io/bbolt"

	"github.com/davit-engine/davit/core/event"
	"github.com/davit-engine/davit/core/filter"
)

// Tag gives an image a further name.
func (s *Store) Tag(ctx context.Context, ref, name string) error {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return errdefs.ErrInvalidArgument.WithMessage("invalid reference format")
	}
	if _, ok := named.(reference.Digested); ok {
		return errdefs.ErrInvalidArgument.WithMessage("refusing to create a tag with a digest reference")
	}
	named = reference.TagNameOnly(named)
	s.changing.Lock()
	defer s.changing.Unlock()
	img, _, err := s.find(ref)
	if err != nil {
		return err
	}
	if _, err := s.nameLocked(scope(ctx), named.String(), img.Target, nil); err != nil {
		return err
	}
	s.event(events.ActionTag, img.ID.String(), reference.FamiliarString(named))
	return nil
}

// Remove takes a name away, and deletes the image with its last one.
func (s *Store) Remove(ctx context.Context, ref string, force, noPrune bool, inUse InUse) ([]mobyimage.DeleteResponse, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	ctx = scope(ctx)
	img, name, err := s.find(ref)
	if damaged := s.damagedName(ref); err != nil && damaged != "" {
		defer s.collect(ctx)
		return s.removeDamaged(ctx, damaged)
	}
	if err != nil {
		return nil, err
	}
	names := s.namesOf(img)
	container, running := inUse(img.ID.String())
	if name != "" && len(names) > 1 {
		return s.untag(ctx, img, []string{name})
	}
	short := img.ID.Encoded()[:12]
	if name != "" && container != "" {
		// The last name of an image in use.
		if !force {
			return nil, errdefs.ErrConflict.WithMessage(fmt.Sprintf("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s", ref, container, short))
		}
		if running {
			deleted, err := s.untag(ctx, img, []string{name})
			return deleted, err
		}
	}
	switch {
	case running:
		return nil, errdefs.ErrConflict.WithMessage(fmt.Sprintf("conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", short, container))
	case force:
	case name == "" && len(repositories(img)) > 1:
		return nil, errdefs.ErrConflict.WithMessage(fmt.Sprintf("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", short))
	case container != "":
		return nil, errdefs.ErrConflict.WithMessage(fmt.Sprintf("conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", short, container))
	}
	_ = noPrune // images have no parents here that could be kept
	defer s.collect(ctx)
	report, _, err := s.delete(ctx, img, names)
	return report, err
}

// namesOf are the full names of an image, hidden ones too.
func (s *Store) namesOf(img *Image) []string {
	s.reading.RLock()
	defer s.reading.RUnlock()
	var names []string
	for name, other := range s.index.byName {
		if other.ID == img.ID {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func repositories(img *Image) []string {
	var list []string
	for _, tag := range img.RepoTags {
		repository := tag[:strings.LastIndexByte(tag, ':')]
		if !slices.Contains(list, repository) {
			list = append(list, repository)
		}
	}
	return list
}

// untag removes names; an image without any keeps a hidden one.
func (s *Store) untag(ctx context.Context, img *Image, names []string) ([]mobyimage.DeleteResponse, error) {
	if err := s.dropNames(ctx, names, func(ctx context.Context) error { return s.keep(ctx, img.Target) }); err != nil {
		return nil, err
	}
	return s.untagged(img, names), s.refresh(ctx)
}

// dropNames removes names and does what belongs to that in the same transaction.
func (s *Store) dropNames(ctx context.Context, names []string, then func(context.Context) error) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		for _, name := range names {
			if err := s.names.Delete(ctx, name); ignoreNotFound(err) != nil {
				return err
			}
		}
		return then(ctx)
	})
	if err != nil {
		return fmt.Errorf("removing names of an image: %w", err)
	}
	return nil
}

// untagged tells of names that are gone.
func (s *Store) untagged(img *Image, names []string) (report []mobyimage.DeleteResponse) {
	for _, name := range names {
		if strings.HasPrefix(name, dangling) {
			continue
		}
		familiar := familiar(name)
		report = append(report, mobyimage.DeleteResponse{Untagged: familiar})
		s.event(events.ActionUnTag, img.ID.String(), familiar)
	}
	return report
}

// delete removes an image with all its names and its layers, and answers the size of
// the layers that are gone. Its blobs go with the collection that the caller does.
func (s *Store) delete(ctx context.Context, img *Image, names []string) (report []mobyimage.DeleteResponse, freed int64, err error) {
	sizes := s.layerSizes(ctx, img)
	all := append(slices.Clone(names), dangling+img.Target.Digest.String())
	if err := s.dropNames(ctx, all, func(context.Context) error { return nil }); err != nil {
		return nil, 0, err
	}
	report = s.untagged(img, names)
	for _, digest := range img.RepoDigests {
		report = append(report, mobyimage.DeleteResponse{Untagged: digest})
	}
	if err := s.refresh(ctx); err != nil {
		return report, 0, err
	}
	report = append(report, mobyimage.DeleteResponse{Deleted: img.ID.String()})
	s.event(events.ActionDelete, img.ID.String(), img.ID.String())
	used := s.chains()
	chain := identity.ChainIDs(slices.Clone(img.Config.RootFS.DiffIDs))
	for i, id := range slices.Backward(chain) {
		if used[id.String()] {
			break // and all below it
		}
		removed, err := s.removeLayer(ctx, id.String())
		if err != nil {
			s.Log.Error("removing a layer", "layer", id, "error", err)
			continue
		}
		if !removed {
			continue // a container stands on it, perhaps only in one driver
		}
		report = append(report, mobyimage.DeleteResponse{Deleted: id.String()})
		if i < len(sizes) {
			freed += sizes[i]
		}
	}
	return report, freed, nil
}

// layerSizes are the sizes of an image's layers; none if they cannot be known.
func (s *Store) layerSizes(ctx context.Context, img *Image) (sizes []int64) {
	manifest, err := s.manifest(ctx, img.Manifest)
	if err != nil {
		return nil // damaged, and about to be removed
	}
	for _, layer := range manifest.Layers {
		sizes = append(sizes, s.layerSize(ctx, layer))
	}
	return sizes
}

// chains are the chain IDs of all images.
func (s *Store) chains() map[string]bool {
	s.reading.RLock()
	defer s.reading.RUnlock()
	used := map[string]bool{}
	for _, img := range s.index.byID {
		for _, id := range identity.ChainIDs(slices.Clone(img.Config.RootFS.DiffIDs)) {
			used[id.String()] = true
		}
	}
	return used
}

// removeLayer removes a layer from all storage drivers. One that a container
// stands on, or an operation counts on, stays until a later sweep.
func (s *Store) removeLayer(ctx context.Context, name string) (removed bool, failed error) {
	done, ok := s.snapshots.remove(name)
	if !ok {
		s.Collect()
		return false, nil
	}
	defer done()
	removed = true
	for _, driverName := range s.storageDrivers() {
		driver, err := s.Drivers.Storage(driverName)
		if err == nil {
			err = driver.Remove(ctx, name)
		}
		if errdefs.IsFailedPrecondition(err) {
			removed = false
		} else if err != nil && !errdefs.IsNotFound(err) {
			failed = errors.Join(failed, fmt.Errorf("storage driver %s: %w", driverName, err))
		}
	}
	return removed, failed
}

// Prune deletes images that no container uses: those without a name, or with
// dangling=false all. What is left of downloads that did not end goes, too.
func (s *Store) Prune(ctx context.Context, f filter.Args, inUse InUse) (mobyimage.PruneReport, error) {
	report := mobyimage.PruneReport{ImagesDeleted: []mobyimage.DeleteResponse{}}
	if err := f.Validate("dangling", "label", "label!", "until"); err != nil {
		return report, err
	}
	onlyDangling, err := f.Bool("dangling", true)
	if err != nil {
		return report, err
	}
	until, err := event.Until(f)
	if err != nil {
		return report, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	ctx = scope(ctx)
	for _, img := range s.all() {
		if onlyDangling && len(img.RepoTags)+len(img.RepoDigests) > 0 || !f.Labels("label", img.Config.Config.Labels) {
			continue
		}
		if f.Has("label!") && f.Labels("label!", img.Config.Config.Labels) {
			continue
		}
		if !until.IsZero() && (img.Config.Created == nil || img.Config.Created.After(until)) {
			continue
		}
		if container, _ := inUse(img.ID.String()); container != "" {
			continue
		}
		deleted, freed, err := s.delete(ctx, img, s.namesOf(img))
		report.ImagesDeleted = append(report.ImagesDeleted, deleted...)
		if err != nil {
			return report, err
		}
		report.SpaceReclaimed += uint64(freed)
	}
	if !f.Has("label") && !f.Has("label!") && until.IsZero() { // of others nobody knows that
		deleted, err := s.pruneDamaged(ctx, onlyDangling)
		report.ImagesDeleted = append(report.ImagesDeleted, deleted...)
		if err != nil {
			return report, err
		}
	}
	unfinished, err := s.fetcher.DropUnfinished(ctx)
	if err != nil {
		return report, err
	}
	report.SpaceReclaimed += uint64(unfinished)
	if err := s.forgetUnfinished(ctx); err != nil {
		return report, err
	}
	s.sweepAll(ctx)
	s.collect(ctx)
	s.Emit(events.Message{Type: events.ImageEventType, Action: events.ActionPrune, Actor: events.Actor{Attributes: map[string]string{"reclaimed": fmt.Sprint(report.SpaceReclaimed)}}})
	return report, nil
}
