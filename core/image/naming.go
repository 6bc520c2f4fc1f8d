package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"
)

// name sets an image's name. What had it before keeps its ID, as a dangling
// image, if it has no other name.
func (s *Store) name(ctx context.Context, full string, target ocispec.Descriptor, labels map[string]string) (before *images.Image, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.nameLocked(ctx, full, target, labels)
}

// nameLocked is name for callers that hold changing. An image gets a name only while
// all that it needs is here: then the name keeps it. What changes of names is one
// transaction: a crash cannot take an image's last name that a container counts on.
func (s *Store) nameLocked(ctx context.Context, full string, target ocispec.Descriptor, labels map[string]string) (before *images.Image, err error) {
	if err := s.whole(ctx, full, target); err != nil {
		return nil, fmt.Errorf("naming the image %s: %w", full, err)
	}
	err = s.db.Update(func(tx *bbolt.Tx) (err error) {
		ctx := boltutil.WithTransaction(ctx, tx)
		if before, err = s.setName(ctx, images.Image{Name: full, Target: target, Labels: labels}); err != nil {
			return err
		}
		if before != nil && before.Target.Digest != target.Digest {
			if err := s.keep(ctx, before.Target); err != nil {
				return err
			}
		}
		// An image that got a name dangles no more.
		if !strings.HasPrefix(full, dangling) {
			return ignoreNotFound(s.names.Delete(ctx, dangling+target.Digest.String()))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("naming the image %s: %w", full, err)
	}
	return before, s.refresh(ctx)
}

// keep gives a target that lost its last name a name that nobody sees.
func (s *Store) keep(ctx context.Context, target ocispec.Descriptor) error {
	list, err := s.names.List(ctx, "target.digest=="+target.Digest.String())
	if err != nil || len(list) > 0 {
		return err
	}
	_, err = s.setName(ctx, images.Image{Name: dangling + target.Digest.String(), Target: target})
	return err
}

// labelOf is what a registry is asked for by a name: a digest or a tag.
func labelOf(named reference.Named) string {
	switch n := named.(type) {
	case reference.Digested:
		return n.Digest().String()
	case reference.Tagged:
		return n.Tag()
	}
	return "latest"
}
