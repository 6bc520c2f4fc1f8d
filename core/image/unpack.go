package image

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/image/unpack"
	"github.com/davit-engine/davit/core/rootfs"
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
		return "", nil, err
	}
	return top, held.end, nil
}

// unpack tells the layers' progress by their place.
func (s *Store) unpack(ctx context.Context, img Image, name string, tell func(layer int, status string)) (string, error) {
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
	top := names[len(names)-1]
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
	parent := ""
	for i, id := range chain {
		tell(i, "Extracting")
		// One unpacking of a layer serves all who wait for it.
		once := func() error {
			_, err, _ := s.unpacking.Do(name+" "+id.String(), func() (any, error) {
				return nil, s.unpackLayer(ctx, driver, manifest.Layers[i], img.Config.RootFS.DiffIDs[i], parent, id.String())
			})
			return err
		}
		err := once()
		for errors.Is(err, context.Canceled) && ctx.Err() == nil {
			err = once() // who did it for us has left
		}
		if err != nil {
			return "", fmt.Errorf("unpacking layer %s: %w", manifest.Layers[i].Digest, err)
		}
		tell(i, "Pull complete")
		parent = id.String()
	}
	return top, nil
}

func (s *Store) unpackLayer(ctx context.Context, driver storage.Driver, d ocispec.Descriptor, diffID digest.Digest, parent, name string) (err error) {
	if info, err := driver.Stat(ctx, name); err == nil && info.Kind == storage.KindCommitted {
		return nil
	}
	key := unpackKey + container.NewID()
	release, err := s.snapshots.hold(ctx, key)
	if err != nil {
		return err
	}
	defer release()
	mounts, err := driver.Prepare(ctx, key, parent, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreNotFound(driver.Remove(context.WithoutCancel(ctx), key)))
		}
	}()
	var size int64
	err = rootfs.Mounted(ctx, mounts, false, func(v *rootfs.View) error {
		size, err = s.apply(ctx, d, diffID, v.Path())
		return err
	})
	if err != nil {
		return err
	}
	if err := driver.Commit(ctx, name, key, nil); err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	} else if err != nil {
		return ignoreNotFound(driver.Remove(ctx, key)) // somebody was faster
	}
	_, err = s.content.Update(ctx, content.Info{Digest: d.Digest, Labels: map[string]string{unpackedSize: strconv.FormatInt(size, 10)}}, "labels."+unpackedSize)
	return err
}

// apply unpacks a layer's archive below root.
func (s *Store) apply(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest, root string) (int64, error) {
	blob, err := s.content.ReaderAt(ctx, d)
	if err != nil {
		return 0, err
	}
	defer func() { _ = blob.Close() }()
	size, err := unpack.Apply(ctx, root, content.NewReader(blob), diffID, s.Layers)
	return size, corrupt(err)
}

// corrupt marks an archive that cannot be read, unless the disk is at fault.
func corrupt(err error) error {
	switch {
	case err == nil, errors.Is(err, unpack.ErrLimit):
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
