package blobs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// clear removes the files that the database does not know: those of blobs whose
// collection was cut off after their records were gone, and of ingests that were cut
// off before they had one. The collector looks at files only after it has removed
// records in the same process. Nobody else may use the store yet.
func (s *Store) clear(ctx context.Context) error {
	known := map[digest.Digest]bool{}
	err := s.Walk(ctx, func(info content.Info) error {
		known[info.Digest] = true
		return nil
	})
	if err != nil {
		return err
	}
	err = s.OnDisk(ctx, func(info content.Info) error {
		if isBlob := info.Digest.Validate() == nil; isBlob && !known[info.Digest] {
			return s.disk.Delete(ctx, info.Digest)
		}
		return nil
	})
	if err != nil {
		return err
	}
	dir := filepath.Join(filesOf(s.root), "ingest")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		whole, err := s.isIngest(ctx, path)
		if err == nil && !whole {
			err = os.RemoveAll(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// adoption is how long blobs are kept that were here before their database.
const adoption = 24 * time.Hour

// adopt makes records of the blobs that are here, where a database is made beside them:
// the one that knew them is lost, and images that are pulled again find their layers. A
// lease keeps them.
func (s *Store) adopt(ctx context.Context) error {
	var found []content.Info
	err := s.OnDisk(ctx, func(info content.Info) error {
		if info.Digest.Validate() == nil {
			found = append(found, info)
		}
		return nil
	})
	if err != nil || len(found) == 0 {
		return err
	}
	lease, err := metadata.NewLeaseManager(s.DB).Create(ctx, leases.WithRandomID(), leases.WithExpiration(adoption))
	if err != nil {
		return err
	}
	ctx = leases.WithLease(ctx, lease.ID)
	for _, info := range found {
		// The database takes a file that is there for what is to be written.
		w, err := s.Writer(ctx, content.WithRef("adopt-"+info.Digest.String()), content.WithDescriptor(ocispec.Descriptor{Digest: info.Digest, Size: info.Size}))
		if err != nil {
			return err
		}
		if err := errors.Join(w.Commit(ctx, info.Size, info.Digest), w.Close()); err != nil {
			return err
		}
	}
	return nil
}

// isIngest says whether a directory is an ingest that can be gone on with.
func (s *Store) isIngest(ctx context.Context, path string) (bool, error) {
	ref, err := os.ReadFile(filepath.Join(path, "ref"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// The database's key: the namespace, a number and its own name of the ingest.
	parts := strings.SplitN(string(ref), "/", 3)
	if len(parts) != 3 {
		return false, nil
	}
	// What cannot be read of itself would fail every listing.
	_, err = s.Status(ctx, parts[2])
	return err == nil, nil
}
