package blobs

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/image/room"
)

// Lost says that a blob which the database knows is not on the disk as it was stored:
// somebody else removed, cut or changed it. It is a kind of errdefs.ErrNotFound.
type Lost struct {
	Digest digest.Digest
	Reason string // "is gone from the disk"
}

func (l *Lost) Error() string { return fmt.Sprintf("blob %s %s", l.Digest, l.Reason) }

// Unwrap answers the error's kind.
func (l *Lost) Unwrap() error { return errdefs.ErrNotFound }

// present is a content store with metadata that looks at a blob's file, by one stat,
// before it is counted on. A blob that is lost is not here, and can be stored anew; what
// is known of it, and what it refers to, stays meanwhile.
type present struct {
	content.Store
	disk    content.Store
	mending sync.Mutex // held while a lost blob is stored anew
	room    room.Meter // a copy for each writer
}

// look answers a *Lost if the file of a known blob is not as it was stored.
func (p *present) look(ctx context.Context, info content.Info) error {
	found, err := p.disk.Info(ctx, info.Digest)
	switch {
	case errdefs.IsNotFound(err):
		return &Lost{info.Digest, "is gone from the disk"}
	case err != nil:
		return fmt.Errorf("blob %s: %w", info.Digest, err)
	case found.Size != info.Size:
		return &Lost{info.Digest, fmt.Sprintf("is damaged: %d of its %d bytes are on the disk", found.Size, info.Size)}
	}
	return nil
}

// Info implements content.Store, as do the following.
func (p *present) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	info, err := p.Store.Info(ctx, d)
	if err == nil {
		err = p.look(ctx, info)
	}
	if err != nil {
		return content.Info{}, err
	}
	return info, nil
}

func (p *present) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	if _, err := p.Info(ctx, d.Digest); err != nil {
		return nil, err
	}
	return p.Store.ReaderAt(ctx, d)
}

func (p *present) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.Desc.Digest != "" && p.isLost(ctx, o.Desc.Digest) {
		// With its digest it would be said to exist.
		opts = append(opts, content.WithDescriptor(ocispec.Descriptor{MediaType: o.Desc.MediaType, Size: o.Desc.Size}))
	}
	w, err := p.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return &writer{w, p, p.room}, nil
}

func (p *present) isLost(ctx context.Context, d digest.Digest) bool {
	_, err := p.Info(ctx, d)
	return errors.As(err, new(*Lost))
}

type writer struct {
	content.Writer
	present *present
	room    room.Meter
}

func (w *writer) Write(b []byte) (int, error) {
	if err := w.room.Pass(len(b)); err != nil {
		return 0, err
	}
	return w.Writer.Write(b)
}

// Commit is that of the content store; of a blob that was lost, it puts the file back
// and answers errdefs.ErrAlreadyExists, as the blob's record is there.
func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	p := w.present
	if expected == "" {
		expected = w.Digest()
	}
	if !p.isLost(ctx, expected) {
		return w.Writer.Commit(ctx, size, expected, opts...)
	}
	p.mending.Lock()
	defer p.mending.Unlock()
	if p.isLost(ctx, expected) && w.Digest() == expected {
		// A file that is there, cut or not, would be kept.
		if err := p.disk.Delete(ctx, expected); err != nil && !errdefs.IsNotFound(err) {
			return errors.Join(fmt.Errorf("replacing blob %s: %w", expected, err), w.Close())
		}
	}
	return w.Writer.Commit(ctx, size, expected, opts...)
}
