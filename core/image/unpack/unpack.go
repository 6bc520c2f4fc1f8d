// Package unpack unpacks the archives of image layers. It takes every archive for
// hostile: what it says of names, owners, sizes and attributes has effect below the
// root that it is unpacked to, within limits, or is refused. It knows nothing of
// snapshots and stores.
package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Limits are what one layer may take; 0 is no limit.
type Limits struct {
	// Size is the most bytes that the archive may have when it is decompressed, and
	// the most that its files may have together. A sparse file counts with its holes,
	// which are written.
	Size int64
	// Entries is the most files, directories, links and deletions.
	Entries int
	// Depth is the most components of a name.
	Depth int
}

// ErrLimit says that a layer is larger than it may be. It comes with
// errdefs.ErrInvalidArgument.
var ErrLimit = errors.New("limit exceeded")

// Apply unpacks a layer (plain tar or compressed with gzip, zstd, bzip2 or xz) over
// the directory root, in the form of the OCI image specification's changesets, and
// answers the bytes of its files. ErrInvalidArgument for a layer that is not what
// diffID says, exceeds a limit or is refused. After an error root has part of it.
//
// No entry has effect outside root, as long as nobody else writes there meanwhile.
func Apply(ctx context.Context, root string, in io.Reader, diffID digest.Digest, limits Limits) (size int64, err error) {
	return into(ctx, root, in, diffID, rules{limits: limits})
}

// ApplyDetached is Apply to an empty directory instead of over the layers below, in
// overlayfs's form: a character device 0/0 is a path that is gone, the attribute
// trusted.overlay.opaque=y a directory that hides those below. ErrNeedsBelow for a
// layer that this cannot be done with.
func ApplyDetached(ctx context.Context, root string, in io.Reader, diffID digest.Digest, limits Limits) (size int64, err error) {
	return into(ctx, root, in, diffID, rules{limits: limits, detached: &detached{entries: map[string]entry{}}}, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout))
}

func into(ctx context.Context, root string, in io.Reader, diffID digest.Digest, rules rules, options ...archive.ApplyOpt) (size int64, err error) {
	if err := diffID.Validate(); err != nil {
		return 0, invalid("its diff ID %q: %v", diffID, err)
	}
	plain, err := decompress(in)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	verifier := diffID.Verifier()
	stream := io.TeeReader(&limited{in: plain, max: rules.limits.Size}, verifier)
	if _, err := archive.Apply(ctx, root, stream, append(options, archive.WithFilter(rules.accept))...); err != nil {
		return 0, err
	}
	// What follows the archive's end belongs to the digest.
	if _, err := io.Copy(io.Discard, &cancelled{ctx: ctx, in: stream}); err != nil {
		return 0, err
	}
	if !verifier.Verified() {
		return 0, invalid("its content is not what its diff ID %s says", diffID)
	}
	return rules.size, nil
}

// limited is a reader that fails after max bytes, unless that is 0.
type limited struct {
	in       io.Reader
	max, got int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.in.Read(p)
	l.got += int64(n)
	if l.max > 0 && l.got > l.max {
		return 0, exceeded("it has more than %d bytes when decompressed", l.max)
	}
	return n, err
}

// cancelled is a reader that ends with a context.
type cancelled struct {
	ctx context.Context
	in  io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.in.Read(p)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

func exceeded(format string, args ...any) error {
	return fmt.Errorf(format+": %w: %w", append(args, ErrLimit, errdefs.ErrInvalidArgument)...)
}
