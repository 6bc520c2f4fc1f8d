// Package blobs keeps the blobs of images: their files in containerd's content store,
// and its metadata database with what is known of them, the images' names and the
// leases. It knows nothing of what is in a blob.
package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"

	"github.com/davit-engine/davit/core/image/room"
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
// [Scope]. A blob whose file somebody else removed or cut is not in it: ErrNotFound,
// with a [*Lost]. It is safe for concurrent use.
type Store struct {
	content.Store
	// DB has the names of images, the leases and the collector.
	DB *metadata.DB
	// ReadOnly says that nothing can be changed: the file system is mounted read-only.
	ReadOnly bool

	root    string
	disk    content.Store // of files, without metadata
	present *present
	bolt    Database
}

// Open opens the store below a directory, which is made if it does not exist.
// ErrDataLoss for a database that is damaged, which is left as it is.
func Open(ctx context.Context, root string) (*Store, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	disk, err := local.NewStore(filesOf(root))
	if err != nil {
		return nil, fmt.Errorf("opening the content store: %w", err)
	}
	path := filepath.Join(root, "metadata.db")
	fresh, err := isNew(path, root)
	if err != nil {
		return nil, err
	}
	bolt, readOnly, err := openDatabase(path)
	if err != nil {
		return nil, err
	}
	s := newStore(root, disk, bolt)
	s.ReadOnly = readOnly
	if readOnly {
		return s, nil
	}
	return s, s.begin(ctx, fresh)
}

// isNew says whether a database is to be made. Where there are blobs, an empty file is
// not what a crash left of that.
func isNew(path, root string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil || info.Size() > 0 {
		return false, err
	}
	if found, err := filepath.Glob(filepath.Join(filesOf(root), "blobs", "*", "*")); err != nil || len(found) == 0 {
		return true, err
	}
	return false, damaged(path, errors.New("it is empty"))
}

// On is Open where the content store and the database are open already. It closes the
// database if it fails.
func On(ctx context.Context, root string, disk content.Store, bolt Database) (*Store, error) {
	s := newStore(root, disk, bolt)
	return s, s.begin(ctx, false)
}

func newStore(root string, disk content.Store, bolt Database) *Store {
	db := metadata.NewDB(bolt, disk, nil)
	p := &present{Store: db.ContentStore(), disk: disk}
	return &Store{Store: p, DB: db, root: root, disk: disk, present: p, bolt: bolt}
}

// begin brings database and files together.
func (s *Store) begin(ctx context.Context, fresh bool) error {
	ctx = Scope(ctx)
	err := s.DB.Init(ctx)
	if err == nil && fresh {
		err = s.adopt(ctx)
	}
	if err == nil {
		err = s.clear(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("opening the image store: %w", err), s.bolt.Close())
	}
	return nil
}

// Limit refuses from now on to write blobs where less would be free than is to be kept.
// It is called before the store is used.
func (s *Store) Limit(limit room.Limit) { s.present.room = room.Meter{Limit: limit, Path: s.root} }

// Close ends the store's use of its files.
func (s *Store) Close() error { return s.bolt.Close() }

// filesOf is where the content store is below a store's directory.
func filesOf(root string) string { return filepath.Join(root, "content") }

// OnDisk walks the files of blobs, those too that the database does not know. The sizes
// are those on the disk.
func (s *Store) OnDisk(ctx context.Context, fn content.WalkFunc) error {
	err := s.disk.Walk(ctx, fn)
	if errors.Is(err, fs.ErrNotExist) { // no blob was stored yet
		return nil
	}
	return err
}

// Known are the blobs that the database knows.
func (s *Store) Known(ctx context.Context) (list []content.Info, err error) {
	err = s.Walk(ctx, func(info content.Info) error {
		list = append(list, info)
		return nil
	})
	return list, err
}

// Losses are the blobs that are lost, by one stat for each that is known.
func (s *Store) Losses(ctx context.Context) (list []*Lost, err error) {
	err = s.Walk(ctx, func(info content.Info) error {
		err := s.present.look(ctx, info)
		if lost := (*Lost)(nil); errors.As(err, &lost) {
			list = append(list, lost)
			return nil
		}
		return err
	})
	return list, err
}
