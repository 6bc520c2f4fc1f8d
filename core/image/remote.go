package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	mobyregistry "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/core/registry"
)

// Remote is what a registry has under a name: a manifest or an index.
type Remote struct {
	mobyregistry.DistributionInspect
	Raw []byte // the document itself
}

// AskRegistry describes an image of a registry without fetching it. The mirrors of
// the registry are asked first. Insecure allows to do without TLS this once.
func (s *Store) AskRegistry(ctx context.Context, ref string, insecure bool, auth *mobyregistry.AuthConfig) (Remote, error) {
	var r Remote
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return r, errdefs.ErrInvalidArgument.WithMessage("invalid reference format")
	}
	named = reference.TagNameOnly(named)
	label := labelOf(named)
	registries := s.Registries
	if insecure {
		registries = registries.Insecurely(reference.Domain(named))
	}
	sources, err := registries.ForPull(named, auth)
	if err != nil {
		return r, err
	}
	for _, source := range sources {
		if r.Raw, r.Descriptor, err = source.Manifest(ctx, label); err != nil {
			continue // the registry itself is the last
		}
		r.Platforms, err = offered(ctx, source, r.Descriptor, r.Raw)
		if err == nil {
			return r, nil
		}
	}
	return r, (&pull{Store: s, named: named, anonymous: isAnonymous(auth)}).explain(err)
}

// offered are the platforms of a manifest, which its configuration knows, or of an
// index.
func offered(ctx context.Context, source *registry.Repository, d ocispec.Descriptor, raw []byte) ([]ocispec.Platform, error) {
	list := []ocispec.Platform{}
	if images.IsIndexType(d.MediaType) {
		var index ocispec.Index
		if err := json.Unmarshal(raw, &index); err != nil {
			return nil, errdefs.ErrInvalidArgument.WithMessage("the index is not JSON: " + err.Error())
		}
		for _, m := range index.Manifests {
			if m.Platform != nil {
				list = append(list, *m.Platform)
			}
		}
		return list, nil
	}
	if registry.IsSchema1(d) {
		return list, nil
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("the manifest is not JSON: " + err.Error())
	}
	if err := registry.CheckDescriptor(m.Config); err != nil {
		return nil, err
	}
	if m.Config.Size > registry.MaxDocument {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("the configuration has %d bytes, more than %d", m.Config.Size, registry.MaxDocument))
	}
	blob, _, err := source.Blob(ctx, m.Config, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = blob.Close() }()
	body, err := io.ReadAll(io.LimitReader(blob, m.Config.Size+1))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if m.Config.Digest.Algorithm().FromBytes(body) != m.Config.Digest {
		return nil, fmt.Errorf("configuration %s: %w", m.Config.Digest, registry.ErrVerification)
	}
	var p ocispec.Platform
	if err := json.Unmarshal(body, &p); err != nil || p.OS == "" && p.Architecture == "" {
		return list, nil // an artifact of another kind
	}
	return append(list, p), nil
}

// Search asks a registry for repositories by a term, and answers those that filters
// select.
func (s *Store) Search(ctx context.Context, term string, limit int, f filter.Args, auth *mobyregistry.AuthConfig) ([]mobyregistry.SearchResult, error) {
	if err := f.Validate("is-automated", "is-official", "stars"); err != nil {
		return nil, err
	}
	automated, err := f.Bool("is-automated", false)
	if err != nil {
		return nil, err
	}
	official, err := f.Bool("is-official", false)
	if err != nil {
		return nil, err
	}
	stars := 0
	for _, text := range f["stars"] {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid filter 'stars=%s'", text))
		}
		stars = max(stars, n)
	}
	if automated {
		return []mobyregistry.SearchResult{}, nil // nothing is, any more
	}
	list, err := s.Registries.Search(ctx, term, limit, auth)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(found mobyregistry.SearchResult) bool {
		return f.Has("is-official") && found.IsOfficial != official || found.StarCount < stars
	}), nil
}
