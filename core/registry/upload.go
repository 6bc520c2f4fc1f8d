package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// commitTime is how many times longer than otherwise a registry may be silent when it
// has been sent all of something: it may still be on its way, and be hashed and moved.
const commitTime = 4

// abortTime is how long an upload is called off at most.
const abortTime = 5 * time.Second

// Has says whether the repository has a blob.
func (r *Repository) Has(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	response, err := r.do(ctx, call{method: http.MethodHead, address: r.below("blobs/" + d.Digest.String()), silence: r.silence, want: []int{http.StatusOK, http.StatusNotFound}})
	if err != nil {
		return false, err
	}
	return response.StatusCode == http.StatusOK, response.Body.Close()
}

// Upload is a blob on its way to a repository. It is not safe for concurrent use.
type Upload struct {
	repository *Repository
	blob       ocispec.Descriptor
	location   string
	offset     int64
}

// Begin begins an upload. With another repository of the registry's it is asked to take
// the blob over from there; a registry need not do so, and may not know the other or
// not show it. If it has done so, the answer is nil.
func (r *Repository) Begin(ctx context.Context, d ocispec.Descriptor, from string) (*Upload, error) {
	path, want := "blobs/uploads/", []int{http.StatusAccepted}
	if from != "" {
		path += "?" + url.Values{"mount": {d.Digest.String()}, "from": {from}}.Encode()
		want = append(want, http.StatusCreated)
	}
	response, err := r.do(ctx, call{method: http.MethodPost, address: r.below(path), silence: r.silence, want: want})
	if from != "" && Refusal(err) != nil && !MayPass(err) {
		return r.Begin(ctx, d, "")
	}
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusCreated {
		return nil, response.Body.Close()
	}
	u := &Upload{repository: r, blob: d}
	return u, errors.Join(u.goesOnAt(response), response.Body.Close())
}

// Offset is how many bytes the registry said that it has.
func (u *Upload) Offset() int64 { return u.offset }

// Send sends the blob from the offset on; tell hears how far it is. After a failure
// [Upload.Resume] says how much of it arrived.
func (u *Upload) Send(ctx context.Context, content io.ReaderAt, tell func(offset int64)) error {
	head := http.Header{"Content-Type": {"application/octet-stream"}}
	if u.offset > 0 {
		head.Set("Content-Range", fmt.Sprintf("%d-%d", u.offset, u.blob.Size-1))
	}
	body := &sentBody{content: content, begin: u.offset, size: u.blob.Size, tell: tell}
	response, err := u.repository.do(ctx, call{
		method: http.MethodPatch, address: u.location, head: head, body: body, silence: u.repository.silence,
		want: []int{http.StatusAccepted, http.StatusNoContent, http.StatusCreated},
	})
	if failed := body.failed; failed != nil {
		return errors.Join(&sourceError{failed}, closed(response))
	}
	if err != nil {
		return err
	}
	u.offset = u.blob.Size
	return errors.Join(u.goesOnAt(response), response.Body.Close())
}

func closed(response *http.Response) error {
	if response == nil {
		return nil
	}
	return response.Body.Close()
}

// sourceError is a fault of the blob that is sent, not of the registry.
type sourceError struct{ error }

// Unwrap answers the fault.
func (e *sourceError) Unwrap() error { return e.error }

// Resume asks after a failure how much the registry has. It is false if the registry
// does not know the upload any more, or does not say.
func (u *Upload) Resume(ctx context.Context) (bool, error) {
	response, err := u.repository.do(ctx, call{method: http.MethodGet, address: u.location, silence: u.repository.silence, want: []int{http.StatusNoContent}})
	if err != nil {
		return false, unlessRefused(err)
	}
	if err := response.Body.Close(); err != nil {
		return false, err
	}
	// Without Location it goes on where it is (OCI distribution, "pushing a blob in chunks").
	where := response.Header.Get("Location") == "" || u.goesOnAt(response) == nil
	offset, ok := received(response.Header.Get("Range"))
	if !where || !ok || offset > u.blob.Size {
		return false, nil
	}
	u.offset = offset
	return true, nil
}

// unlessRefused is an error that is no refusal for good.
func unlessRefused(err error) error {
	if Refusal(err) != nil && !MayPass(err) {
		return nil
	}
	return err
}

// received reads "0-LAST", how much of an upload a registry has. Of nothing they say
// 0-0, as of one byte: what is sent then is refused where it is wrong.
func received(text string) (offset int64, ok bool) {
	last, ok := strings.CutPrefix(strings.TrimPrefix(text, "bytes="), "0-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(last, 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	if n > 0 {
		n++
	}
	return n, true
}

// Commit ends an upload: the registry proves the digest.
func (u *Upload) Commit(ctx context.Context) error {
	address, err := url.Parse(u.location)
	if err != nil {
		return err
	}
	query := address.Query()
	query.Set("digest", u.blob.Digest.String())
	address.RawQuery = query.Encode()
	response, err := u.repository.do(ctx, call{
		method: http.MethodPut, address: address.String(), head: http.Header{"Content-Type": {"application/octet-stream"}},
		silence: commitTime * u.repository.silence, want: []int{http.StatusCreated, http.StatusNoContent},
	})
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// Abort calls an upload off, if the registry listens: it forgets it by itself otherwise.
func (u *Upload) Abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	response, err := u.repository.do(ctx, call{method: http.MethodDelete, address: u.location, silence: u.repository.silence, want: []int{http.StatusNoContent, http.StatusAccepted, http.StatusOK}})
	if err == nil {
		_ = response.Body.Close()
	}
}

// goesOnAt keeps where a registry wants the rest. It may be at another host, but not at
// one that only this host reaches.
func (u *Upload) goesOnAt(response *http.Response) error {
	location, err := response.Location()
	if err != nil {
		return fmt.Errorf("the registry does not say where the upload goes on: %w", err)
	}
	if isPrivate(location.Hostname()) && location.Hostname() != response.Request.URL.Hostname() && !isPrivate(response.Request.URL.Hostname()) {
		return fmt.Errorf("the registry sends the upload to the private address %s", location.Hostname())
	}
	u.location = location.String()
	return nil
}

func isPrivate(host string) bool {
	ip, err := netip.ParseAddr(host)
	return isLoopback(host) || err == nil && (ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified())
}

// PutManifest stores a manifest or index under a tag or its digest.
func (r *Repository) PutManifest(ctx context.Context, reference, mediaType string, body []byte) error {
	response, err := r.do(ctx, call{
		method: http.MethodPut, address: r.below("manifests/" + reference), head: http.Header{"Content-Type": {mediaType}},
		body: &sentBody{content: bytes.NewReader(body), size: int64(len(body))}, silence: r.silence,
		want: []int{http.StatusCreated, http.StatusOK, http.StatusAccepted},
	})
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// sentBody is the rest of a blob as a request has it. The transport may read for a
// moment longer than the request lasts: after end nothing is read or told.
type sentBody struct {
	content     io.ReaderAt
	begin, size int64
	tell        func(offset int64) // may be nil

	mu     sync.Mutex
	watch  *watch
	ended  bool
	failed error // of content
}

// attach makes it the body of a request, whose watch sees each read: the transport
// reads when the registry has taken what was before.
func (b *sentBody) attach(request *http.Request, w *watch) {
	b.watch = w
	request.ContentLength = b.size - b.begin
	// A connection that was idle may turn out to be closed: then it is sent once more.
	request.GetBody = func() (io.ReadCloser, error) { return &sentReader{sentBody: b, offset: b.begin}, nil }
	request.Body, _ = request.GetBody()
	if request.ContentLength == 0 {
		request.Body, request.GetBody = http.NoBody, nil
	}
}

func (b *sentBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
}

// sentReader reads a body once.
type sentReader struct {
	*sentBody
	offset int64
}

// Read implements io.Reader.
func (r *sentReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return 0, http.ErrBodyReadAfterClose
	}
	if r.offset == r.size {
		return 0, io.EOF
	}
	n, err := r.content.ReadAt(p[:min(int64(len(p)), r.size-r.offset)], r.offset)
	if n > 0 {
		err = nil
	} else if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		r.failed = err
		return 0, err
	}
	r.offset += int64(n)
	limit := r.watch.limit
	if r.offset == r.size {
		limit *= commitTime
	}
	r.watch.timer.Reset(limit)
	if r.tell != nil {
		r.tell(r.offset)
	}
	return n, nil
}

// Close implements io.Closer: the content is its owner's.
func (r *sentReader) Close() error { return nil }
