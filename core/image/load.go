package image

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/plugin"
)

// Load reads images from an archive of docker save, or of an OCI image layout,
// compressed or not. Each image is unpacked and so proven before it is named.
func (s *Store) Load(ctx context.Context, in io.Reader, quiet bool, out func(jsonstream.Message) error) error {
	ctx, done, err := s.leased(ctx)
	if err != nil {
		return err
	}
	defer done()
	plain, err := compression.DecompressStream(in)
	if err != nil {
		return fmt.Errorf("reading the archive: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	defer func() { _ = plain.Close() }()
	list, err := archive.ImportIndex(ctx, s.content, plain)
	if err != nil {
		if !isHostError(err) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		return fmt.Errorf("reading the archive: %w", err)
	}
	var top ocispec.Index
	if err := s.readJSON(ctx, list, &top); err != nil {
		return err
	}
	if len(top.Manifests) == 0 {
		return fmt.Errorf("the archive holds no images: %w", errdefs.ErrInvalidArgument)
	}
	for _, target := range top.Manifests {
		if err := s.loadImage(ctx, target, newProgress(out)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) loadImage(ctx context.Context, target ocispec.Descriptor, out *progress) error {
	reading := ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	missing, err := s.missing(ctx, reading)
	if err != nil {
		return fmt.Errorf("reading image %s: %w", target.Digest, err)
	}
	if missing != nil {
		return fmt.Errorf("the archive lacks blob %s of image %s: %w", missing.Digest, target.Digest, errdefs.ErrInvalidArgument)
	}
	if err := s.link(ctx, reading); err != nil {
		return err
	}
	img, err := s.read(ctx, reading)
	if err != nil {
		return err
	}
	if _, err := s.unpack(ctx, *img, s.Drivers.Default(plugin.Storage), func(int, string) {}); err != nil {
		return err
	}
	full, shown := archivedName(target)
	if full == "" {
		full, shown = dangling+target.Digest.String(), ""
		if s.known(img) {
			full = "" // it has a name here
		}
	}
	if full != "" {
		if _, err := s.name(ctx, full, reading, nil); err != nil {
			return err
		}
	}
	s.event(events.ActionLoad, img.ID.String(), img.ID.String())
	if shown != "" {
		out.send(jsonstream.Message{Stream: "Loaded image: " + shown + "\n"})
	} else {
		out.send(jsonstream.Message{Stream: "Loaded image ID: " + img.ID.String() + "\n"})
	}
	return out.err()
}

func (s *Store) known(img *Image) bool {
	s.reading.RLock()
	defer s.reading.RUnlock()
	return s.index.byID[img.ID] != nil
}

// archivedName is what an archive calls an image: containerd's full name, or the
// tag that OCI layouts give.
func archivedName(d ocispec.Descriptor) (full, familiar string) {
	for _, key := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
		named, err := reference.ParseNormalizedNamed(d.Annotations[key])
		if err != nil {
			continue
		}
		named = reference.TagNameOnly(named)
		return named.String(), reference.FamiliarString(named)
	}
	return "", ""
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

// Save writes images as one archive that both docker load and OCI tools read.
func (s *Store) Save(ctx context.Context, refs []string, out io.Writer) error {
	ctx = scope(ctx)
	type entry struct {
		manifest ocispec.Descriptor
		names    []string
	}
	var entries []*entry
	for _, ref := range refs {
		img, name, err := s.find(ref)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(entries, func(e *entry) bool { return e.manifest.Digest == img.Manifest.Digest })
		if i < 0 {
			platform := platforms.Normalize(img.Config.Platform)
			manifest := img.Manifest
			manifest.Platform = &platform
			entries = append(entries, &entry{manifest: manifest})
			i = len(entries) - 1
		}
		if name != "" && !slices.Contains(entries[i].names, name) {
			entries[i].names = append(entries[i].names, name)
		}
	}
	var options []archive.ExportOpt
	for _, e := range entries {
		options = append(options, archive.WithManifest(e.manifest, e.names...))
	}
	if err := archive.Export(ctx, s.content, out, append(options, archive.WithAllPlatforms())...); err != nil {
		return fmt.Errorf("saving images: %w", err)
	}
	return nil
}
