package image

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/image/archive"
)

// Save answers a function that writes images as one archive which both docker load
// and OCI tools read: with a platform only that of each, else an index where more
// than one of its platforms is here. A name without a tag stands for all tags of the
// repository. Errors before anything is written are Save's own.
func (s *Store) Save(ctx context.Context, refs []string, platform *ocispec.Platform) (func(io.Writer) error, error) {
	ctx = scope(ctx)
	var list []archive.Saved
	var ids []string
	for _, ref := range refs {
		found, err := s.selected(ref)
		if err != nil {
			return nil, err
		}
		for _, one := range found {
			saved, err := s.saved(ctx, one.img, ref, platform)
			if err == nil {
				err = s.whole(ctx, ref, saved.Manifest)
			}
			if err != nil {
				return nil, incomplete(ref, err)
			}
			i := slices.IndexFunc(list, func(other archive.Saved) bool { return other.Target.Digest == saved.Target.Digest })
			if i < 0 {
				ids = append(ids, one.img.ID.String())
				list = append(list, saved)
				i = len(list) - 1
			}
			if one.name != "" && !slices.Contains(list[i].Names, one.name) {
				list[i].Names = append(list[i].Names, one.name)
			}
		}
	}
	return func(out io.Writer) error {
		ctx, done, err := s.leased(ctx)
		if err != nil {
			return err
		}
		defer done()
		// An image that is removed meanwhile stays until it is written.
		for _, img := range list {
			if err := s.holdTree(ctx, img.Target); err != nil {
				return fmt.Errorf("saving images: %w", err)
			}
		}
		if err := archive.Write(ctx, s.content, list, out); err != nil {
			return fmt.Errorf("saving images: %w", err)
		}
		for _, id := range ids {
			s.event(events.ActionSave, id, id)
		}
		return nil
	}, nil
}

// holdTree keeps a blob, and what it needs and is here, while ctx's lease lasts.
func (s *Store) holdTree(ctx context.Context, d ocispec.Descriptor) error {
	return images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if _, err := s.content.Info(ctx, d.Digest); errdefs.IsNotFound(err) {
			return nil, images.ErrSkipDesc
		} else if err != nil {
			return nil, err
		}
		if err := s.hold(ctx, d); err != nil {
			return nil, err
		}
		return images.Children(ctx, s.content, d)
	}), d)
}

type selection struct {
	img  *Image
	name string // full, with a tag; empty for an image that was named by its ID or digest
}

// selected are the images that an argument of save means.
func (s *Store) selected(ref string) ([]selection, error) {
	if named, err := reference.ParseNormalizedNamed(ref); err == nil && reference.IsNameOnly(named) {
		if list := s.tagsOf(named); len(list) > 0 {
			return list, nil
		}
	}
	img, name, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	if named, err := reference.ParseNormalizedNamed(name); err != nil {
		name = ""
	} else if _, ok := named.(reference.Digested); ok {
		name = ""
	}
	return []selection{{img, name}}, nil
}

// tagsOf are the images with a repository's tags, by tag.
func (s *Store) tagsOf(repository reference.Named) (list []selection) {
	s.reading.RLock()
	defer s.reading.RUnlock()
	for name, img := range s.index.byName {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil || named.Name() != repository.Name() {
			continue
		}
		if _, ok := named.(reference.NamedTagged); ok {
			list = append(list, selection{img, name})
		}
	}
	slices.SortFunc(list, func(a, b selection) int { return strings.Compare(a.name, b.name) })
	return list
}

// saved says what of an image is written.
func (s *Store) saved(ctx context.Context, img *Image, ref string, platform *ocispec.Platform) (saved archive.Saved, err error) {
	saved.Target, saved.Manifest = img.Manifest, img.Manifest
	if platform != nil {
		chosen, err := s.ofPlatform(ctx, img.Target, *platform)
		if errdefs.IsNotFound(err) {
			return saved, withoutPlatform(ref, *platform)
		}
		if err != nil {
			return saved, err
		}
		saved.Target, saved.Manifest = chosen, chosen
	} else if images.IsIndexType(img.Target.MediaType) {
		here, err := s.platformsHere(ctx, img.Target)
		if err != nil {
			return saved, err
		}
		if here > 1 {
			saved.Target = img.Target
			return saved, nil
		}
	}
	one, err := s.read(ctx, saved.Manifest)
	if err != nil {
		return saved, err
	}
	normal := platforms.Normalize(one.Config.Platform)
	saved.Target = ocispec.Descriptor{MediaType: saved.Manifest.MediaType, Digest: saved.Manifest.Digest, Size: saved.Manifest.Size, Platform: &normal}
	return saved, nil
}

// platformsHere counts the images of an index that are complete.
func (s *Store) platformsHere(ctx context.Context, target ocispec.Descriptor) (n int, err error) {
	var list ocispec.Index
	if err := s.readJSON(ctx, target, &list); err != nil {
		return 0, err
	}
	for _, d := range list.Manifests {
		if !isImage(d) {
			continue
		}
		missing, err := s.missing(ctx, d)
		if err != nil && !errdefs.IsNotFound(err) {
			return n, err
		}
		if err == nil && missing == nil {
			n++
		}
	}
	return n, nil
}
