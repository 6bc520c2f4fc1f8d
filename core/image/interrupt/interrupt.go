// Package interrupt lets a context end the reading of files, which the kernel does not.
package interrupt

import (
	"context"
	"io"
)

// Reader reads from r until ctx ends; then its error is that of ctx.
func Reader(ctx context.Context, r io.Reader) io.Reader { return &reader{ctx, r} }

type reader struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
