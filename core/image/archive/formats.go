package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	"github.com/moby/go-archive/compression"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layout answers the images of an OCI image layout.
func (r *reader) layout() ([]Image, error) {
	var version ocispec.ImageLayout
	if err := r.json(layoutFile, &version); err != nil {
		return nil, err
	}
	if version.Version != ocispec.ImageLayoutVersion {
		return nil, invalid(fmt.Sprintf("the archive is an OCI image layout of version %q: only %s is known", version.Version, ocispec.ImageLayoutVersion))
	}
	var index ocispec.Index
	if err := r.json(indexFile, &index); err != nil {
		return nil, err
	}
	var list []Image
	for _, d := range index.Manifests {
		if !images.IsManifestType(d.MediaType) && !images.IsIndexType(d.MediaType) {
			return nil, invalid(fmt.Sprintf("index.json of the archive lists %s of the unknown type %q", d.Digest, d.MediaType))
		}
		if err := d.Digest.Validate(); err != nil {
			return nil, invalid(fmt.Sprintf("index.json of the archive has the digest %q: %v", d.Digest, err))
		}
		found, ok := r.find(blobName(d.Digest))
		if !ok {
			return nil, invalid(fmt.Sprintf("the archive lacks blob %s", d.Digest))
		}
		list = add(list, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: found.Size}, layoutName(d))
	}
	return list, nil
}

// add puts an image, or a further name of one, on a list.
func add(list []Image, target ocispec.Descriptor, names ...string) []Image {
	i := slices.IndexFunc(list, func(img Image) bool { return img.Target.Digest == target.Digest })
	if i < 0 {
		list = append(list, Image{Target: target})
		i = len(list) - 1
	}
	for _, name := range names {
		if name != "" && !slices.Contains(list[i].Names, name) {
			list[i].Names = append(list[i].Names, name)
		}
	}
	return list
}

// layoutName is what a layout calls an image: containerd's full name, or the tag
// that others give.
func layoutName(d ocispec.Descriptor) string {
	for _, key := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
		named, err := reference.ParseNormalizedNamed(d.Annotations[key])
		if err != nil {
			continue
		}
		if _, ok := named.(reference.Digested); ok {
			continue
		}
		return reference.TagNameOnly(named).String()
	}
	return ""
}

// docker answers the images of manifest.json, for which it makes manifests.
func (r *reader) docker(ctx context.Context) ([]Image, error) {
	var entries []dockerImage
	if err := r.json(manifestFile, &entries); err != nil {
		return nil, err
	}
	var list []Image
	for _, entry := range entries {
		var names []string
		for _, tag := range entry.RepoTags {
			named, err := reference.ParseNormalizedNamed(tag)
			if err != nil {
				return nil, invalid(fmt.Sprintf("manifest.json of the archive has the name %q: invalid reference format", tag))
			}
			names = append(names, reference.TagNameOnly(named).String())
		}
		target, err := r.manifest(ctx, entry)
		if err != nil {
			return nil, err
		}
		list = add(list, target, names...)
	}
	return list, nil
}

func (r *reader) manifest(ctx context.Context, entry dockerImage) (target ocispec.Descriptor, err error) {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: images.MediaTypeDockerSchema2Manifest, Layers: []ocispec.Descriptor{}}
	var ok bool
	if m.Config, ok = r.find(entry.Config); !ok {
		return target, invalid(fmt.Sprintf("the archive lacks the configuration %q", entry.Config))
	}
	m.Config.MediaType = images.MediaTypeDockerSchema2Config
	for _, name := range entry.Layers {
		layer, ok := r.find(name)
		if !ok {
			return target, invalid(fmt.Sprintf("the archive lacks the layer %q", name))
		}
		if layer, err = r.layer(ctx, layer); err != nil {
			return target, fmt.Errorf("layer %q of the archive: %w", name, err)
		}
		m.Layers = append(m.Layers, layer)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return target, err
	}
	target = ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	return target, content.WriteBlob(ctx, r.store, "archive-"+target.Digest.String(), bytes.NewReader(body), target)
}

// layer finds out how a layer is compressed. One whose compression has no media
// type is stored without it.
func (r *reader) layer(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	blob, err := r.store.ReaderAt(ctx, d)
	if err != nil {
		return d, err
	}
	defer func() { _ = blob.Close() }()
	var head [16]byte
	n, _ := blob.ReadAt(head[:], 0) // a short one is not compressed
	switch compression.Detect(head[:n]) {
	case compression.None:
		d.MediaType = images.MediaTypeDockerSchema2Layer
	case compression.Gzip:
		d.MediaType = images.MediaTypeDockerSchema2LayerGzip
	case compression.Zstd:
		d.MediaType = images.MediaTypeDockerSchema2LayerZstd
	default:
		return r.plain(ctx, content.NewReader(blob), d)
	}
	return d, nil
}

func (r *reader) plain(ctx context.Context, body io.Reader, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	in, err := compression.DecompressStream(body)
	if err != nil {
		return d, unreadable(err)
	}
	defer func() { _ = in.Close() }()
	plain, err := r.ingest(ctx, "plain-"+d.Digest.Encoded(), in, func(ocispec.Descriptor) error { return nil })
	plain.MediaType = images.MediaTypeDockerSchema2Layer
	return plain, err
}

func blobName(d digest.Digest) string {
	return ocispec.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}
