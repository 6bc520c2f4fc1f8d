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
	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	mobyregistry "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/image/send"
	"github.com/davit-engine/davit/core/registry"
)

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
	ctx, done, err := s.leased(ctx)
	if err != nil {
		return err
	}
	defer done()
	wanted, err := s.toPush(ctx, named)
	if err != nil {
		return err
	}
	to, err := s.Registries.ForPush(named, auth)
	if err != nil {
		return err
	}
	p := &push{
		Store: s, platform: platform, named: reference.TrimNamed(named), to: to, anonymous: isAnonymous(auth), out: newProgress(out),
		send: send.Options{Attempts: s.fetcher.Attempts, Backoff: s.fetcher.Backoff},
	}
	p.out.say("", "The push refers to repository ["+p.named.Name()+"]")
	for _, record := range wanted {
		if err := p.record(ctx, record); err != nil {
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
	platform *ocispec.Platform // nil: all that are here
	named    reference.Named
	to       *registry.Repository
	send     send.Options
	out      *progress

	anonymous bool
}

// record pushes what one name names. The image may be removed meanwhile: what it
// needs is kept until it is there.
func (p *push) record(ctx context.Context, record images.Image) error {
	named, err := reference.ParseNormalizedNamed(record.Name)
	if err != nil {
		return err
	}
	tagged, ok := named.(reference.NamedTagged)
	if !ok {
		return errdefs.ErrInvalidArgument.WithMessage("an image without a tag cannot be pushed")
	}
	if err := p.holdTree(ctx, record.Target); err != nil {
		return err
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
	if err := p.whole(ctx, record.Name, target); err != nil {
		return err
	}
	if err := p.image(ctx, target, tagged.Tag()); err != nil {
		return err
	}
	p.out.say("", fmt.Sprintf("%s: digest: %s size: %d", tagged.Tag(), target.Digest, target.Size))
	p.out.send(jsonstream.Message{Aux: encoded(pushResult{tagged.Tag(), target.Digest.String(), target.Size})})
	if target.Digest == record.Target.Digest {
		if err := p.vouch(ctx, record); err != nil {
			return err
		}
	}
	p.event(events.ActionPush, reference.FamiliarString(tagged), reference.FamiliarName(tagged))
	return nil
}

// vouch notes that a name's digest is at the registry, if the name is still there and
// means the same.
func (p *push) vouch(ctx context.Context, record images.Image) error {
	if p.Store.blobs.ReadOnly { // it was pushed all the same
		return nil
	}
	p.changing.Lock()
	defer p.changing.Unlock()
	now, err := p.names.Get(ctx, record.Name)
	if err != nil || now.Target.Digest != record.Target.Digest {
		return ignoreNotFound(err)
	}
	_, err = p.nameLocked(ctx, record.Name, record.Target, map[string]string{pulled: "true"})
	return err
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
		return unanswered(p.named, p.anonymous, err)
	}
	switch refused.StatusCode {
	case http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated.WithMessage(registry.Diagnosis(refused))
	case http.StatusForbidden:
		return errdefs.ErrPermissionDenied.WithMessage(registry.Diagnosis(refused))
	}
	return unanswered(p.named, p.anonymous, err)
}
