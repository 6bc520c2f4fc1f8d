// Package fetch brings blobs from registries into a content store. Whoever wants a
// blob that is on its way already follows that download; a download goes on where an
// earlier one, of this process or of one that was killed, left off; and nothing is in
// the store that its digest does not prove.
package fetch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/registry"
)

// Defaults of [Options].
const (
	DefaultParallel = 3
	DefaultAttempts = 5
	defaultBackoff  = time.Second
	maxBackoff      = 16 * time.Second
)

// MaxRetryAfter is how long a download waits because a registry asks it to; one that
// wants more is given up.
const MaxRetryAfter = time.Minute

// Options are what a fetcher is made of.
type Options struct {
	Store content.Store
	// Parallel is how many blobs are on their way at once, of all callers together;
	// zero: [DefaultParallel].
	Parallel int
	// Attempts is how often in a row a download may fail without getting on; zero:
	// [DefaultAttempts].
	Attempts int
	// Backoff is the time before the second attempt, which doubles for each
	// further one up to 16 s; zero: a second.
	Backoff time.Duration
}

// Fetcher brings blobs. It is safe for concurrent use.
type Fetcher struct {
	Options
	slots  chan struct{}
	mu     sync.Mutex
	active map[digest.Digest]*download
}

// New answers a fetcher.
func New(o Options) *Fetcher {
	if o.Parallel == 0 {
		o.Parallel = DefaultParallel
	}
	if o.Attempts == 0 {
		o.Attempts = DefaultAttempts
	}
	if o.Backoff == 0 {
		o.Backoff = defaultBackoff
	}
	return &Fetcher{Options: o, slots: make(chan struct{}, o.Parallel), active: map[digest.Digest]*download{}}
}

// Phase is what a download does.
type Phase int

// The phases, in their order; a download may go back from Retrying to Waiting.
const (
	Waiting Phase = iota // for its turn
	Downloading
	Retrying // waits before the next attempt
	Verifying
)

// Status is how far a download is.
type Status struct {
	Phase  Phase
	Offset int64         // bytes that are here
	Wait   time.Duration // of Retrying
}

// Fetch brings a blob into the store, from the first of the sources that has it, and
// returns when it is there and proven. tell is called from this goroutine with each
// change that it has time for. ctx must have the store's namespace; its lease must
// hold the blob already. When nobody waits for a download any more it is stopped; what
// is here of it is kept for the next.
func (f *Fetcher) Fetch(ctx context.Context, d ocispec.Descriptor, sources []*registry.Repository, tell func(Status)) error {
	if err := registry.CheckDescriptor(d); err != nil {
		return err
	}
	for {
		if _, err := f.Store.Info(ctx, d.Digest); err == nil {
			return nil
		}
		load, err := f.join(ctx, d, sources)
		if err != nil {
			return err
		}
		err = load.follow(ctx, tell)
		if err == nil || ctx.Err() != nil || load.comesFrom(sources) {
			return err
		}
		// It failed for somebody with other sources: now from these.
	}
}

// join answers the download of a blob that is under way, or a new one.
func (f *Fetcher) join(ctx context.Context, d ocispec.Descriptor, sources []*registry.Repository) (*download, error) {
	for {
		f.mu.Lock()
		load := f.active[d.Digest]
		if load == nil {
			load = newDownload(ctx, f, d, sources)
			f.active[d.Digest] = load
		}
		abandoned := load.followers == 0 && load.started
		if !abandoned {
			load.followers++
			if !load.started {
				load.started = true
				go load.run()
			}
		}
		f.mu.Unlock()
		if !abandoned {
			return load, nil
		}
		select {
		case <-load.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// DropUnfinished removes what is here of blobs that nobody fetches now, and answers
// how many bytes that were.
func (f *Fetcher) DropUnfinished(ctx context.Context) (bytes int64, err error) {
	list, err := f.Store.ListStatuses(ctx)
	if err != nil {
		return 0, fmt.Errorf("listing unfinished downloads: %w", err)
	}
	for _, status := range list {
		text, ok := strings.CutPrefix(status.Ref, prefix)
		if !ok {
			continue
		}
		free, ok := f.reserve(digest.Digest(text))
		if !ok {
			continue
		}
		err := f.Store.Abort(ctx, status.Ref)
		free()
		if err != nil && !errdefs.IsNotFound(err) {
			return bytes, fmt.Errorf("removing an unfinished download: %w", err)
		}
		bytes += status.Offset
	}
	return bytes, nil
}

// reserve keeps a blob that is not on its way from being fetched until it is free.
func (f *Fetcher) reserve(d digest.Digest) (free func(), ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.active[d] != nil {
		return nil, false
	}
	none := &download{started: true, done: make(chan struct{})}
	f.active[d] = none
	return func() {
		f.mu.Lock()
		delete(f.active, d)
		f.mu.Unlock()
		close(none.done)
	}, true
}

// prefix begins the names of all ingests of downloads.
const prefix = "pull-"

// Ref is the name of the ingest in which a blob is collected.
func Ref(d digest.Digest) string { return prefix + d.String() }

func (l *download) comesFrom(sources []*registry.Repository) bool {
	return slices.EqualFunc(l.sources, sources, func(a, b *registry.Repository) bool { return a == b || a.String() == b.String() })
}
