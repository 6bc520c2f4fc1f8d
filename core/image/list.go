package image

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/event"
	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/core/plugin"
)

// all answers the images, newest first.
func (s *Store) all() []*Image {
	s.reading.RLock()
	defer s.reading.RUnlock()
	list := make([]*Image, 0, len(s.index.byID))
	for _, img := range s.index.byID {
		list = append(list, img)
	}
	slices.SortFunc(list, func(a, b *Image) int { return b.created().Compare(a.created()) })
	return list
}

func (img *Image) created() time.Time {
	if img.Config.Created == nil {
		return time.Time{}
	}
	return *img.Config.Created
}

// List answers the images that filters select.
func (s *Store) List(_ context.Context, f filter.Args) ([]Image, error) {
	if err := f.Validate("dangling", "label", "before", "since", "reference", "until"); err != nil {
		return nil, err
	}
	isDangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	until, err := event.Until(f)
	if err != nil {
		return nil, err
	}
	bound := func(field string) (at time.Time, err error) {
		if f.Has(field) {
			img, _, err := s.find(f[field][0])
			if err != nil {
				return at, err
			}
			return img.created(), nil
		}
		return at, nil
	}
	before, err := bound("before")
	if err != nil {
		return nil, err
	}
	since, err := bound("since")
	if err != nil {
		return nil, err
	}
	list := []Image{}
	for _, img := range s.all() {
		switch {
		case f.Has("dangling") && isDangling != (len(img.RepoTags) == 0),
			!f.Labels("label", img.Config.Config.Labels),
			!until.IsZero() && !img.created().Before(until),
			!before.IsZero() && !img.created().Before(before),
			!since.IsZero() && !img.created().After(since):
			continue
		}
		shown := *img
		if f.Has("reference") {
			keep := func(name string) bool { return !matches(f["reference"], name) }
			shown.RepoTags = slices.DeleteFunc(slices.Clone(img.RepoTags), keep)
			shown.RepoDigests = slices.DeleteFunc(slices.Clone(img.RepoDigests), keep)
			if len(shown.RepoTags)+len(shown.RepoDigests) == 0 {
				continue
			}
		}
		list = append(list, shown)
	}
	return list, nil
}

func matches(patterns []string, name string) bool {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := reference.FamiliarMatch(pattern, named)
		return err == nil && ok
	})
}

// resolveFor is Resolve for one of the platforms that an image has here; nil stands
// for the host's.
func (s *Store) resolveFor(ctx context.Context, ref string, platform *ocispec.Platform) (Image, error) {
	img, err := s.Resolve(ctx, ref)
	if err != nil || platform == nil {
		return img, err
	}
	chosen, err := s.ofPlatform(ctx, img.Target, *platform)
	if errdefs.IsNotFound(err) {
		err = withoutPlatform(ref, *platform)
	}
	if err != nil {
		return img, err
	}
	one, err := s.read(ctx, chosen)
	if err != nil {
		return img, err
	}
	result := *one
	result.Target, result.RepoTags, result.RepoDigests = img.Target, img.RepoTags, img.RepoDigests
	return result, nil
}

// withoutPlatform is Docker's text for an image that is here for others.
func withoutPlatform(ref string, platform ocispec.Platform) error {
	return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("image with reference %s was found but does not provide the specified platform (%s)", ref, platforms.FormatAll(platform)))
}

// Inspect describes an image.
func (s *Store) Inspect(ctx context.Context, ref string, platform *ocispec.Platform) (mobyimage.InspectResponse, error) {
	img, err := s.resolveFor(scope(ctx), ref, platform)
	if err != nil {
		return mobyimage.InspectResponse{}, err
	}
	target := img.Target
	response := mobyimage.InspectResponse{
		ID: img.ID.String(), RepoTags: notNil(img.RepoTags), RepoDigests: notNil(img.RepoDigests), Author: img.Config.Author, Config: &img.Config.Config,
		Architecture: img.Config.Architecture, Variant: img.Config.Variant, Os: img.Config.OS, OsVersion: img.Config.OSVersion,
		Size: img.Size, RootFS: mobyimage.RootFS{Type: img.Config.RootFS.Type}, Descriptor: &target,
		GraphDriver: &storage.DriverData{Name: s.Drivers.Default(plugin.Storage)},
	}
	if img.Config.Created != nil {
		response.Created = img.Config.Created.Format(time.RFC3339Nano)
	}
	if history := img.Config.History; len(history) > 0 {
		response.Comment = history[len(history)-1].Comment
	}
	for _, id := range img.Config.RootFS.DiffIDs {
		response.RootFS.Layers = append(response.RootFS.Layers, id.String())
	}
	if named, err := s.names.Get(scope(ctx), firstName(s.namesOf(&img))); err == nil {
		response.Metadata.LastTagTime = named.UpdatedAt
	}
	return response, nil
}

func firstName(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// History tells how an image was made, newest first. Only the last step has an
// ID: the others are not images here.
func (s *Store) History(ctx context.Context, ref string, platform *ocispec.Platform) ([]mobyimage.HistoryResponseItem, error) {
	img, err := s.resolveFor(scope(ctx), ref, platform)
	if err != nil {
		return nil, err
	}
	manifest, err := s.manifest(scope(ctx), img.Manifest)
	if err != nil {
		return nil, err
	}
	var list []mobyimage.HistoryResponseItem
	layer := 0
	for _, step := range img.Config.History {
		item := mobyimage.HistoryResponseItem{ID: "<missing>", Comment: step.Comment, CreatedBy: step.CreatedBy}
		if step.Created != nil {
			item.Created = step.Created.Unix()
		}
		if !step.EmptyLayer && layer < len(manifest.Layers) {
			item.Size = s.layerSize(scope(ctx), manifest.Layers[layer])
			layer++
		}
		list = append(list, item)
	}
	slices.Reverse(list)
	if len(list) > 0 {
		list[0].ID, list[0].Tags = img.ID.String(), img.RepoTags
	}
	return list, nil
}
