package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/davit-engine/davit/core/image/blobs"
)

// Damage is a blob that is not what it was.
type Damage struct {
	Digest  digest.Digest
	Problem string   // "is gone from the disk"
	Images  []string // that need it
	Removed bool     // it was removed, so that a pull or load brings it anew
}

// Checked is what a check of the store found.
type Checked struct {
	Blobs   int   // that were read
	Bytes   int64 // of them
	Damaged []Damage
}

// Check reads all blobs and proves that they are what their digests say. With repair
// those that are not are removed, so that the next pull or load of an image brings them
// anew.
func (s *Store) Check(ctx context.Context, repair bool) (Checked, error) {
	ctx = scope(ctx)
	found := Checked{Damaged: []Damage{}}
	infos, err := s.blobs.Known(ctx)
	if err != nil {
		return found, fmt.Errorf("listing blobs: %w", err)
	}
	users, err := s.usersOfBlobs(ctx)
	if err != nil {
		return found, err
	}
	for _, info := range infos {
		err := s.blobs.Verify(ctx, info.Digest)
		lost := (*blobs.Lost)(nil)
		switch {
		case err == nil:
		case errors.As(err, &lost):
			damage := Damage{Digest: info.Digest, Problem: lost.Reason, Images: notNil(users[info.Digest])}
			if repair {
				if err := s.blobs.Discard(ctx, info.Digest); err != nil {
					return found, err
				}
				damage.Removed = true
			}
			found.Damaged = append(found.Damaged, damage)
		case errdefs.IsNotFound(err):
			continue // it was removed meanwhile
		default:
			return found, fmt.Errorf("checking the image store: %w", err)
		}
		found.Blobs++
		found.Bytes += info.Size
	}
	return found, nil
}
