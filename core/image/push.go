package image

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	mobyregistry "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/registry"
)

// parallelUploads is how many layers of one image are sent at once, as in Docker.
const parallelUploads = 5

// Push sends an image to its registry: what the name names, or every tag of the
// repository if it names none. Blobs that the registry has are not sent, and those
// that it has in a repository they came from are mounted there. With a platform only
// the image for that goes there. ErrNotFound if there is no such image, or none for
// the platform.
func (s *Store) Push(ctx context.Context, ref string, platform *ocispec.Platform, auth *mobyregistry.AuthConfig, out func(jsonstream.Message) error) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return errdefs.ErrInvalidArgument.WithMessage("invalid reference format")
	}
	if _, digested := named.(reference.Digested); digested {
		return errdefs.ErrInvalidArgument.WithMessage("cannot push a digest reference")
	}
	ctx = scope(ctx)
	wanted, err := s.toPush(ctx, named)
	if err != nil {
		return err
	}
	to, err := s.Registries.ForPush(named, auth)
	if err != nil {
		return err
	}
	p := &push{Store: s, platform: platform, named: reference.TrimNamed(named), repository: to.Name(), options: append(to.Remote(ctx), remote.WithJobs(parallelUploads)), out: newProgress(out)}
	p.out.say("", "The push refers to repository ["+p.named.Name()+"]")
	for _, record := range wanted {
		if err := p.send(ctx, record); err != nil {
			return p.explain(err)
		}
	}
	return p.out.err()
}

// toPush finds the names that a reference stands for.
func (s *Store) toPush(ctx context.Context, named reference.Named) ([]images.Image, error) {
	if tagged, ok := named.(reference.NamedTagged); ok {
		record, err := s.names.Get(ctx, tagged.String())
		if errdefs.IsNotFound(err) {
			return nil, errdefs.ErrNotFound.WithMessage("An image does not exist locally with the tag: " + reference.FamiliarName(named))
		}
		return []images.Image{record}, err
	}
	all, err := s.names.List(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(record images.Image) bool { return !strings.HasPrefix(record.Name, named.Name()+":") })
	if len(all) == 0 {
		return nil, errdefs.ErrNotFound.WithMessage("An image does not exist locally with the tag: " + reference.FamiliarName(named))
	}
	return all, nil
}

// push is a repository on its way to a registry.
type push struct {
	*Store
	platform   *ocispec.Platform // nil: all that are here
	named      reference.Named
	repository name.Repository
	options    []remote.Option
	out        *progress
}

// send pushes what one name names.
func (p *push) send(ctx context.Context, record images.Image) error {
	named, err := reference.ParseNormalizedNamed(record.Name)
	if err != nil {
		return err
	}
	tagged, ok := named.(reference.NamedTagged)
	if !ok {
		return errdefs.ErrInvalidArgument.WithMessage("an image without a tag cannot be pushed")
	}
	target, err := p.target(ctx, record)
	if err != nil {
		return err
	}
	if target.Digest != record.Target.Digest {
		p.out.send(jsonstream.Message{Aux: encoded(auxprogress.ManifestPushedInsteadOfIndex{
			ManifestPushedInsteadOfIndex: true, OriginalIndex: record.Target, SelectedManifest: target,
		})})
	}
	tag := p.repository.Tag(tagged.Tag())
	sent := &sending{push: p, ctx: ctx}
	if images.IsIndexType(target.MediaType) {
		index, err := sent.index(target)
		if err == nil {
			err = remote.WriteIndex(tag, index, p.options...)
		}
		if err != nil {
			return err
		}
	} else {
		img, err := sent.image(target)
		if err == nil {
			err = remote.Write(tag, img, p.options...)
		}
		if err != nil {
			return err
		}
	}
	sent.finish()
	for _, layer := range sent.layers {
		p.comesFrom(ctx, layer.Descriptor.Digest, p.repository.RegistryStr(), p.repository.RepositoryStr())
	}
	p.out.say("", fmt.Sprintf("%s: digest: %s size: %d", tagged.Tag(), target.Digest, target.Size))
	p.out.send(jsonstream.Message{Aux: encoded(pushResult{tagged.Tag(), target.Digest.String(), target.Size})})
	if target.Digest == record.Target.Digest {
		// From here on the name vouches for a digest at the registry.
		if _, err := p.name(ctx, record.Name, record.Target, map[string]string{pulled: "true"}); err != nil {
			return err
		}
	}
	p.event(events.ActionPush, reference.FamiliarString(tagged), reference.FamiliarName(tagged))
	return nil
}

// pushResult is Docker's last word on a tag.
type pushResult struct {
	Tag    string
	Digest string
	Size   int64
}

// target is what of an image goes to the registry.
func (p *push) target(ctx context.Context, record images.Image) (ocispec.Descriptor, error) {
	if p.platform == nil {
		return p.wholeTarget(ctx, record.Target)
	}
	target, err := p.ofPlatform(ctx, record.Target, *p.platform)
	if errdefs.IsNotFound(err) {
		return target, withoutPlatform(record.Name, *p.platform)
	}
	return target, err
}

// wholeTarget is the index if all its manifests are here, and otherwise the
// manifest of this host's platform.
func (p *push) wholeTarget(ctx context.Context, target ocispec.Descriptor) (ocispec.Descriptor, error) {
	if !images.IsIndexType(target.MediaType) {
		return target, nil
	}
	var list ocispec.Index
	if err := p.readJSON(ctx, target, &list); err != nil {
		return target, err
	}
	for _, d := range list.Manifests {
		if images.IsIndexType(d.MediaType) {
			return target, errdefs.ErrNotImplemented.WithMessage("an index within an index cannot be pushed")
		}
		if !p.isWhole(ctx, d) {
			return p.platformManifest(ctx, target)
		}
	}
	return target, nil
}

// isWhole says whether a manifest and all it names are here.
func (p *push) isWhole(ctx context.Context, d ocispec.Descriptor) bool {
	m, err := p.manifest(ctx, d)
	if err != nil {
		return false
	}
	for _, blob := range append(m.Layers, m.Config) {
		if _, err := p.content.Info(ctx, blob.Digest); err != nil {
			return false
		}
	}
	return true
}

// explain words a registry's refusal of a push as Docker does.
func (p *push) explain(err error) error {
	refused := registry.Refusal(err)
	if refused == nil {
		return unanswered(p.named, err)
	}
	switch refused.StatusCode {
	case http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated.WithMessage(registry.Diagnosis(refused))
	case http.StatusForbidden:
		return errdefs.ErrPermissionDenied.WithMessage(registry.Diagnosis(refused))
	}
	return unanswered(p.named, err)
}
