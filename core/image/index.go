package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/image/blobs"
)

// dangling begins the names of images that have none.
const dangling = "davit-dangling@"

// pulled marks a name that came from a registry: only such a name vouches for a
// digest there.
const pulled = "davit.pulled"

// index is all images in memory: finding one is on the way of every start.
type index struct {
	byID   map[digest.Digest]*Image
	byName map[string]*Image // full names
	// targets keeps what was read of the immutable blobs.
	targets map[digest.Digest]*Image
	// damaged are the full names of images that could not be read, with why.
	damaged map[string]error
}

// refresh reads the names again. The blobs behind a target never change, so they
// are read once.
func (s *Store) refresh(ctx context.Context) error {
	list, err := s.names.List(ctx)
	if err != nil {
		return err
	}
	next := index{byID: map[digest.Digest]*Image{}, byName: map[string]*Image{}, targets: map[digest.Digest]*Image{}, damaged: map[string]error{}}
	for _, record := range list {
		base := s.index.targets[record.Target.Digest]
		if base == nil {
			if base, err = s.read(ctx, record.Target); err != nil {
				if s.index.damaged[record.Name] == nil {
					s.Log.Error("image is damaged: pull or load it again", "image", record.Name, "error", err)
				}
				next.damaged[record.Name] = err
				continue
			}
		}
		next.targets[record.Target.Digest] = base
		img := next.byID[base.ID]
		if img == nil {
			fresh := *base
			img = &fresh
			next.byID[base.ID] = img
		}
		next.byName[record.Name] = img
		img.addName(record)
	}
	for _, img := range next.byID {
		slices.Sort(img.RepoTags)
		slices.Sort(img.RepoDigests)
	}
	s.reading.Lock()
	s.index = next
	s.reading.Unlock()
	return nil
}

func (img *Image) addName(record images.Image) {
	named, err := reference.ParseNormalizedNamed(record.Name)
	if err != nil {
		return // dangling
	}
	if tagged, ok := named.(reference.NamedTagged); ok {
		img.RepoTags = append(img.RepoTags, reference.FamiliarString(tagged))
	}
	if record.Labels[pulled] == "" {
		return
	}
	if full, err := reference.WithDigest(reference.TrimNamed(named), record.Target.Digest); err == nil {
		if name := reference.FamiliarString(full); !slices.Contains(img.RepoDigests, name) {
			img.RepoDigests = append(img.RepoDigests, name)
		}
	}
}

// read makes an image of a target: its manifest for this platform, its config
// and its size.
func (s *Store) read(ctx context.Context, target ocispec.Descriptor) (*Image, error) {
	img := &Image{Target: target}
	manifest, err := s.platformManifest(ctx, target)
	if err != nil {
		return nil, err
	}
	img.Manifest = manifest
	m, err := s.manifest(ctx, manifest)
	if err != nil {
		return nil, err
	}
	img.ID = m.Config.Digest
	if err := s.readJSON(ctx, m.Config, &img.Config); err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	if img.Config.RootFS.Type != "layers" || len(img.Config.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("the configuration names %d layers, the manifest %d: %w", len(img.Config.RootFS.DiffIDs), len(m.Layers), errdefs.ErrInvalidArgument)
	}
	for _, id := range img.Config.RootFS.DiffIDs {
		if err := checkDigest(id); err != nil {
			return nil, fmt.Errorf("image configuration: diff ID: %w", err)
		}
	}
	for _, layer := range m.Layers {
		img.Size += s.layerSize(ctx, layer)
	}
	return img, nil
}

// platformManifest picks the manifest of this host's platform from an index.
func (s *Store) platformManifest(ctx context.Context, target ocispec.Descriptor) (ocispec.Descriptor, error) {
	if !images.IsIndexType(target.MediaType) {
		return target, nil
	}
	var list ocispec.Index
	if err := s.readJSON(ctx, target, &list); err != nil {
		return target, err
	}
	candidates := slices.DeleteFunc(list.Manifests, func(d ocispec.Descriptor) bool {
		if !isImage(d) {
			return true
		}
		_, err := s.content.Info(ctx, d.Digest)
		return err != nil // a platform that was not fetched
	})
	if len(candidates) == 0 {
		return target, fmt.Errorf("no manifest of %s is here: %w", target.Digest, errdefs.ErrNotFound)
	}
	return choose(candidates, platforms.Default()), nil
}

// isImage says whether an entry of an index is an image, and not another index or
// what builders say about one (attestations).
func isImage(d ocispec.Descriptor) bool {
	return images.IsManifestType(d.MediaType) && d.Annotations["vnd.docker.reference.type"] == ""
}

// choose is the best of manifests for a platform, or the first if none fits.
func choose(list []ocispec.Descriptor, matcher platforms.MatchComparer) ocispec.Descriptor {
	list = slices.Clone(list)
	rank := func(d ocispec.Descriptor) int {
		if d.Platform != nil && matcher.Match(*d.Platform) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b ocispec.Descriptor) int {
		if r := cmp.Compare(rank(a), rank(b)); r != 0 || rank(a) != 0 {
			return r
		}
		switch {
		case matcher.Less(*a.Platform, *b.Platform):
			return -1
		case matcher.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return list[0]
}

func (s *Store) manifest(ctx context.Context, d ocispec.Descriptor) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if !images.IsManifestType(d.MediaType) {
		return m, fmt.Errorf("media type %q is not an image manifest: %w", d.MediaType, errdefs.ErrNotImplemented)
	}
	if err := s.readJSON(ctx, d, &m); err != nil {
		return m, err
	}
	for _, blob := range append(slices.Clone(m.Layers), m.Config) {
		if err := checkDigest(blob.Digest); err != nil {
			return m, fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
	}
	return m, nil
}

// checkDigest refuses what others wrote where a digest has to be.
func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w: %w", d, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// maxJSON bounds what is read of a manifest or configuration.
const maxJSON = 8 << 20

func (s *Store) readJSON(ctx context.Context, d ocispec.Descriptor, v any) error {
	if d.Size > maxJSON {
		return fmt.Errorf("%s has %d bytes: %w", d.Digest, d.Size, errdefs.ErrInvalidArgument)
	}
	body, err := content.ReadBlob(ctx, s.content, d)
	if err != nil {
		return err
	}
	if digest.FromBytes(body) != d.Digest {
		lost := &blobs.Lost{Digest: d.Digest, Reason: "is damaged: its content is not what its digest says"}
		return errors.Join(lost, s.blobs.Discard(ctx, d.Digest))
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("blob %s: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// notFound is Docker's answer to an unknown image.
func notFound(ref string) error {
	if named, err := reference.ParseNormalizedNamed(ref); err == nil {
		ref = reference.FamiliarString(reference.TagNameOnly(named))
	}
	return errdefs.ErrNotFound.WithMessage("No such image: " + ref)
}

// Resolve finds an image by ID, name or ID prefix.
func (s *Store) Resolve(_ context.Context, ref string) (Image, error) {
	img, _, err := s.find(ref)
	if err != nil {
		return Image{}, err
	}
	return *img, nil
}

// find answers the full name, too, if ref is one.
func (s *Store) find(ref string) (img *Image, name string, err error) {
	s.reading.RLock()
	defer s.reading.RUnlock()
	hex := strings.TrimPrefix(ref, "sha256:")
	if len(hex) == 64 && isHex(hex) {
		if img := s.index.byDigest(digest.NewDigestFromEncoded(digest.SHA256, hex)); img != nil {
			return img, "", nil
		}
	}
	if named, err := reference.ParseNormalizedNamed(ref); err == nil {
		if img, name := s.index.named(named); img != nil {
			return img, name, nil
		}
		if err := s.index.whyDamaged(named); err != nil {
			return nil, "", err
		}
	} else if !isHex(hex) && !errors.Is(err, reference.ErrNameContainsUppercase) {
		return nil, "", errdefs.ErrInvalidArgument.WithMessage("invalid reference format")
	}
	if !isHex(hex) || hex == "" {
		return nil, "", notFound(ref)
	}
	var found *Image
	for id, img := range s.index.byID {
		if !strings.HasPrefix(id.Encoded(), hex) {
			continue
		}
		if found != nil {
			return nil, "", errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("ambiguous reference: %s is the beginning of several image IDs", ref))
		}
		found = img
	}
	if found == nil {
		return nil, "", notFound(ref)
	}
	return found, "", nil
}

// whyDamaged says why an image with the name cannot be read; nil if there is none.
func (i index) whyDamaged(named reference.Named) error {
	err := i.damaged[reference.TagNameOnly(named).String()]
	if err == nil || isLost(err) {
		return incomplete(reference.FamiliarString(named), err)
	}
	return fmt.Errorf("image %s is damaged: pull or load it again: %w", reference.FamiliarString(named), err)
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// byDigest finds an image by its ID or by the digest of its manifest or index.
func (i index) byDigest(d digest.Digest) *Image {
	if img := i.byID[d]; img != nil {
		return img
	}
	for img := range maps.Values(i.byID) {
		if img.Manifest.Digest == d || img.Target.Digest == d {
			return img
		}
	}
	return nil
}

func (i index) named(named reference.Named) (*Image, string) {
	if digested, ok := named.(reference.Digested); ok {
		if img := i.byName[named.String()]; img != nil {
			return img, named.String()
		}
		want := reference.FamiliarName(named) + "@" + digested.Digest().String()
		for name, img := range i.byName {
			if slices.Contains(img.RepoDigests, want) {
				return img, name
			}
		}
		return nil, ""
	}
	name := reference.TagNameOnly(named).String()
	return i.byName[name], name
}
