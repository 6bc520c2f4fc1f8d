// Package blobs keeps the blobs of images: their files in containerd's content store,
// and its metadata database with what is known of them, the images' names and the
// leases. It knows nothing of what is in a blob.
package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"go.etcd.io/bbolt"
)

// namespace is davit's in the metadata database.
const namespace = "davit"

// Scope puts davit's namespace into a context, as the database wants.
func Scope(ctx context.Context) context.Context {
	if _, ok := namespaces.Namespace(ctx); ok {
		return ctx
	}
	return namespaces.WithNamespace(ctx, namespace)
}

// Database is a bolt database.
type Database interface {
	metadata.Transactor
	io.Closer
}

// Store is a content store with its metadata. Contexts must have the namespace of
// [Scope]. It is safe for concurrent use.
type Store struct {
	content.Store
	// DB has the names of images, the leases and the collector.
	DB *metadata.DB

	root string
	disk content.Store // of files, without metadata
	bolt Database
}

// Open opens the store below a directory, which is made if it does not exist.
func Open(ctx context.Context, root string) (*Store, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	disk, err := local.NewStore(filesOf(root))
	if err != nil {
		return nil, fmt.Errorf("opening the content store: %w", err)
	}
	bolt, err := bbolt.Open(filepath.Join(root, "metadata.db"), 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("opening the image database: %w", err)
	}
	return On(ctx, root, disk, bolt)
}

// On is Open where the content store and the database are open already. It closes the
// database if it fails.
func On(ctx context.Context, root string, disk content.Store, bolt Database) (*Store, error) {
	ctx = Scope(ctx)
	db := metadata.NewDB(bolt, disk, nil)
	if err := db.Init(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the image database: %w", err), bolt.Close())
	}
	s := &Store{Store: db.ContentStore(), DB: db, root: root, disk: disk, bolt: bolt}
	if err := s.clear(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("removing files that a crash left in the content store: %w", err), bolt.Close())
	}
	return s, nil
}

// Close ends the store's use of its files.
func (s *Store) Close() error { return s.bolt.Close() }

// filesOf is where the content store is below a store's directory.
func filesOf(root string) string { return filepath.Join(root, "content") }
