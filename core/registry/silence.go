package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// errSilent is the cause of giving up a registry that says nothing.
var errSilent = errors.New("the registry is silent")

// watch ends a request whose registry has been silent for too long: while it is
// connected to, until its answer begins and between two parts of it.
type watch struct {
	ctx    context.Context // of the request
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

// watched begins to wait. The watch must be stopped, or its body closed.
func watched(ctx context.Context, limit time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watch{ctx: ctx, cancel: cancel, limit: limit, timer: time.AfterFunc(limit, func() { cancel(errSilent) })}
}

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// explain says why a request failed that was ended.
func (w *watch) explain(err error) error {
	if err == nil || err == io.EOF || w.ctx.Err() == nil { //nolint:errorlint // readers answer io.EOF itself
		return err
	}
	cause := context.Cause(w.ctx)
	if cause == errSilent { //nolint:errorlint // it is set above
		return fmt.Errorf("no answer within %s: %w", w.limit, cause)
	}
	return cause
}

func (w *watch) body(inner io.ReadCloser) io.ReadCloser {
	return &watchedBody{ReadCloser: inner, watch: w}
}

type watchedBody struct {
	io.ReadCloser
	*watch
	closed atomic.Bool
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.timer.Reset(b.limit)
	}
	return n, b.explain(err)
}

// Close implements io.Closer.
func (b *watchedBody) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.stop()
	return b.ReadCloser.Close()
}
