package image

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/sdk/storage"
)

// Sizes is what one image occupies, in bytes: its blobs, and its snapshots in all
// storage drivers.
type Sizes struct {
	Size   int64
	Shared int64 // the part that other images need, too
}

// Usage is what the store occupies, in bytes.
type Usage struct {
	Total  int64                   // each blob, snapshot and unfinished download once
	Images map[digest.Digest]Sizes // by ID
}

// measured remembers the sizes of committed snapshots, which never change.
type measured struct {
	mu    sync.Mutex
	sizes map[string]int64
}

// part is a blob or a snapshot: its size, and the images that need it.
type part struct {
	size  int64
	users map[digest.Digest]bool
}

// Usage measures the store. A driver that does not answer is left out.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	ctx = scope(ctx)
	usage := Usage{Images: map[digest.Digest]Sizes{}}
	parts := map[string]*part{}
	err := s.blobs.OnDisk(ctx, func(info content.Info) error {
		parts[info.Digest.String()] = &part{size: info.Size, users: map[digest.Digest]bool{}}
		return nil
	})
	if err != nil {
		return usage, fmt.Errorf("measuring image content: %w", err)
	}
	unfinished, err := s.content.ListStatuses(ctx)
	if err != nil {
		return usage, fmt.Errorf("measuring unfinished downloads: %w", err)
	}
	for _, status := range unfinished {
		usage.Total += status.Offset
	}
	chains := map[string][]digest.Digest{} // images by snapshot
	for _, img := range s.targets() {
		if err := s.count(ctx, img, parts); err != nil {
			return usage, err
		}
		usage.Images[img.ID] = Sizes{}
		for _, id := range identity.ChainIDs(append([]digest.Digest{}, img.Config.RootFS.DiffIDs...)) {
			chains[id.String()] = append(chains[id.String()], img.ID)
		}
	}
	for _, driver := range s.storageDrivers() {
		if err := s.measure(ctx, driver, chains, parts); err != nil {
			s.Log.Warn("a storage driver's layers are not measured", "driver", driver, "error", err)
		}
	}
	for _, p := range parts {
		usage.Total += p.size
		for id := range p.users {
			sizes := usage.Images[id]
			sizes.Size += p.size
			if len(p.users) > 1 {
				sizes.Shared += p.size
			}
			usage.Images[id] = sizes
		}
	}
	return usage, nil
}

// targets are what names point to, and the images those are.
func (s *Store) targets() map[digest.Digest]*Image {
	s.reading.RLock()
	defer s.reading.RUnlock()
	return s.index.targets // is never written to, only replaced
}

// count notes which blobs an image needs.
func (s *Store) count(ctx context.Context, img *Image, parts map[string]*part) error {
	err := images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		p := parts[d.Digest.String()]
		if p == nil {
			return nil, images.ErrSkipDesc // of a platform that is not here
		}
		p.users[img.ID] = true
		children, err := images.Children(ctx, s.content, d)
		if errdefs.IsNotFound(err) {
			return nil, images.ErrSkipDesc
		}
		return children, err
	}), img.Target)
	if err != nil {
		return fmt.Errorf("measuring image %s: %w", img.ID, err)
	}
	return nil
}

// measure adds a driver's layers. Each is measured once in the life of the process.
func (s *Store) measure(ctx context.Context, name string, chains map[string][]digest.Digest, parts map[string]*part) error {
	driver, err := s.Drivers.Storage(name)
	if err != nil {
		return err
	}
	var layers []string
	err = driver.List(ctx, digest.Canonical.String()+":", func(info storage.Info) error {
		if info.Kind == storage.KindCommitted {
			layers = append(layers, info.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, layer := range layers {
		key := name + " " + layer
		s.measured.mu.Lock()
		size, known := s.measured.sizes[key]
		s.measured.mu.Unlock()
		if !known {
			occupied, err := driver.Usage(ctx, layer)
			if errdefs.IsNotFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			size = occupied.Size
			s.measured.mu.Lock()
			if s.measured.sizes == nil {
				s.measured.sizes = map[string]int64{}
			}
			s.measured.sizes[key] = size
			s.measured.mu.Unlock()
		}
		p := &part{size: size, users: map[digest.Digest]bool{}}
		for _, id := range chains[layer] {
			p.users[id] = true
		}
		parts[key] = p
	}
	return nil
}
