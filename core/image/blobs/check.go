package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/image/interrupt"
)

// Verify reads a blob that is known and answers a *Lost if it is not what its digest
// says. An error of another kind says nothing of the blob.
func (s *Store) Verify(ctx context.Context, d digest.Digest) error {
	info, err := s.Info(ctx, d)
	if err != nil {
		return err
	}
	blob, err := s.ReaderAt(ctx, ocispec.Descriptor{Digest: d, Size: info.Size})
	if err != nil {
		return err
	}
	verifier := d.Verifier()
	_, err = io.Copy(verifier, interrupt.Reader(ctx, content.NewReader(blob)))
	err = errors.Join(err, blob.Close())
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return &Lost{d, fmt.Sprintf("cannot be read: %v", err)}
	case !verifier.Verified():
		return &Lost{d, "is damaged: its content is not what its digest says"}
	}
	return nil
}

// Discard removes the file of a blob, so that it is lost and can be stored anew.
func (s *Store) Discard(ctx context.Context, d digest.Digest) error {
	s.present.mending.Lock()
	defer s.present.mending.Unlock()
	if err := s.disk.Delete(ctx, d); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("removing blob %s: %w", d, err)
	}
	return nil
}
