package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"go.etcd.io/bbolt"
	"golang.org/x/sync/singleflight"

	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/sdk/storage"
)

// namespace is davit's in the metadata database.
const namespace = "davit"

// leaseTime is how long an unfinished pull may keep its blobs after a crash.
const leaseTime = 24 * time.Hour

// Drivers is what the store needs of the plugin host.
type Drivers interface {
	Storage(name string) (storage.Driver, error)
	Default(kind plugin.Kind) string
	List() []plugin.Status
}

// Options are what a store is made of.
type Options struct {
	Root     string // persistent directory of blobs and names
	Drivers  Drivers
	Insecure []string // registries (host or host:port) that may be plain HTTP
	Emit     func(events.Message)
	Log      *slog.Logger
}

// Store keeps the images of one engine. It is safe for concurrent use.
type Store struct {
	Options
	bolt    *bbolt.DB
	db      *metadata.DB
	content content.Store
	names   images.Store
	leases  leases.Manager

	unpacking singleflight.Group
	// changing orders changes of names, and collection of what they no longer
	// reach. Reading takes the index.
	changing sync.Mutex
	reading  sync.RWMutex
	index    index
}

// Open opens the store, which is made if it does not exist.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := os.MkdirAll(o.Root, 0o700); err != nil {
		return nil, err
	}
	blobs, err := local.NewStore(filepath.Join(o.Root, "content"))
	if err != nil {
		return nil, fmt.Errorf("opening the content store: %w", err)
	}
	bolt, err := bbolt.Open(filepath.Join(o.Root, "metadata.db"), 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("opening the image database: %w", err)
	}
	db := metadata.NewDB(bolt, blobs, nil)
	if err := db.Init(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the image database: %w", err), bolt.Close())
	}
	s := &Store{
		Options: o, bolt: bolt, db: db, content: db.ContentStore(),
		names: metadata.NewImageStore(db), leases: metadata.NewLeaseManager(db),
	}
	if err := s.refresh(scope(ctx)); err != nil {
		return nil, errors.Join(fmt.Errorf("reading the images: %w", err), bolt.Close())
	}
	return s, nil
}

// Close ends the store's use of its files.
func (s *Store) Close() error { return s.bolt.Close() }

// scope puts davit's namespace into a context, as the database wants.
func scope(ctx context.Context) context.Context {
	if _, ok := namespaces.Namespace(ctx); ok {
		return ctx
	}
	return namespaces.WithNamespace(ctx, namespace)
}

// leased keeps what is written until done from being collected. A crash leaves a
// lease that expires.
func (s *Store) leased(ctx context.Context) (_ context.Context, done func(), err error) {
	ctx = scope(ctx)
	lease, err := s.leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return nil, nil, fmt.Errorf("making a lease: %w", err)
	}
	return leases.WithLease(ctx, lease.ID), func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if err := s.leases.Delete(end, lease); err != nil {
			s.Log.Error("ending a lease on image content", "error", err)
		}
	}, nil
}

// collect frees blobs that no image reaches.
func (s *Store) collect(ctx context.Context) {
	if _, err := s.db.GarbageCollect(scope(context.WithoutCancel(ctx))); err != nil {
		s.Log.Error("freeing image content", "error", err)
	}
}

// setName makes a name point to a target, and answers what it pointed to before.
func (s *Store) setName(ctx context.Context, img images.Image) (before *images.Image, err error) {
	old, err := s.names.Get(ctx, img.Name)
	switch {
	case errdefs.IsNotFound(err):
		_, err = s.names.Create(ctx, img)
		return nil, err
	case err != nil:
		return nil, err
	}
	_, err = s.names.Update(ctx, img, "target", "labels")
	return &old, err
}

func (s *Store) event(action events.Action, id, name string) {
	s.Emit(events.Message{Type: events.ImageEventType, Action: action, Actor: events.Actor{ID: id, Attributes: map[string]string{"name": name}}})
}
