package image

import (
	"context"
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/registry"
)

// documentTries is how often a small document is asked for or sent, with short breaks,
// and documentWait how long a registry may want to be left alone before one: the client
// waits, and nothing is said to it yet.
const (
	documentTries = 3
	documentWait  = 10 * time.Second
)

// patient is a repository that is asked again for what a fault that may pass kept back.
type patient struct{ *registry.Repository }

// Manifest implements verify.Source, as does the following.
func (p patient) Manifest(ctx context.Context, ref string) (body []byte, d ocispec.Descriptor, err error) {
	err = patiently(ctx, func() error {
		body, d, err = p.Repository.Manifest(ctx, ref)
		return err
	})
	return body, d, err
}

func (p patient) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (body io.ReadCloser, start int64, err error) {
	err = patiently(ctx, func() error {
		body, start, err = p.Repository.Blob(ctx, d, offset)
		return err
	})
	return body, start, err
}

func patiently(ctx context.Context, ask func() error) (err error) {
	for try := range documentTries {
		err = ask()
		if err == nil || try == documentTries-1 || !registry.MayPass(err) || isAbsent(err) || registry.RetryAfter(err) > documentWait {
			break
		}
		select {
		case <-time.After(max(registry.RetryAfter(err), 100*time.Millisecond<<(2*try))):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return err
}
