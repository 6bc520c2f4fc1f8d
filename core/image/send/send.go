// Package send brings blobs to registries: those that are there are not sent, those
// that another repository has are mounted, and one that was cut off goes on where the
// registry says that it was.
package send

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/image/fetch"
	"github.com/davit-engine/davit/core/registry"
)

// Outcome is how a blob came to be at a registry.
type Outcome int

// The outcomes.
const (
	Sent Outcome = iota
	Existed
	Mounted
)

// Status is how far an upload is.
type Status struct {
	Offset int64         // bytes that were sent
	Wait   time.Duration // before the next attempt; zero: under way
}

// progress is how many bytes more at the registry make a failed attempt one that got on.
const progress = 64 << 10

const maxBackoff = 16 * time.Second

// Options are how blobs are sent.
type Options struct {
	Attempts int           // that may fail in a row without getting on
	Backoff  time.Duration // before the second, doubled for each further one up to 16 s
}

// Blob brings a blob to a repository. from, if not empty, is another of the registry's
// that is known to have it. tell is called from one goroutine at a time, and not after
// Blob has returned.
func (o Options) Blob(ctx context.Context, to *registry.Repository, d ocispec.Descriptor, content io.ReaderAt, from string, tell func(Status)) (Outcome, error) {
	if err := registry.CheckDescriptor(d); err != nil {
		return Sent, err
	}
	b := &blob{Options: o, Descriptor: d, to: to, content: content, from: from, tell: tell}
	outcome, err := b.bring(ctx)
	if err != nil && b.upload != nil {
		b.upload.Abort(ctx)
	}
	return outcome, err
}

// blob is one on its way.
type blob struct {
	Options
	ocispec.Descriptor
	to      *registry.Repository
	content io.ReaderAt
	from    string
	tell    func(Status)

	upload *registry.Upload // nil: none has begun, or the registry forgot it
	pieces int              // in which the upload was sent
}

// bring attempts until the blob is there.
func (b *blob) bring(ctx context.Context) (Outcome, error) {
	for failures, wait := 0, b.Backoff; ; {
		before := b.offset()
		outcome, err := b.attempt(ctx)
		if err == nil {
			return outcome, nil
		}
		if ctx.Err() != nil {
			return outcome, context.Cause(ctx)
		}
		again := b.spoilt(err)
		if again {
			b.drop(ctx)
		} else if !registry.MayPass(err) {
			return outcome, err
		}
		if b.offset()-before >= progress {
			failures, wait = 0, b.Backoff
		}
		failures++
		asked := registry.RetryAfter(err)
		if failures >= b.Attempts || asked > fetch.MaxRetryAfter {
			return outcome, err
		}
		if err := b.pause(ctx, max(wait, asked)); err != nil {
			return outcome, err
		}
		wait = min(2*wait, maxBackoff)
	}
}

func (b *blob) offset() int64 {
	if b.upload == nil {
		return 0
	}
	return b.upload.Offset()
}

// spoilt says whether what was put together of several pieces was refused: then it is
// sent once more in one.
func (b *blob) spoilt(err error) bool {
	refused := registry.Refusal(err)
	return b.pieces > 1 && refused != nil && (refused.StatusCode == http.StatusBadRequest || refused.StatusCode == http.StatusNotFound || refused.StatusCode == http.StatusRequestedRangeNotSatisfiable)
}

func (b *blob) drop(ctx context.Context) {
	b.upload.Abort(ctx)
	b.upload, b.pieces = nil, 0
}

// attempt does what is still to be done.
func (b *blob) attempt(ctx context.Context) (Outcome, error) {
	if b.upload != nil {
		known, err := b.upload.Resume(ctx)
		if err != nil {
			return Sent, err
		}
		if !known {
			b.upload, b.pieces = nil, 0
		}
	}
	if b.upload == nil {
		if there, err := b.to.Has(ctx, b.Descriptor); err != nil || there {
			return Existed, err
		}
		upload, err := b.to.Begin(ctx, b.Descriptor, b.from)
		if err != nil {
			return Sent, err
		}
		if upload == nil {
			return Mounted, nil
		}
		b.upload = upload
	}
	if b.upload.Offset() < b.Size || b.Size == 0 {
		b.pieces++
		if err := b.upload.Send(ctx, b.content, func(offset int64) { b.tell(Status{Offset: offset}) }); err != nil {
			return Sent, fmt.Errorf("sending blob %s: %w", b.Digest, err)
		}
	}
	if err := b.upload.Commit(ctx); err != nil {
		return Sent, fmt.Errorf("sending blob %s: %w", b.Digest, err)
	}
	b.upload = nil
	return Sent, nil
}

// pause waits, and tells each second how long still.
func (b *blob) pause(ctx context.Context, wait time.Duration) error {
	for wait > 0 {
		b.tell(Status{Offset: b.offset(), Wait: wait})
		slice := min(wait, time.Second)
		select {
		case <-time.After(slice):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait -= slice
	}
	return nil
}
