package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/moby/go-archive/compression"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bounds of what an archive may make the engine keep in memory.
const (
	maxJSON    = 8 << 20
	maxEntries = 100000
)

// Read stores an archive's blobs and answers its images. It may be compressed with
// gzip, zstd, bzip2 or xz. ErrInvalidArgument for one that is no archive of images,
// is cut off, or has blobs that are not what their names say. The caller's lease
// keeps the blobs; without one they may be collected at once.
func Read(ctx context.Context, store content.Store, in io.Reader) ([]Image, error) {
	plain, err := compression.DecompressStream(in)
	if err != nil {
		return nil, unreadable(err)
	}
	defer func() { _ = plain.Close() }()
	r := &reader{store: store, files: map[string][]byte{}, blobs: map[string]ocispec.Descriptor{}, links: map[string]string{}}
	if err := r.entries(ctx, tar.NewReader(plain)); err != nil {
		return nil, err
	}
	// The checksum of the compression comes last.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return nil, unreadable(err)
	}
	switch {
	case r.files[layoutFile] != nil && r.files[indexFile] != nil:
		return r.layout()
	case r.files[manifestFile] != nil:
		return r.docker(ctx)
	case r.files[reposFile] != nil:
		return nil, invalid("the archive has no manifest.json: archives of Docker before version 1.10 are not supported")
	}
	return nil, invalid("the archive is no archive of images: it has neither manifest.json nor an OCI image layout")
}

// unreadable marks what is wrong with an archive, unless this host is at fault.
func unreadable(err error) error {
	for _, host := range []error{context.Canceled, context.DeadlineExceeded, syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.ENOMEM} {
		if errors.Is(err, host) {
			return fmt.Errorf("reading the archive: %w", err)
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return invalid("reading the archive: " + err.Error())
}

// reader is an archive that is being read.
type reader struct {
	store content.Store
	files map[string][]byte             // the small ones that describe the rest
	blobs map[string]ocispec.Descriptor // all others, by name; without media type
	links map[string]string
}

func (r *reader) entries(ctx context.Context, in *tar.Reader) error {
	for n := 0; ; n++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unreadable(err)
		}
		if n == maxEntries {
			return invalid(fmt.Sprintf("the archive has more than %d entries", maxEntries))
		}
		if slices.Contains(strings.Split(h.Name, "/"), "..") {
			return invalid(fmt.Sprintf("the archive has the name %q, which leads out of it", h.Name))
		}
		if err := r.entry(ctx, h, in); err != nil {
			return err
		}
	}
}

func (r *reader) entry(ctx context.Context, h *tar.Header, body io.Reader) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	switch h.Typeflag {
	case tar.TypeSymlink:
		r.links[name] = path.Join(path.Dir(name), h.Linkname)
		return nil
	case tar.TypeLink:
		r.links[name] = strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
		return nil
	case tar.TypeReg:
	default:
		return nil
	}
	switch {
	case slices.Contains([]string{layoutFile, indexFile, manifestFile, reposFile}, name):
		if h.Size > maxJSON {
			return invalid(fmt.Sprintf("%s has %d bytes, more than the %d that are read", name, h.Size, maxJSON))
		}
		text, err := io.ReadAll(body)
		if err != nil {
			return unreadable(err)
		}
		r.files[name] = text
		return nil
	case path.Base(name) == "VERSION", path.Base(name) == "json":
		return nil // of archives of old, for those who do not know manifest.json
	}
	blob, err := r.blob(ctx, name, h.Size, body)
	if err != nil {
		return err
	}
	r.blobs[name] = blob
	return nil
}

// blob stores a file under its digest, which in a layout is its name.
func (r *reader) blob(ctx context.Context, name string, size int64, body io.Reader) (ocispec.Descriptor, error) {
	var expected digest.Digest
	if hex, ok := strings.CutPrefix(name, ocispec.ImageBlobsDir+"/"+digest.SHA256.String()+"/"); ok {
		if expected = digest.NewDigestFromEncoded(digest.SHA256, hex); expected.Validate() != nil {
			return ocispec.Descriptor{}, invalid(fmt.Sprintf("the archive has the name %q, which is no digest", name))
		}
	}
	return r.ingest(ctx, digest.FromString(name).Encoded(), body, func(d ocispec.Descriptor) error {
		switch {
		case d.Size != size:
			return unreadable(io.ErrUnexpectedEOF)
		case expected != "" && d.Digest != expected:
			return invalid(fmt.Sprintf("blob %s is damaged: its content has the digest %s", expected, d.Digest))
		}
		return nil
	})
}

// ingest stores a blob that check approves of. Nothing is left of one that fails.
func (r *reader) ingest(ctx context.Context, name string, body io.Reader, check func(ocispec.Descriptor) error) (d ocispec.Descriptor, err error) {
	ref := fmt.Sprintf("archive-%s-%p", name, r)
	writer, err := content.OpenWriter(ctx, r.store, content.WithRef(ref))
	if err != nil {
		return d, err
	}
	defer func() {
		_ = writer.Close()
		if err != nil {
			_ = r.store.Abort(context.WithoutCancel(ctx), ref)
		}
	}()
	if err := writer.Truncate(0); err != nil {
		return d, err
	}
	if d.Size, err = io.Copy(writer, body); err != nil {
		return d, unreadable(err)
	}
	d.Digest = writer.Digest()
	if err := check(d); err != nil {
		return d, err
	}
	if err := writer.Commit(ctx, d.Size, d.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return d, err
	}
	return d, nil
}

// find answers the blob of a name, through the links of archives in which images
// share layers.
func (r *reader) find(name string) (ocispec.Descriptor, bool) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for range 8 {
		if d, ok := r.blobs[name]; ok {
			return d, true
		}
		next, ok := r.links[name]
		if !ok {
			break
		}
		name = next
	}
	return ocispec.Descriptor{}, false
}

func (r *reader) json(name string, v any) error {
	if err := json.Unmarshal(r.files[name], v); err != nil {
		return invalid(fmt.Sprintf("%s of the archive: %v", name, err))
	}
	return nil
}
