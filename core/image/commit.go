package image

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/container"
)

// CommitOptions describe the image that a container becomes.
type CommitOptions struct {
	Repo, Tag, Author, Comment string
	Changes                    []string // Dockerfile instructions: CMD, ENV, ...
	// Config is what the user sets; the container's own fills what it leaves open.
	Config, Container dockerspec.DockerOCIImageConfig
	Image             string // ID of the image that the container was made of
	Driver            string // storage driver of the container
}

// Commit makes an image of a container's image and the changes that write puts out
// as a layer, or with no layer if there are none. It answers the image's ID.
func (s *Store) Commit(ctx context.Context, o CommitOptions, write func(io.Writer) (empty bool, err error)) (_ string, err error) {
	named, err := newName(o.Repo, o.Tag)
	if err != nil {
		return "", err
	}
	set := o.Config
	if err := applyChanges(&set, o.Changes); err != nil {
		return "", err
	}
	ctx, done, err := s.leased(ctx)
	if err != nil {
		return "", err
	}
	defer s.collectAfter(ctx, done, &err)
	base, err := s.Resolve(ctx, o.Image)
	if err != nil {
		return "", err
	}
	manifest, err := s.manifest(ctx, base.Manifest)
	if err == nil {
		err = s.whole(ctx, base.shown(), base.Manifest)
	}
	if err != nil {
		return "", err
	}
	if err := s.hold(ctx, manifest.Layers...); err != nil {
		return "", err
	}
	layer, diffID, err := s.writeLayer(ctx, write)
	if err != nil {
		return "", fmt.Errorf("committing the changes: %w", err)
	}
	now := time.Now().UTC()
	step := ocispec.History{Created: &now, CreatedBy: strings.Join(o.Container.Cmd, " "), Author: o.Author, Comment: o.Comment, EmptyLayer: layer == nil}
	config := base.Config
	config.Config = fill(set, o.Container)
	config.Created, config.History = &now, append(slices.Clone(config.History), step)
	if o.Author != "" {
		config.Author = o.Author
	}
	layers := manifest.Layers
	if layer != nil {
		layers = append(slices.Clone(layers), *layer)
		config.RootFS.DiffIDs = append(slices.Clone(config.RootFS.DiffIDs), diffID)
	}
	img, err := s.assemble(ctx, config, layers)
	if err != nil {
		return "", err
	}
	if _, err := s.unpack(ctx, *img, o.Driver, func(int, string) {}); err != nil {
		return "", err
	}
	full := dangling + img.Target.Digest.String()
	if named != nil {
		full = named.String()
	}
	if _, err := s.name(ctx, full, img.Target, nil); err != nil {
		return "", err
	}
	return img.ID.String(), nil
}

// writeLayer stores what write puts out, compressed. The layer is nil if it is
// empty.
func (s *Store) writeLayer(ctx context.Context, write func(io.Writer) (empty bool, err error)) (_ *ocispec.Descriptor, diffID digest.Digest, err error) {
	ref := "commit-" + container.NewID()
	writer, err := content.OpenWriter(ctx, s.content, content.WithRef(ref))
	if err != nil {
		return nil, "", err
	}
	stored := false
	defer func() {
		_ = writer.Close()
		if !stored {
			_ = s.content.Abort(context.WithoutCancel(ctx), ref)
		}
	}()
	plain := digest.Canonical.Digester()
	compressed := gzip.NewWriter(writer)
	empty, err := write(io.MultiWriter(plain.Hash(), compressed))
	if err != nil || empty {
		return nil, "", err
	}
	if err := compressed.Close(); err != nil {
		return nil, "", err
	}
	status, err := writer.Status()
	if err != nil {
		return nil, "", err
	}
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: writer.Digest(), Size: status.Offset}
	if err := writer.Commit(ctx, layer.Size, layer.Digest); errdefs.IsAlreadyExists(err) {
		return &layer, plain.Digest(), s.hold(ctx, layer)
	} else if err != nil {
		return nil, "", err
	}
	stored = true
	return &layer, plain.Digest(), nil
}

// collectAfter ends a lease, and frees at once what an operation that failed has
// written under it.
func (s *Store) collectAfter(ctx context.Context, done func(), err *error) {
	done()
	if *err != nil {
		s.collect(ctx)
	}
}

// fill takes from a container's configuration what the user's leaves open, as
// Docker does.
func fill(set, from dockerspec.DockerOCIImageConfig) dockerspec.DockerOCIImageConfig {
	if set.User == "" {
		set.User = from.User
	}
	set.ExposedPorts = union(from.ExposedPorts, set.ExposedPorts)
	set.Volumes = union(from.Volumes, set.Volumes)
	set.Labels = union(from.Labels, set.Labels)
	set.Env = slices.Clone(set.Env)
	for _, entry := range from.Env {
		key, _, _ := strings.Cut(entry, "=")
		if !slices.ContainsFunc(set.Env, func(own string) bool { k, _, _ := strings.Cut(own, "="); return k == key }) {
			set.Env = append(set.Env, entry)
		}
	}
	if len(set.Entrypoint) == 0 {
		if len(set.Cmd) == 0 {
			set.Cmd = from.Cmd
		}
		if set.Entrypoint == nil {
			set.Entrypoint = from.Entrypoint
		}
	}
	if set.Healthcheck == nil {
		set.Healthcheck = from.Healthcheck
	}
	if set.WorkingDir == "" {
		set.WorkingDir = from.WorkingDir
	}
	if set.StopSignal == "" {
		set.StopSignal = from.StopSignal
	}
	if len(set.Shell) == 0 {
		set.Shell = from.Shell
	}
	return set
}

// union has the entries of two maps; the second's win.
func union[V any](a, b map[string]V) map[string]V {
	if len(a)+len(b) == 0 {
		return nil
	}
	all := maps.Clone(a)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, b)
	return all
}
