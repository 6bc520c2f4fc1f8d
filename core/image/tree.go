package image

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/image/layers"
)

// Tree reads an image's layers; with files each path that they change is listed.
// Memory grows with the number of paths, not with their sizes.
func (s *Store) Tree(ctx context.Context, ref string, files bool) (layers.Image, error) {
	img, manifest, ctx, done, err := s.forReading(ctx, ref)
	if err != nil {
		return layers.Image{}, err
	}
	defer done()
	t := layers.Image{ID: img.ID.String(), Names: img.RepoTags, Platform: platforms.Format(platforms.Normalize(img.Config.Platform))}
	history := slices.DeleteFunc(slices.Clone(img.Config.History), func(step ocispec.History) bool { return step.EmptyLayer })
	chain := identity.ChainIDs(slices.Clone(img.Config.RootFS.DiffIDs))
	var tree layers.Tree
	for i, blob := range manifest.Layers {
		layer := layers.Layer{Digest: blob.Digest, DiffID: img.Config.RootFS.DiffIDs[i], MediaType: blob.MediaType, Compressed: blob.Size, SharedWith: s.sharing(img.ID, chain[i])}
		if i < len(history) {
			layer.Created, layer.CreatedBy, layer.Comment = history[i].Created, history[i].CreatedBy, history[i].Comment
		}
		err := s.follow(ctx, &tree, blob, layer.DiffID, func(c layers.Change) error {
			layer.Count(c)
			if c.Hidden > 0 {
				t.WastedFiles++
			}
			if files {
				layer.Files = append(layer.Files, layers.FileOf(c))
			}
			return nil
		})
		if err != nil {
			return layers.Image{}, err
		}
		t.Size, t.Compressed, t.Wasted = t.Size+layer.Size, t.Compressed+layer.Compressed, t.Wasted+layer.Wasted
		t.Layers = append(t.Layers, layer)
	}
	return t, nil
}

// forReading finds an image, which stays until done.
func (s *Store) forReading(ctx context.Context, ref string) (_ *Image, _ ocispec.Manifest, held context.Context, done func(), err error) {
	var manifest ocispec.Manifest
	img, _, err := s.find(ref)
	if err != nil {
		return nil, manifest, nil, nil, err
	}
	held, done, err = s.leased(ctx)
	if err != nil {
		return nil, manifest, nil, nil, err
	}
	if err = s.holdTree(held, img.Manifest); err == nil {
		manifest, err = s.manifest(held, img.Manifest)
	}
	if err == nil {
		err = s.whole(held, ref, img.Manifest)
	}
	if err != nil {
		done()
		return nil, manifest, nil, nil, fmt.Errorf("reading image %s: %w", ref, incomplete(ref, err))
	}
	return img, manifest, held, done, nil
}

// follow applies one layer to a tree, and proves that it is what the image says.
func (s *Store) follow(ctx context.Context, tree *layers.Tree, blob ocispec.Descriptor, diffID digest.Digest, tell func(layers.Change) error) error {
	stored, err := s.content.ReaderAt(ctx, blob)
	if err != nil {
		return fmt.Errorf("layer %s: %w", blob.Digest, err)
	}
	defer func() { _ = stored.Close() }()
	plain, err := compression.DecompressStream(content.NewReader(stored))
	if err != nil {
		return fmt.Errorf("layer %s: %w", blob.Digest, corrupt(err))
	}
	defer func() { _ = plain.Close() }()
	verifier := diffID.Verifier()
	body := io.TeeReader(plain, verifier)
	if err := tree.Apply(ctx, body, tell); err != nil {
		return fmt.Errorf("layer %s: %w", blob.Digest, err)
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return fmt.Errorf("layer %s: %w", blob.Digest, corrupt(err))
	}
	if !verifier.Verified() {
		return fmt.Errorf("layer %s: %w", blob.Digest, corrupt(fmt.Errorf("its content is not what its diff ID %s says", diffID)))
	}
	return nil
}

// sharing names the other images with a layer on the same layers.
func (s *Store) sharing(id, chain digest.Digest) []string {
	names := []string{}
	for _, other := range s.all() {
		if other.ID == id || !slices.Contains(identity.ChainIDs(slices.Clone(other.Config.RootFS.DiffIDs)), chain) {
			continue
		}
		if len(other.RepoTags) == 0 {
			names = append(names, short(other.ID))
		}
		names = append(names, other.RepoTags...)
	}
	slices.Sort(names)
	return names
}
