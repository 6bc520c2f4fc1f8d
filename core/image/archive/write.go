package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/image/interrupt"
)

// Saved is an image to be written.
type Saved struct {
	Image
	// Manifest is what Docker's part of the archive has of an index.
	Manifest ocispec.Descriptor
}

// Write writes images as one archive that both Docker and OCI tools read: every
// blob once, checked on its way, and of an index what the store has of it. The same
// images make the same archive. ErrDataLoss for a blob that is not what its digest
// says.
func Write(ctx context.Context, store content.Provider, list []Saved, out io.Writer) error {
	w := &writer{store: store, out: tar.NewWriter(out), written: map[digest.Digest]bool{}}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	entries := []dockerImage{}
	repos := map[string]map[string]string{}
	for _, dir := range []string{ocispec.ImageBlobsDir, ocispec.ImageBlobsDir + "/" + digest.Canonical.String()} {
		if err := w.head(tar.TypeDir, dir+"/", 0o755, 0); err != nil {
			return err
		}
	}
	for _, img := range list {
		if err := w.tree(ctx, img.Target); err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, named(img.Image)...)
		entry, err := w.entry(ctx, img)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(entries, func(other dockerImage) bool {
			return other.Config == entry.Config && slices.Equal(other.Layers, entry.Layers)
		}); i >= 0 {
			entries[i].RepoTags = append(entries[i].RepoTags, entry.RepoTags...)
		} else {
			entries = append(entries, entry)
		}
		if err := note(repos, img, entry); err != nil {
			return err
		}
	}
	for _, file := range []struct {
		name  string
		value any
	}{{indexFile, index}, {manifestFile, entries}, {layoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}}, {reposFile, repos}} {
		if file.name == reposFile && len(repos) == 0 {
			continue
		}
		if err := w.json(file.name, file.value); err != nil {
			return err
		}
	}
	return w.out.Close()
}

// named is an image's descriptor, once for each name.
func named(img Image) []ocispec.Descriptor {
	if len(img.Names) == 0 {
		return []ocispec.Descriptor{img.Target}
	}
	var list []ocispec.Descriptor
	for _, name := range img.Names {
		d := img.Target
		d.Annotations = map[string]string{images.AnnotationImageName: name, ocispec.AnnotationRefName: name}
		if parsed, err := reference.ParseNormalizedNamed(name); err == nil {
			if tagged, ok := parsed.(reference.Tagged); ok {
				d.Annotations[ocispec.AnnotationRefName] = tagged.Tag()
			}
		}
		list = append(list, d)
	}
	return list
}

// note remembers an image's names by its topmost layer, as docker load before
// version 1.10 wants them.
func note(repos map[string]map[string]string, img Saved, entry dockerImage) error {
	for _, name := range img.Names {
		parsed, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return err
		}
		tagged, ok := parsed.(reference.Tagged)
		if !ok || len(entry.Layers) == 0 {
			continue
		}
		repository := reference.FamiliarName(parsed)
		if repos[repository] == nil {
			repos[repository] = map[string]string{}
		}
		top := entry.Layers[len(entry.Layers)-1]
		repos[repository][tagged.Tag()] = top[len(top)-digest.Canonical.Size()*2:]
	}
	return nil
}

type writer struct {
	store   content.Provider
	out     *tar.Writer
	written map[digest.Digest]bool
}

// entry is an image's part of manifest.json.
func (w *writer) entry(ctx context.Context, img Saved) (entry dockerImage, err error) {
	var m ocispec.Manifest
	if err := readJSON(ctx, w.store, img.Manifest, &m); err != nil {
		return entry, err
	}
	entry.Config, entry.RepoTags, entry.Layers = blobName(m.Config.Digest), []string{}, []string{}
	for _, layer := range m.Layers {
		entry.Layers = append(entry.Layers, blobName(layer.Digest))
	}
	for _, name := range img.Names {
		parsed, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return entry, err
		}
		entry.RepoTags = append(entry.RepoTags, reference.FamiliarString(parsed))
	}
	return entry, nil
}

// tree writes a blob and all that it needs; of an index only what is here.
func (w *writer) tree(ctx context.Context, d ocispec.Descriptor) error {
	children, err := images.Children(ctx, w.store, d)
	if err != nil {
		return err
	}
	if err := w.blob(ctx, d); err != nil {
		return err
	}
	for _, child := range children {
		err := w.complete(ctx, child)
		if errdefs.IsNotFound(err) && images.IsIndexType(d.MediaType) {
			continue // a platform that was not fetched
		}
		if err == nil {
			err = w.tree(ctx, child)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// complete answers ErrNotFound unless a blob and all that it needs are here.
func (w *writer) complete(ctx context.Context, d ocispec.Descriptor) error {
	blob, err := w.store.ReaderAt(ctx, d)
	if err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	_ = blob.Close()
	children, err := images.Children(ctx, w.store, d)
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := w.complete(ctx, child); err != nil && (!errdefs.IsNotFound(err) || !images.IsIndexType(d.MediaType)) {
			return err
		}
	}
	return nil
}

func (w *writer) head(kind byte, name string, mode, size int64) error {
	return w.out.WriteHeader(&tar.Header{Typeflag: kind, Name: name, Mode: mode, Size: size, ModTime: time.Unix(0, 0)})
}

func (w *writer) json(name string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := w.head(tar.TypeReg, name, 0o644, int64(len(body))); err != nil {
		return err
	}
	_, err = w.out.Write(body)
	return err
}

func (w *writer) blob(ctx context.Context, d ocispec.Descriptor) (err error) {
	if w.written[d.Digest] {
		return nil
	}
	w.written[d.Digest] = true
	blob, err := w.store.ReaderAt(ctx, d)
	if err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	if err := w.head(tar.TypeReg, blobName(d.Digest), 0o444, blob.Size()); err != nil {
		return err
	}
	verifier := d.Digest.Verifier()
	if _, err := io.Copy(io.MultiWriter(w.out, verifier), interrupt.Reader(ctx, content.NewReader(blob))); err != nil {
		return err
	}
	if !verifier.Verified() {
		return fmt.Errorf("blob %s is corrupt on disk: %w", d.Digest, errdefs.ErrDataLoss)
	}
	return nil
}

func readJSON(ctx context.Context, store content.Provider, d ocispec.Descriptor, v any) error {
	body, err := content.ReadBlob(ctx, store, d)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, v)
}
