package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/singleflight"

	"github.com/davit-engine/davit/core/image/blobs"
	"github.com/davit-engine/davit/core/image/fetch"
	"github.com/davit-engine/davit/core/image/room"
	"github.com/davit-engine/davit/core/image/unpack"
	"github.com/davit-engine/davit/core/image/verify"
	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/core/registry"
	"github.com/davit-engine/davit/sdk/storage"
)

// Drivers is what the store needs of the plugin host.
type Drivers interface {
	Storage(name string) (storage.Driver, error)
	Default(kind plugin.Kind) string
	List() []plugin.Status
}

// Options are what a store is made of.
type Options struct {
	Root    string // persistent directory of blobs and names
	Drivers Drivers
	// Registries are how registries are reached, and Downloads how blobs come from
	// them; its store is set by Open.
	Registries *registry.Registries
	Downloads  fetch.Options
	Policy     verify.Policy // of images that come in
	Layers     unpack.Limits // of each layer that is unpacked
	Room       room.Limit    // what is kept free of the file system that Root is on

	Emit func(events.Message)
	Log  *slog.Logger
}

// Store keeps the images of one engine. It is safe for concurrent use.
type Store struct {
	Options
	blobs   *blobs.Store
	db      *metadata.DB
	content content.Store
	names   images.Store
	leases  leases.Manager
	fetcher *fetch.Fetcher

	unpacking singleflight.Group
	snapshots guard
	measured  measured
	wanted    chan struct{} // a collection
	stop      func()        // ends the collector, and waits for it
	linking   sync.Mutex    // orders writing of what a manifest or index refers to
	writing   digestLocks
	// changing orders changes of names, and collection of what they no longer
	// reach. Reading takes the index.
	changing sync.Mutex
	reading  sync.RWMutex
	index    index
}

// Open opens the store, which is made if it does not exist.
func Open(ctx context.Context, o Options) (*Store, error) {
	kept, err := blobs.Open(ctx, o.Root)
	if err != nil {
		return nil, err
	}
	return open(ctx, o, kept)
}

// open is Open where the blobs are open already. It closes them if it fails.
func open(ctx context.Context, o Options, kept *blobs.Store) (*Store, error) {
	s := &Store{
		Options: o, blobs: kept, db: kept.DB, content: kept,
		names: metadata.NewImageStore(kept.DB), leases: metadata.NewLeaseManager(kept.DB), wanted: make(chan struct{}, 1),
	}
	kept.Limit(o.Room)
	o.Downloads.Store = s.content
	s.fetcher = fetch.New(o.Downloads)
	if err := s.refresh(scope(ctx)); err != nil {
		return nil, errors.Join(fmt.Errorf("reading the images: %w", err), kept.Close())
	}
	err := s.tellLosses(scope(ctx))
	if kept.ReadOnly {
		o.Log.Warn("the image store is on a file system that is mounted read-only: images can be used, but not changed", "path", o.Root)
	} else {
		err = errors.Join(err, s.endDeadLeases(scope(ctx)))
	}
	if err != nil {
		return nil, errors.Join(err, kept.Close())
	}
	collecting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { s.collector(collecting) })
	s.stop = func() { cancel(); running.Wait() }
	return s, nil
}

// Close ends the store's use of its files.
func (s *Store) Close() error {
	s.stop()
	return s.blobs.Close()
}

// scope puts davit's namespace into a context, as the database wants.
func scope(ctx context.Context) context.Context { return blobs.Scope(ctx) }

// write stores a blob under its digest, or nothing: content that is not what its
// descriptor says leaves no trace that a later attempt would go on from.
func (s *Store) write(ctx context.Context, d ocispec.Descriptor, body io.Reader) error {
	unlock, err := s.writing.lock(ctx, d.Digest)
	if err != nil {
		return err
	}
	defer unlock()
	ref := "blob-" + d.Digest.String()
	err = content.WriteBlob(ctx, s.content, ref, body, ocispec.Descriptor{Digest: d.Digest, Size: d.Size})
	if err == nil || errdefs.IsAlreadyExists(err) {
		return nil
	}
	if aborted := s.content.Abort(context.WithoutCancel(ctx), ref); aborted != nil && !errdefs.IsNotFound(aborted) {
		err = errors.Join(err, aborted)
	}
	return err
}

// digestLocks lets one write each blob at a time.
type digestLocks struct {
	mu   sync.Mutex
	held map[digest.Digest]chan struct{}
}

func (l *digestLocks) lock(ctx context.Context, d digest.Digest) (unlock func(), err error) {
	for {
		l.mu.Lock()
		busy := l.held[d]
		if busy == nil {
			free := make(chan struct{})
			if l.held == nil {
				l.held = map[digest.Digest]chan struct{}{}
			}
			l.held[d] = free
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, d)
				l.mu.Unlock()
				close(free)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
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
