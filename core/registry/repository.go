package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxDocument is how many bytes a manifest, an index or a configuration may have, as
// the distribution specification says.
const MaxDocument = 4 << 20

// schema1 are the media types of manifests before 2016.
var schema1 = []string{images.MediaTypeDockerSchema1Manifest, "application/vnd.docker.distribution.manifest.v1+json"}

var accepted = strings.Join([]string{
	images.MediaTypeDockerSchema2Manifest, images.MediaTypeDockerSchema2ManifestList,
	ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, "*/*;q=0.1",
}, ", ")

// Repository is one repository at one registry. It is safe for concurrent use.
type Repository struct {
	name    name.Repository
	auth    authn.Authenticator
	base    http.RoundTripper
	scope   string // transport.PullScope or PushScope
	silence time.Duration

	connecting chan struct{} // held by who asks how to authenticate
	client     *http.Client  // nil until known
}

// Name is registry and repository.
func (r *Repository) Name() name.Repository { return r.name }

// String is the repository's full name; two with the same one have the same blobs.
func (r *Repository) String() string { return r.name.Name() }

// Remote are the options with which go-containerregistry reaches the repository.
func (r *Repository) Remote(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithAuth(r.auth), remote.WithTransport(r.base), remote.WithUserAgent(userAgent), remote.WithRetryPredicate(MayPass)}
}

// connect asks the registry once how it wants to be spoken to. A failure is not kept.
func (r *Repository) connect(ctx context.Context) (*http.Client, error) {
	select {
	case r.connecting <- struct{}{}:
		defer func() { <-r.connecting }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if r.client != nil {
		return r.client, nil
	}
	way, err := transport.NewWithContext(ctx, r.name.Registry, r.auth, r.base, []string{r.name.Scope(r.scope)})
	if err != nil {
		return nil, err
	}
	r.client = &http.Client{Transport: way}
	return r.client, nil
}

// call is one request.
type call struct {
	method, address string
	head            http.Header
	body            *sentBody // nil: none
	silence         time.Duration
	want            []int // statuses
}

// ask sends a GET below the repository and answers a response with one of the wanted
// statuses. The body ends with an error when the registry has been silent too long.
func (r *Repository) ask(ctx context.Context, path string, head http.Header, want ...int) (*http.Response, error) {
	return r.do(ctx, call{method: http.MethodGet, address: r.below(path), head: head, silence: r.silence, want: want})
}

// below is the address of what is in the repository.
func (r *Repository) below(path string) string {
	return fmt.Sprintf("%s://%s/v2/%s/%s", r.name.Scheme(), r.name.RegistryStr(), r.name.RepositoryStr(), path)
}

func (r *Repository) do(ctx context.Context, c call) (*http.Response, error) {
	ctx, watch := watched(ctx, c.silence)
	fail := func(err error) (*http.Response, error) {
		err = watch.explain(plain(err))
		watch.stop()
		return nil, err
	}
	client, err := r.connect(ctx)
	if err != nil {
		return fail(err)
	}
	request, err := http.NewRequestWithContext(ctx, c.method, c.address, http.NoBody)
	if err != nil {
		return fail(err)
	}
	for key, values := range c.head {
		request.Header[key] = values
	}
	if c.body != nil {
		c.body.attach(request, watch)
		defer c.body.end()
	}
	response, err := client.Do(request)
	if err != nil {
		return fail(err)
	}
	response.Body = watch.body(response.Body)
	if err := transport.CheckError(response, c.want...); err != nil {
		_ = response.Body.Close()
		return nil, withLimit(err, response.Header)
	}
	return response, nil
}

// Manifest fetches the manifest or index that a tag or a digest names. What a digest
// names is proven. ErrInvalidArgument if it is too long or of a form that is of no
// use, [ErrVerification] if it is not what the digest says.
func (r *Repository) Manifest(ctx context.Context, reference string) ([]byte, ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	response, err := r.ask(ctx, "manifests/"+reference, http.Header{"Accept": {accepted}}, http.StatusOK)
	if err != nil {
		return nil, d, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, MaxDocument+1))
	switch {
	case err != nil:
		return nil, d, fmt.Errorf("reading the manifest: %w", err)
	case len(body) > MaxDocument:
		return nil, d, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("the manifest of %s has more than %d bytes", reference, MaxDocument))
	}
	d = ocispec.Descriptor{Digest: digest.FromBytes(body), Size: int64(len(body))}
	if wanted, err := digest.Parse(reference); err == nil {
		if d.Digest = wanted.Algorithm().FromBytes(body); d.Digest != wanted {
			return nil, d, fmt.Errorf("manifest %w for digest %s", ErrVerification, wanted)
		}
	}
	d.MediaType, err = mediaType(response.Header.Get("Content-Type"), body)
	return body, d, err
}

// mediaType is what the registry says a manifest is, or if it does not, what the
// manifest itself says. They must not contradict each other, and no document may be
// both a manifest and an index: what one reader takes for the one, the next takes for
// the other.
func mediaType(header string, body []byte) (string, error) {
	said, _, err := mime.ParseMediaType(header)
	if err != nil {
		said = ""
	}
	var m struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Manifests     json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return said, errdefs.ErrInvalidArgument.WithMessage("the manifest is not JSON: " + err.Error())
	}
	for _, old := range schema1 {
		if said == old || m.SchemaVersion == 1 {
			return images.MediaTypeDockerSchema1Manifest, nil
		}
	}
	if !images.IsManifestType(said) && !images.IsIndexType(said) {
		if m.MediaType == "" || images.IsManifestType(m.MediaType) == images.IsIndexType(m.MediaType) {
			return said, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("unsupported manifest media type %q", said))
		}
		said = m.MediaType
	}
	if m.MediaType != "" && m.MediaType != said {
		return said, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("mediaType in manifest should be '%s' not '%s'", said, m.MediaType))
	}
	if images.IsManifestType(said) && len(m.Manifests) > 0 || images.IsIndexType(said) && len(m.Layers)+len(m.Config) > 0 {
		return said, errdefs.ErrInvalidArgument.WithMessage("the manifest is both a manifest and an index")
	}
	return said, nil
}

// IsSchema1 says whether a manifest is of the kind that no engine reads any more.
func IsSchema1(d ocispec.Descriptor) bool {
	return d.MediaType == images.MediaTypeDockerSchema1Manifest
}

// Referrers are the manifests of a type that name a manifest or index as their subject
// (OCI distribution 1.1). A registry that does not list them may have the list under a
// tag made of the digest; none is no error.
func (r *Repository) Referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	list, err := r.listed(ctx, "referrers/"+subject.String()+"?artifactType="+url.QueryEscape(artifactType))
	if refused := Refusal(err); refused != nil && slices.Contains([]int{http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable}, refused.StatusCode) {
		list, err = r.listed(ctx, "manifests/"+subject.Algorithm().String()+"-"+subject.Encoded())
		if refused := Refusal(err); refused != nil && refused.StatusCode == http.StatusNotFound {
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(d ocispec.Descriptor) bool {
		return d.ArtifactType != artifactType || d.Digest.Validate() != nil
	}), nil
}

// listed are the entries of an index below the repository.
func (r *Repository) listed(ctx context.Context, path string) ([]ocispec.Descriptor, error) {
	response, err := r.ask(ctx, path, http.Header{"Accept": {ocispec.MediaTypeImageIndex}}, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, MaxDocument+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading an index: %w", err)
	case len(body) > MaxDocument:
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("the index has more than %d bytes", MaxDocument))
	}
	var index ocispec.Index
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("the index is not JSON: " + err.Error())
	}
	return index.Manifests, nil
}

// Blob opens a blob from an offset on. The answer begins at start: the offset, or
// zero where the registry cannot begin in the middle. The content is not proven.
func (r *Repository) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (body io.ReadCloser, start int64, err error) {
	path := "blobs/" + d.Digest.String()
	if offset > 0 {
		// With both ends: there are registries that want them.
		head := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", offset, d.Size-1)}}
		response, err := r.ask(ctx, path, head, http.StatusOK, http.StatusPartialContent)
		var refused *transport.Error
		switch {
		case errors.As(err, &refused) && refused.StatusCode == http.StatusRequestedRangeNotSatisfiable:
			// Without a range, below.
		case err != nil:
			return nil, 0, err
		case response.StatusCode == http.StatusOK:
			return whole(response, d)
		case isRange(response.Header.Get("Content-Range"), offset, d.Size):
			return response.Body, offset, nil
		default:
			_ = response.Body.Close() // it is some other part
		}
	}
	response, err := r.ask(ctx, path, nil, http.StatusOK)
	if err != nil {
		return nil, 0, err
	}
	return whole(response, d)
}

// whole is a response with all of a blob, if the registry's length is its size.
func whole(response *http.Response, d ocispec.Descriptor) (io.ReadCloser, int64, error) {
	if n := response.ContentLength; n >= 0 && n != d.Size {
		_ = response.Body.Close()
		return nil, 0, fmt.Errorf("blob %s has %d bytes at the registry, and %d by its manifest: %w", d.Digest, n, d.Size, ErrVerification)
	}
	return response.Body, 0, nil
}

// isRange reads "bytes FIRST-LAST/TOTAL" (RFC 9110, 14.4).
func isRange(text string, offset, size int64) bool {
	rest, ok := strings.CutPrefix(text, "bytes ")
	if !ok {
		return false
	}
	part, total, ok := strings.Cut(rest, "/")
	return ok && part == fmt.Sprintf("%d-%d", offset, size-1) && (total == "*" || total == fmt.Sprint(size))
}

// Tags lists a repository's tags.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	ctx, watch := watched(ctx, r.silence)
	defer watch.stop()
	tags, err := remote.List(r.name, r.Remote(ctx)...)
	if err != nil {
		return nil, watch.explain(plain(err))
	}
	return tags, nil
}

// CheckDescriptor refuses what a manifest says of a blob if it cannot be true.
func CheckDescriptor(d ocispec.Descriptor) error {
	if d.Digest.Validate() != nil {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid digest %q", d.Digest))
	}
	if d.Size < 0 {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("blob %s: size %d", d.Digest, d.Size))
	}
	return nil
}
