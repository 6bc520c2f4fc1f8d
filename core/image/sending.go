package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sourceLabel, with a registry's host behind it, is where a blob is known to be:
// repositories, separated by commas. It is containerd's.
const sourceLabel = "containerd.io/distribution.source."

// sending is one image or index as go-containerregistry wants it, from the content
// store.
type sending struct {
	*push
	ctx    context.Context // of the push: the library's interfaces have none
	mu     sync.Mutex
	layers []*sentLayer
}

// finish tells what came of the layers that did not have to be sent.
func (s *sending) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, layer := range s.layers {
		status := "Layer already exists"
		if layer.read.Load() {
			status = "Pushed"
		}
		s.out.say(short(layer.Descriptor.Digest), status)
	}
}

// sentIndex implements v1.ImageIndex.
type sentIndex struct {
	*sending
	descriptor ocispec.Descriptor
	raw        []byte
}

func (s *sending) index(d ocispec.Descriptor) (v1.ImageIndex, error) {
	raw, err := content.ReadBlob(s.ctx, s.content, d)
	return &sentIndex{s, d, raw}, err
}

// MediaType implements v1.ImageIndex, as do the following.
func (i *sentIndex) MediaType() (types.MediaType, error) {
	return types.MediaType(i.descriptor.MediaType), nil
}
func (i *sentIndex) Digest() (v1.Hash, error)     { return v1.NewHash(i.descriptor.Digest.String()) }
func (i *sentIndex) Size() (int64, error)         { return i.descriptor.Size, nil }
func (i *sentIndex) RawManifest() ([]byte, error) { return i.raw, nil }
func (i *sentIndex) IndexManifest() (*v1.IndexManifest, error) {
	return v1.ParseIndexManifest(bytes.NewReader(i.raw))
}
func (i *sentIndex) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	return nil, fmt.Errorf("%s is an index within an index", h)
}

func (i *sentIndex) Image(h v1.Hash) (v1.Image, error) {
	list, err := i.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range list.Manifests {
		if d.Digest == h {
			return i.image(descriptor(d))
		}
	}
	return nil, fmt.Errorf("the index does not have %s", h)
}

// sentImage implements v1.Image: all but its layers is computed from the manifest.
type sentImage struct {
	v1.Image
	layers []v1.Layer
}

// Layers implements v1.Image. Unlike those that are computed they may be mounted
// from other repositories.
func (i *sentImage) Layers() ([]v1.Layer, error) { return i.layers, nil }

func (s *sending) image(d ocispec.Descriptor) (v1.Image, error) {
	m, err := s.manifest(s.ctx, d)
	if err != nil {
		return nil, err
	}
	core := &imageCore{sending: s, descriptor: d, manifest: m}
	if core.raw, err = content.ReadBlob(s.ctx, s.content, d); err != nil {
		return nil, err
	}
	img, err := partial.CompressedToImage(core)
	if err != nil {
		return nil, err
	}
	sent := &sentImage{Image: img}
	for _, blob := range m.Layers {
		layer, err := s.layer(blob)
		if err != nil {
			return nil, err
		}
		sent.layers = append(sent.layers, layer)
	}
	return sent, nil
}

// imageCore implements partial.CompressedImageCore.
type imageCore struct {
	*sending
	descriptor ocispec.Descriptor
	manifest   ocispec.Manifest
	raw        []byte
}

// RawConfigFile implements partial.CompressedImageCore, as do the following.
func (c *imageCore) RawConfigFile() ([]byte, error) {
	return content.ReadBlob(c.ctx, c.content, c.manifest.Config)
}
func (c *imageCore) MediaType() (types.MediaType, error) {
	return types.MediaType(c.descriptor.MediaType), nil
}
func (c *imageCore) RawManifest() ([]byte, error) { return c.raw, nil }
func (c *imageCore) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range append(c.manifest.Layers, c.manifest.Config) {
		if d.Digest.String() == h.String() {
			return &sentLayer{sending: c.sending, Descriptor: d}, nil
		}
	}
	return nil, fmt.Errorf("the image does not have %s", h)
}

// sentLayer is a layer whose sending is shown; it implements
// partial.CompressedLayer.
type sentLayer struct {
	*sending
	ocispec.Descriptor
	read atomic.Bool
}

// Digest implements partial.CompressedLayer, as do the following.
func (l *sentLayer) Digest() (v1.Hash, error) { return v1.NewHash(l.Descriptor.Digest.String()) }
func (l *sentLayer) Size() (int64, error)     { return l.Descriptor.Size, nil }
func (l *sentLayer) MediaType() (types.MediaType, error) {
	return types.MediaType(l.Descriptor.MediaType), nil
}

func (l *sentLayer) Compressed() (io.ReadCloser, error) {
	l.read.Store(true)
	blob, err := l.content.ReaderAt(l.ctx, l.Descriptor)
	if err != nil {
		return nil, err
	}
	id := short(l.Descriptor.Digest)
	return &sentBlob{l.out.meter(id, "Pushing", l.Descriptor.Size, content.NewReader(blob)), blob}, nil
}

// sentBlob is a blob that is being read.
type sentBlob struct {
	io.Reader
	io.Closer
}

// layer answers a layer that is mounted where the registry has it already, if that
// is known.
func (s *sending) layer(d ocispec.Descriptor) (v1.Layer, error) {
	sent := &sentLayer{sending: s, Descriptor: d}
	layer, err := partial.CompressedToLayer(sent)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.layers = append(s.layers, sent)
	s.mu.Unlock()
	s.out.say(short(d.Digest), "Preparing")
	info, err := s.content.Info(s.ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	own := s.repository.RepositoryStr()
	for source := range strings.SplitSeq(info.Labels[sourceLabel+s.repository.RegistryStr()], ",") {
		if source != "" && source != own {
			return &remote.MountableLayer{Layer: layer, Reference: s.repository.Registry.Repo(source).Digest(d.Digest.String())}, nil
		}
	}
	return layer, nil
}

// comesFrom remembers that a registry has a blob in a repository. It only saves
// work: its failure is none.
func (s *Store) comesFrom(ctx context.Context, d digest.Digest, host, repository string) {
	label := sourceLabel + host
	info, err := s.content.Info(ctx, d)
	if err != nil {
		return
	}
	known := info.Labels[label]
	for source := range strings.SplitSeq(known, ",") {
		if source == repository {
			return
		}
	}
	if known != "" {
		repository = known + "," + repository
	}
	if len(label)+len(repository) > 4096 { // the database's bound
		return
	}
	_, err = s.content.Update(ctx, content.Info{Digest: d, Labels: map[string]string{label: repository}}, "labels."+label)
	if err != nil {
		s.Log.Debug("remembering where a blob comes from", "digest", d, "error", err)
	}
}

// encoded is v as the part of a message that is for programs.
func encoded(v any) *json.RawMessage {
	body, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	raw := json.RawMessage(body)
	return &raw
}
