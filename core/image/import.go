package image

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/go-archive/compression"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/plugin"
)

// Import makes an image of one layer from an archive of a root filesystem.
func (s *Store) Import(ctx context.Context, o ImportOptions, in io.Reader, out func(jsonstream.Message) error) (err error) {
	named, err := newName(o.Repo, o.Tag)
	if err != nil {
		return err
	}
	if err := s.Policy.Archive(); err != nil {
		return err
	}
	config := dockerspec.DockerOCIImage{}
	config.Architecture, config.OS = runtime.GOARCH, "linux"
	if o.Platform != "" {
		p, err := platforms.Parse(o.Platform)
		if err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		config.Platform = p
	}
	if err := applyChanges(&config.Config, o.Changes); err != nil {
		return err
	}
	ctx, done, err := s.leased(ctx)
	if err != nil {
		return err
	}
	defer s.collectAfter(ctx, done, &err)
	if o.Source != "" {
		body, err := download(ctx, o.Source, newProgress(out))
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		in = body
	}
	layer, diffID, err := s.importLayer(ctx, in)
	if err != nil {
		return fmt.Errorf("importing the root filesystem: %w", err)
	}
	now := time.Now().UTC()
	comment := o.Message
	if comment == "" {
		comment = "Imported from " + cmp.Or(o.Source, "-")
	}
	config.Created = &now
	config.History = []ocispec.History{{Created: &now, Comment: comment}}
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}
	img, err := s.assemble(ctx, config, []ocispec.Descriptor{layer})
	if err != nil {
		return err
	}
	if _, err := s.unpack(ctx, *img, s.Drivers.Default(plugin.Storage), func(int, string) {}); err != nil {
		return err
	}
	full := dangling + img.Target.Digest.String()
	if named != nil {
		full = named.String()
	}
	if _, err := s.name(ctx, full, img.Target, nil); err != nil {
		return err
	}
	s.event(events.ActionImport, img.ID.String(), img.ID.String())
	return out(jsonstream.Message{Status: img.ID.String()})
}

// newName is the name of a new image; nil for none.
func newName(repo, tag string) (reference.Named, error) {
	if repo == "" {
		return nil, nil
	}
	text := repo
	if tag != "" {
		text += ":" + tag
	}
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("invalid reference format")
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, errdefs.ErrInvalidArgument.WithMessage("refusing to create a tag with a digest reference")
	}
	return reference.TagNameOnly(named), nil
}

// importLayer stores the archive as it came, where every engine can read its
// compression, or else uncompressed.
func (s *Store) importLayer(ctx context.Context, in io.Reader) (layer ocispec.Descriptor, diffID digest.Digest, err error) {
	buffered := bufio.NewReaderSize(in, 64<<10)
	head, _ := buffered.Peek(16) // what is wrong with the rest is found when it is copied
	if len(head) == 0 {
		return layer, "", fmt.Errorf("the archive is empty: %w", errdefs.ErrInvalidArgument)
	}
	body := io.Reader(buffered)
	layer.MediaType = ocispec.MediaTypeImageLayer
	switch compression.Detect(head) {
	case compression.Gzip:
		layer.MediaType = ocispec.MediaTypeImageLayerGzip
	case compression.Zstd:
		layer.MediaType = ocispec.MediaTypeImageLayerZstd
	case compression.None:
	default:
		plain, err := compression.DecompressStream(buffered)
		if err != nil {
			return layer, "", corrupt(err)
		}
		defer func() { _ = plain.Close() }()
		body = plain
	}
	compressed := digest.Canonical.Digester()
	ref := "import-" + container.NewID()
	writer, err := content.OpenWriter(ctx, s.content, content.WithRef(ref))
	if err != nil {
		return layer, "", err
	}
	defer func() {
		_ = writer.Close()
		if err != nil {
			_ = s.content.Abort(context.WithoutCancel(ctx), ref)
		}
	}()
	if layer.Size, err = io.Copy(io.MultiWriter(writer, compressed.Hash()), body); err != nil {
		return layer, "", err
	}
	layer.Digest = compressed.Digest()
	if err := writer.Commit(ctx, layer.Size, layer.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return layer, "", err
	}
	diffID, err = s.plainDigest(ctx, layer)
	return layer, diffID, err
}

// plainDigest is the digest of a blob without its compression.
func (s *Store) plainDigest(ctx context.Context, d ocispec.Descriptor) (digest.Digest, error) {
	if d.MediaType == ocispec.MediaTypeImageLayer {
		return d.Digest, nil
	}
	blob, err := s.content.ReaderAt(ctx, d)
	if err != nil {
		return "", err
	}
	defer func() { _ = blob.Close() }()
	plain, err := compression.DecompressStream(content.NewReader(blob))
	if err != nil {
		return "", corrupt(err)
	}
	defer func() { _ = plain.Close() }()
	digester := digest.Canonical.Digester()
	if _, err := io.Copy(digester.Hash(), plain); err != nil {
		return "", corrupt(err)
	}
	return digester.Digest(), nil
}

// assemble stores configuration and manifest of a new image.
func (s *Store) assemble(ctx context.Context, config dockerspec.DockerOCIImage, layers []ocispec.Descriptor) (*Image, error) {
	configured, err := s.writeJSON(ctx, ocispec.MediaTypeImageConfig, config)
	if err != nil {
		return nil, err
	}
	target, err := s.writeJSON(ctx, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: configured, Layers: layers,
	})
	if err != nil {
		return nil, err
	}
	if err := s.link(ctx, target); err != nil {
		return nil, err
	}
	return s.read(ctx, target)
}

func (s *Store) writeJSON(ctx context.Context, mediaType string, v any) (ocispec.Descriptor, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	return d, s.write(ctx, d, bytes.NewReader(body))
}
