package image

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/image/archive"
	"github.com/davit-engine/davit/core/plugin"
)

// Load reads images from an archive of docker save, or of an OCI image layout,
// compressed or not; with a platform only that of each. An image is unpacked and so
// proven before it is named.
func (s *Store) Load(ctx context.Context, in io.Reader, platform *ocispec.Platform, out func(jsonstream.Message) error) (err error) {
	if err := s.Policy.Archive(); err != nil {
		return err
	}
	ctx, done, err := s.leased(ctx)
	if err != nil {
		return err
	}
	defer s.collectAfter(ctx, done, &err)
	list, err := archive.Read(ctx, s.content, in)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return errdefs.ErrInvalidArgument.WithMessage("the archive holds no images")
	}
	for _, img := range list {
		if err := s.loadImage(ctx, img, platform, newProgress(out)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) loadImage(ctx context.Context, loaded archive.Image, platform *ocispec.Platform, out *progress) error {
	target := loaded.Target
	if platform != nil {
		chosen, err := s.ofPlatform(ctx, target, *platform)
		if err != nil {
			return err
		}
		target = chosen
	}
	missing, err := s.missing(ctx, target)
	if err != nil {
		return fmt.Errorf("reading image %s: %w", target.Digest, err)
	}
	if missing != nil {
		return fmt.Errorf("the archive lacks blob %s of image %s: %w", missing.Digest, target.Digest, errdefs.ErrInvalidArgument)
	}
	if err := s.link(ctx, target); err != nil {
		return err
	}
	img, err := s.read(ctx, target)
	if err != nil {
		return fmt.Errorf("reading image %s: %w", target.Digest, err)
	}
	if _, err := s.unpack(ctx, *img, s.Drivers.Default(plugin.Storage), func(int, string) {}); err != nil {
		return err
	}
	if len(loaded.Names) == 0 {
		if !s.known(img) { // else it has a name here
			if _, err := s.name(ctx, dangling+target.Digest.String(), target, nil); err != nil {
				return err
			}
		}
		out.send(jsonstream.Message{Stream: "Loaded image ID: " + img.ID.String() + "\n"})
	}
	for _, name := range loaded.Names {
		if _, err := s.name(ctx, name, target, nil); err != nil {
			return err
		}
		shown := name
		if named, err := reference.ParseNormalizedNamed(name); err == nil {
			shown = reference.FamiliarString(named)
		}
		out.send(jsonstream.Message{Stream: "Loaded image: " + shown + "\n"})
	}
	s.event(events.ActionLoad, img.ID.String(), img.ID.String())
	return out.err()
}

func (s *Store) known(img *Image) bool {
	s.reading.RLock()
	defer s.reading.RUnlock()
	return s.index.byID[img.ID] != nil
}

// missing finds a blob that an image needs on this platform and that is not here.
func (s *Store) missing(ctx context.Context, target ocispec.Descriptor) (*ocispec.Descriptor, error) {
	if images.IsIndexType(target.MediaType) {
		chosen, err := s.platformManifest(ctx, target)
		if err != nil {
			return nil, err
		}
		target = chosen
	}
	m, err := s.manifest(ctx, target)
	if err != nil {
		return nil, err
	}
	for _, d := range append(slices.Clone(m.Layers), m.Config) {
		if _, err := s.content.Info(ctx, d.Digest); errdefs.IsNotFound(err) {
			return &d, nil
		} else if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// ofPlatform is the manifest of an image for a platform. ErrNotFound if the image
// has none, or it is not here.
func (s *Store) ofPlatform(ctx context.Context, target ocispec.Descriptor, platform ocispec.Platform) (ocispec.Descriptor, error) {
	matcher := platforms.OnlyStrict(platform)
	candidates := []ocispec.Descriptor{target}
	if images.IsIndexType(target.MediaType) {
		var list ocispec.Index
		if err := s.readJSON(ctx, target, &list); err != nil {
			return target, err
		}
		candidates = list.Manifests
	}
	for _, d := range candidates {
		if !isImage(d) || d.Platform != nil && !matcher.Match(*d.Platform) {
			continue
		}
		if missing, err := s.missing(ctx, d); errdefs.IsNotFound(err) || err == nil && missing != nil {
			continue
		} else if err != nil {
			return target, err
		}
		img, err := s.read(ctx, d)
		if err != nil {
			return target, err
		}
		if matcher.Match(platforms.Normalize(img.Config.Platform)) {
			return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, nil
		}
	}
	return target, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("image %s does not provide the specified platform (%s)", target.Digest, platforms.FormatAll(platform)))
}
