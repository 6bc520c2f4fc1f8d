package verify

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/registry"
)

// How signatures are stored (sigstore/cosign, SIGNATURE_SPEC.md).
const (
	signatureLayer  = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureKey    = "dev.cosignproject.cosign/signature"
	signatureObject = "application/vnd.dev.cosign.artifact.sig.v1+json" // as a referrer
)

const (
	// maxSignatures is how many are looked at for one image, of all sources together.
	maxSignatures = 100
	// maxPayload is how many bytes what is signed may have; it is some hundred.
	maxPayload = 64 << 10
)

// Source is a repository that may have an image's signatures.
type Source interface {
	Manifest(ctx context.Context, reference string) ([]byte, ocispec.Descriptor, error)
	Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, int64, error)
	Referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error)
	String() string
}

// search looks for one signature that holds.
type search struct {
	keys    []crypto.PublicKey
	want    identity
	left    int      // how many signatures are still looked at
	reasons []string // why those that were do not count
}

// run asks each source. It is an error if the last, the registry itself, has a fault
// that may pass: then nobody knows. What else goes wrong is a reason.
func (s *search) run(ctx context.Context, sources []Source) (found bool, err error) {
	for i, source := range sources {
		found, err = s.at(ctx, source)
		if found || ctx.Err() != nil || i == len(sources)-1 {
			break
		}
		if err != nil {
			s.because("%s: %v", source, err)
		}
	}
	return found, err
}

func (s *search) because(format string, args ...any) {
	s.reasons = append(s.reasons, fmt.Sprintf(format, args...))
}

// at looks where cosign puts signatures: under a tag made of the image's digest, and
// among the image's referrers (OCI distribution 1.1).
func (s *search) at(ctx context.Context, source Source) (found bool, err error) {
	of := s.want.digest
	if found, err = s.in(ctx, source, of.Algorithm().String()+"-"+of.Encoded()+".sig"); found || err != nil {
		return found, err
	}
	referrers, err := source.Referrers(ctx, of, signatureObject)
	if err != nil {
		return false, s.unless(ctx, err, "the referrers at "+source.String())
	}
	for _, d := range referrers {
		if !s.next() {
			break
		}
		if found, err = s.in(ctx, source, d.Digest.String()); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// in looks at the signatures of one manifest, which need not be there.
func (s *search) in(ctx context.Context, source Source, ref string) (found bool, err error) {
	body, _, err := source.Manifest(ctx, ref)
	if refused := registry.Refusal(err); refused != nil && refused.StatusCode == http.StatusNotFound {
		return false, nil
	}
	var m ocispec.Manifest
	if err == nil {
		err = json.Unmarshal(body, &m)
	}
	if err != nil {
		return false, s.unless(ctx, err, fmt.Sprintf("%s at %s", ref, source))
	}
	for _, layer := range m.Layers {
		if layer.MediaType != signatureLayer {
			continue
		}
		if !s.next() {
			break
		}
		payload, err := payload(ctx, source, layer)
		if err == nil {
			err = check(payload, layer.Annotations[signatureKey], s.keys, s.want)
		}
		if err == nil {
			return true, nil
		}
		if err := s.unless(ctx, err, fmt.Sprintf("%s at %s", layer.Digest, source)); err != nil {
			return false, err
		}
	}
	return false, nil
}

// next says whether one more may be looked at.
func (s *search) next() bool {
	if s.left--; s.left == -1 {
		s.because("more than %d are not looked at", maxSignatures)
	}
	return s.left >= 0
}

// unless makes an error a reason, unless it is a fault that may pass.
func (s *search) unless(ctx context.Context, err error, what string) error {
	if ctx.Err() != nil || registry.MayPass(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.because("%s: %v", what, err)
	return nil
}

// payload reads what was signed.
func payload(ctx context.Context, source Source, d ocispec.Descriptor) ([]byte, error) {
	if err := registry.CheckDescriptor(d); err != nil {
		return nil, err
	}
	if d.Size > maxPayload {
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", d.Size, maxPayload)
	}
	blob, _, err := source.Blob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = blob.Close() }()
	body, err := io.ReadAll(io.LimitReader(blob, d.Size+1))
	if err != nil {
		return nil, fmt.Errorf("reading it: %w", err)
	}
	if d.Digest.Algorithm().FromBytes(body) != d.Digest {
		return nil, fmt.Errorf("it is not what its digest says: %w", registry.ErrVerification)
	}
	return body, nil
}
