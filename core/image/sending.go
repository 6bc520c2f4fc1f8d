package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/davit-engine/davit/core/image/send"
)

// parallelUploads is how many blobs of one image are sent at once, as in Docker.
const parallelUploads = 5

// sourceLabel, with a registry's host behind it, is where a blob is known to be:
// repositories, separated by commas. It is containerd's.
const sourceLabel = "containerd.io/distribution.source."

// image sends a manifest, or an index with all its manifests, and gives it a tag when
// everything that it needs is there.
func (p *push) image(ctx context.Context, target ocispec.Descriptor, tag string) error {
	manifests := []ocispec.Descriptor{target}
	if images.IsIndexType(target.MediaType) {
		var list ocispec.Index
		if err := p.readJSON(ctx, target, &list); err != nil {
			return err
		}
		manifests = list.Manifests
	}
	if err := p.blobs(ctx, manifests); err != nil {
		return err
	}
	if images.IsIndexType(target.MediaType) {
		for _, d := range manifests {
			if err := p.document(ctx, d, d.Digest.String()); err != nil {
				return err
			}
		}
	}
	return p.document(ctx, target, tag)
}

// document sends a manifest or index.
func (p *push) document(ctx context.Context, d ocispec.Descriptor, ref string) error {
	body, err := content.ReadBlob(ctx, p.content, d)
	if err != nil {
		return err
	}
	return patiently(ctx, func() error { return p.to.PutManifest(ctx, ref, d.MediaType, body) })
}

// blobs sends the layers and configurations of manifests, several at once and each
// once.
func (p *push) blobs(ctx context.Context, manifests []ocispec.Descriptor) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelUploads)
	seen := map[digest.Digest]bool{}
	var configs, layers []ocispec.Descriptor
	for _, d := range manifests {
		m, err := p.manifest(ctx, d)
		if err != nil {
			return err
		}
		layers, configs = append(layers, m.Layers...), append(configs, m.Config)
	}
	isSeen := func(d ocispec.Descriptor) bool {
		before := seen[d.Digest]
		seen[d.Digest] = true
		return before
	}
	layers, configs = slices.DeleteFunc(layers, isSeen), slices.DeleteFunc(configs, isSeen)
	for _, d := range layers {
		p.out.say(short(d.Digest), "Preparing")
	}
	for _, d := range layers {
		group.Go(func() error { return p.layer(ctx, d) })
	}
	for _, d := range configs {
		group.Go(func() error {
			_, err := p.blob(ctx, d, "", func(send.Status) {})
			return err
		})
	}
	return group.Wait()
}

// layer sends a blob and shows how.
func (p *push) layer(ctx context.Context, d ocispec.Descriptor) error {
	from, err := p.elsewhere(ctx, d)
	if err != nil {
		return err
	}
	id := short(d.Digest)
	outcome, err := p.blob(ctx, d, from, p.out.upload(id, d.Size))
	if err != nil {
		return err
	}
	switch outcome {
	case send.Existed:
		p.out.say(id, "Layer already exists")
	case send.Mounted:
		p.out.say(id, "Mounted from "+strings.TrimPrefix(from, "library/"))
	case send.Sent:
		p.out.say(id, "Pushed")
	}
	p.comesFrom(ctx, d.Digest, p.to.Name().RegistryStr(), p.to.Name().RepositoryStr())
	return nil
}

func (p *push) blob(ctx context.Context, d ocispec.Descriptor, from string, tell func(send.Status)) (outcome send.Outcome, err error) {
	blob, err := p.content.ReaderAt(ctx, d)
	if err != nil {
		return outcome, fmt.Errorf("reading blob %s: %w", d.Digest, err)
	}
	defer func() { _ = blob.Close() }()
	return p.send.Blob(ctx, p.to, d, blob, from, tell)
}

// elsewhere is another repository of the registry's that is known to have a blob; empty
// if none is.
func (p *push) elsewhere(ctx context.Context, d ocispec.Descriptor) (string, error) {
	info, err := p.content.Info(ctx, d.Digest)
	if err != nil {
		return "", fmt.Errorf("reading blob %s: %w", d.Digest, err)
	}
	own := p.to.Name().RepositoryStr()
	for source := range strings.SplitSeq(info.Labels[sourceLabel+p.to.Name().RegistryStr()], ",") {
		if source != "" && source != own {
			return source, nil
		}
	}
	return "", nil
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

// upload tells how far an upload is, in Docker's words, each half mebibyte.
func (p *progress) upload(id string, total int64) func(send.Status) {
	var last int64
	return func(s send.Status) {
		switch {
		case s.Wait > 0:
			p.say(id, "Retrying in "+seconds(s.Wait))
			last = 0
		case s.Offset-last >= 1<<19, s.Offset == total:
			last = s.Offset
			p.send(jsonstream.Message{ID: id, Status: "Pushing", Progress: &jsonstream.Progress{Current: s.Offset, Total: total}})
		}
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
