package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/registry"
)

// step is how many bytes pass between two tellings, and progress how many make a
// failed attempt one that got on.
const (
	step     = 512 << 10
	progress = 64 << 10
	buffer   = 128 << 10
)

// errStore marks faults of the content store: they are this host's.
type errStore struct{ error }

// Unwrap answers the fault.
func (e errStore) Unwrap() error { return e.error }

// download is one blob on its way. It has followers, and stops without.
type download struct {
	*Fetcher
	ocispec.Descriptor
	sources []*registry.Repository
	// ctx is of the download: it outlives that of whoever began it, and has no
	// lease, so that what is here of the blob outlives the pull.
	ctx    context.Context
	cancel context.CancelFunc

	followers int  // guarded by Fetcher.mu
	started   bool // likewise

	mu      sync.Mutex
	status  Status
	changed chan struct{} // closed and replaced when the status changes
	done    chan struct{} // closed at the end, after err is set
	err     error
}

func newDownload(ctx context.Context, f *Fetcher, d ocispec.Descriptor, sources []*registry.Repository) *download {
	space, _ := namespaces.Namespace(ctx)
	own, cancel := context.WithCancel(namespaces.WithNamespace(context.Background(), space))
	return &download{
		Fetcher: f, Descriptor: ocispec.Descriptor{Digest: d.Digest, Size: d.Size}, sources: sources,
		ctx: own, cancel: cancel, changed: make(chan struct{}), done: make(chan struct{}),
	}
}

// follow waits for the end. The last who leaves before stops the download and waits
// until it has.
func (l *download) follow(ctx context.Context, tell func(Status)) error {
	defer l.leave()
	var last Status
	first := true
	for {
		l.mu.Lock()
		status, changed := l.status, l.changed
		l.mu.Unlock()
		if first || status != last {
			tell(status)
			first, last = false, status
		}
		select {
		case <-changed:
		case <-l.done:
			return l.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *download) leave() {
	l.Fetcher.mu.Lock()
	l.followers--
	last := l.followers == 0
	l.Fetcher.mu.Unlock()
	if last {
		l.cancel()
		<-l.done
	}
}

func (l *download) say(s Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status = s
	close(l.changed)
	l.changed = make(chan struct{})
}

// run asks one source after the other.
func (l *download) run() {
	var err error
	for i, source := range l.sources {
		var failed error
		if failed = l.from(source); failed == nil {
			err = nil
			break
		}
		if l.ctx.Err() != nil || errors.As(failed, &errStore{}) {
			err = failed
			break
		}
		if i < len(l.sources)-1 {
			failed = fmt.Errorf("mirror %s: %w", source.Name().RegistryStr(), failed)
		}
		err = errors.Join(failed, err) // the registry's own word first
	}
	l.err = err
	l.Fetcher.mu.Lock()
	delete(l.active, l.Digest)
	l.Fetcher.mu.Unlock()
	l.cancel()
	close(l.done)
}

// from brings the blob from one source. If what was put together of several parts is
// wrong, it is dropped and brought once more in one piece: an earlier part may be at
// fault.
func (l *download) from(source *registry.Repository) error {
	pieces, err := l.once(source)
	if pieces > 1 && errors.Is(err, registry.ErrVerification) && l.ctx.Err() == nil {
		_, err = l.once(source)
	}
	return err
}

// once brings the blob, in one or more pieces.
func (l *download) once(source *registry.Repository) (pieces int, err error) {
	w, err := content.OpenWriter(l.ctx, l.Store, content.WithRef(Ref(l.Digest)), content.WithDescriptor(l.Descriptor))
	if errdefs.IsAlreadyExists(err) {
		return 0, nil
	}
	if err != nil {
		return 0, errStore{fmt.Errorf("opening the content store: %w", err)}
	}
	status, err := w.Status()
	if err != nil {
		return 0, errors.Join(errStore{err}, w.Close())
	}
	b := &blob{download: l, source: source, Writer: w, offset: status.Offset}
	if b.offset > 0 {
		b.pieces++
	}
	defer func() {
		if closed := w.Close(); err == nil && closed != nil {
			err = errStore{closed}
		}
		if b.useless(err) {
			if aborted := l.Store.Abort(context.WithoutCancel(l.ctx), Ref(l.Digest)); aborted != nil && !errdefs.IsNotFound(aborted) {
				err = errors.Join(err, aborted)
			}
		}
		pieces = b.pieces
	}()
	if err := b.bring(); err != nil {
		return 0, err
	}
	l.say(Status{Phase: Verifying, Offset: l.Size})
	err = w.Commit(l.ctx, l.Size, l.Digest)
	switch {
	case err == nil, errdefs.IsAlreadyExists(err):
		return 0, nil
	case errdefs.IsFailedPrecondition(err):
		return 0, fmt.Errorf("blob %s: %w", l.Digest, registry.ErrVerification)
	}
	return 0, errStore{fmt.Errorf("storing blob %s: %w", l.Digest, err)}
}

// blob is a download at one source.
type blob struct {
	*download
	content.Writer
	source *registry.Repository
	offset int64
	pieces int // that the content is made of
}

// useless says whether after a failure what is here is not to be gone on from: it is
// nothing, it is wrong, or there is no room for it.
func (b *blob) useless(err error) bool {
	return err != nil && b.offset == 0 || errors.Is(err, registry.ErrVerification) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// bring attempts until all bytes are here.
func (b *blob) bring() error {
	for failures, wait := 0, b.Backoff; ; {
		begin := b.offset
		err := b.attempt()
		if err == nil {
			return nil
		}
		if b.ctx.Err() != nil {
			return context.Cause(b.ctx)
		}
		if b.offset-begin >= progress {
			failures, wait = 0, b.Backoff
		}
		failures++
		asked := registry.RetryAfter(err)
		if !mayPass(err) || failures >= b.Attempts || asked > MaxRetryAfter {
			return err
		}
		if err := b.pause(max(wait, asked)); err != nil {
			return err
		}
		wait = min(2*wait, maxBackoff)
	}
}

// pause waits, and tells each second how long still.
func (b *blob) pause(wait time.Duration) error {
	for wait > 0 {
		b.say(Status{Phase: Retrying, Offset: b.offset, Wait: wait})
		slice := min(wait, time.Second)
		select {
		case <-time.After(slice):
		case <-b.ctx.Done():
			return context.Cause(b.ctx)
		}
		wait -= slice
	}
	return nil
}

// errBroken marks a connection that ended in the middle.
type errBroken struct{ error }

// Unwrap answers what broke it.
func (e errBroken) Unwrap() error { return e.error }

func mayPass(err error) bool {
	if errors.As(err, &errStore{}) {
		return false
	}
	return errors.As(err, &errBroken{}) || registry.MayPass(err)
}

// attempt asks for the rest of the blob, when it is its turn.
func (b *blob) attempt() error {
	b.say(Status{Phase: Waiting, Offset: b.offset})
	select {
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
	if b.offset > b.Size {
		if err := b.restart(); err != nil {
			return err
		}
	}
	if b.offset == b.Size && b.Size > 0 {
		return nil
	}
	b.say(Status{Phase: Downloading, Offset: b.offset})
	body, start, err := b.source.Blob(b.ctx, b.Descriptor, b.offset)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if start != b.offset {
		if err := b.restart(); err != nil {
			return err
		}
	}
	b.pieces++
	return b.copy(body)
}

func (b *blob) restart() error {
	if err := b.Truncate(0); err != nil {
		return errStore{err}
	}
	b.offset, b.pieces = 0, 0
	return nil
}

// copy writes what comes, and not more than there must be.
func (b *blob) copy(body io.Reader) error {
	chunk := make([]byte, buffer)
	told := b.offset
	for {
		n, err := body.Read(chunk)
		if int64(n) > b.Descriptor.Size-b.offset {
			return fmt.Errorf("blob %s has more than the %d bytes of its manifest: %w", b.Descriptor.Digest, b.Descriptor.Size, registry.ErrVerification)
		}
		if n > 0 {
			if _, err := b.Write(chunk[:n]); err != nil {
				return errStore{fmt.Errorf("storing blob %s: %w", b.Descriptor.Digest, err)}
			}
			b.offset += int64(n)
		}
		if b.offset-told >= step || b.offset == b.Descriptor.Size {
			told = b.offset
			b.say(Status{Phase: Downloading, Offset: b.offset})
		}
		switch {
		case err == io.EOF && b.offset == b.Descriptor.Size:
			return nil
		case err == io.EOF:
			return errBroken{fmt.Errorf("blob %s ended after %d of %d bytes: %w", b.Descriptor.Digest, b.offset, b.Descriptor.Size, io.ErrUnexpectedEOF)}
		case err != nil:
			return errBroken{fmt.Errorf("reading blob %s after %d of %d bytes: %w", b.Descriptor.Digest, b.offset, b.Descriptor.Size, err)}
		}
	}
}
