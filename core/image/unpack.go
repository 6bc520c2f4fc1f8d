package image

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/image/unpack"
	"github.com/davit-engine/davit/sdk/storage"
)

// unpackedSize is the label of a layer's blob with the bytes of its files.
const unpackedSize = "davit.unpacked-size"

// unpackKey begins the keys of snapshots that are being filled.
const unpackKey = "unpack-"

// Unpack makes sure that all layers of an image are committed snapshots of a
// storage driver and answers the topmost's name. A layer whose content is not
// what the configuration says (diff ID) is an error, and leaves nothing. Until release
// the snapshots stay, whatever is removed meanwhile.
func (s *Store) Unpack(ctx context.Context, img Image, driver string) (top string, release func(), err error) {
	ctx, held := withHolding(scope(ctx))
	if top, err = s.unpack(ctx, img, driver, func(int, string) {}); err != nil {
		held.end()
		return "", nil, incomplete(img.shown(), err)
	}
	return top, held.end, nil
}

// unpack tells the layers' progress by their place.
func (s *Store) unpack(ctx context.Context, img Image, name string, tell func(layer int, status string)) (string, error) {
	return s.unpackArriving(ctx, img, name, func(int) <-chan struct{} { return closed() }, tell)
}

// unpackArriving unpacks each layer when the channel that here answers is closed: then
// its blob is in the store.
func (s *Store) unpackArriving(ctx context.Context, img Image, name string, here func(layer int) <-chan struct{}, tell func(layer int, status string)) (top string, err error) {
	if len(img.Config.RootFS.DiffIDs) == 0 {
		return "", nil
	}
	driver, err := s.Drivers.Storage(name)
	if err != nil {
		return "", err
	}
	chain := identity.ChainIDs(append([]digest.Digest{}, img.Config.RootFS.DiffIDs...))
	names := make([]string, len(chain))
	for i, id := range chain {
		names[i] = id.String()
	}
	if err := s.holdSnapshots(ctx, names...); err != nil {
		return "", err
	}
	top = names[len(names)-1]
	if info, err := driver.Stat(ctx, top); err == nil && info.Kind == storage.KindCommitted {
		return top, nil
	}
	if _, ok := leases.FromContext(ctx); !ok {
		// The blobs stay, too, while they are read.
		leased, done, err := s.leased(ctx)
		if err != nil {
			return "", err
		}
		defer done()
		if err := s.holdTree(leased, img.Manifest); err != nil {
			return "", err
		}
		ctx = leased
	}
	manifest, err := s.manifest(ctx, img.Manifest)
	if err != nil {
		return "", err
	}
	u, layers := s.newUnpacking(driver, name, tell), make([]pendingLayer, len(chain))
	for i := range layers {
		layers[i] = pendingLayer{blob: manifest.Layers[i], diffID: img.Config.RootFS.DiffIDs[i], name: names[i], here: here(i)}
		if i > 0 {
			layers[i].parent = names[i-1]
		}
	}
	return top, u.all(ctx, layers)
}

// corrupt marks an archive that cannot be read, unless the disk is at fault.
func corrupt(err error) error {
	switch {
	case err == nil, errors.Is(err, unpack.ErrLimit), errors.Is(err, unpack.ErrNeedsBelow):
		return err
	case errdefs.IsInvalidArgument(err):
		return fmt.Errorf("corrupt layer: %w", err)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || isHostError(err) {
		return err
	}
	return fmt.Errorf("corrupt layer: %w: %w", err, errdefs.ErrInvalidArgument)
}

func (s *Store) layerSize(ctx context.Context, d ocispec.Descriptor) int64 {
	info, err := s.content.Info(ctx, d.Digest)
	if err == nil {
		if size, err := strconv.ParseInt(info.Labels[unpackedSize], 10, 64); err == nil {
			return size
		}
	}
	return d.Size
}

// link tells the collector what a manifest or index needs, down to the layers.
// Children that are not here are left out.
func (s *Store) link(ctx context.Context, target ocispec.Descriptor) error {
	// Two pulls of different platforms of one index: the later one must see both.
	s.linking.Lock()
	defer s.linking.Unlock()
	handler := images.SetChildrenMappedLabels(s.content, s.present(images.ChildrenHandler(s.content)), images.ChildGCLabels)
	return images.Walk(ctx, handler, target)
}

func (s *Store) present(next images.HandlerFunc) images.HandlerFunc {
	return func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := next(ctx, d)
		kept := children[:0]
		for _, child := range children {
			if _, err := s.content.Info(ctx, child.Digest); err == nil {
				kept = append(kept, child)
			}
		}
		return kept, err
	}
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
