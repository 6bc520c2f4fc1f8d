package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	mobyregistry "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/davit-engine/davit/core/image/fetch"
	"github.com/davit-engine/davit/core/image/verify"
	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/core/registry"
)

// Pull fetches an image from its registry, for one platform (empty: the host's),
// and unpacks it with the default storage driver. The name is set when everything
// is here and proven. A name without tag and digest stands for all the tags that its
// repository has.
func (s *Store) Pull(ctx context.Context, ref, platform string, auth *mobyregistry.AuthConfig, out func(jsonstream.Message) error) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return errdefs.ErrInvalidArgument.WithMessage("invalid reference format")
	}
	p := &pull{Store: s, named: named, platform: platforms.DefaultSpec(), matcher: platforms.Default(), anonymous: isAnonymous(auth), out: newProgress(out)}
	if p.asked = platform != ""; p.asked {
		if p.platform, err = platforms.Parse(platform); err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		p.matcher = platforms.Only(p.platform)
	}
	ctx, done, err := s.leased(ctx)
	if err != nil {
		return err
	}
	defer done()
	if p.sources, err = s.Registries.ForPull(p.named, auth); err != nil {
		return err
	}
	if err := s.Policy.BeforeAsking(named); err != nil {
		return err
	}
	if reference.IsNameOnly(named) {
		return p.all(ctx)
	}
	fresh, err := p.run(ctx)
	if isLost(err) { // what was here of the image was damaged, and is gone now
		fresh, err = p.run(ctx)
	}
	if err != nil {
		return err
	}
	p.status(fresh)
	return p.out.err()
}

// pull is one image on its way.
type pull struct {
	*Store
	named    reference.Named
	platform ocispec.Platform
	asked    bool // for the platform, instead of the host's
	matcher  platforms.MatchComparer
	sources  []*registry.Repository // the first has the image, when it is known which does
	out      *progress

	anonymous bool
}

// all pulls every tag of the repository.
func (p *pull) all(ctx context.Context) error {
	var tags []string
	var err error
	for _, source := range p.sources {
		if tags, err = source.Tags(ctx); err == nil {
			break
		}
	}
	if err != nil {
		return p.explain(err)
	}
	if len(tags) == 0 {
		return errdefs.ErrNotFound.WithMessage("no tags in the repository " + reference.FamiliarName(p.named))
	}
	fresh := false
	for _, tag := range tags {
		one := *p
		if one.named, err = reference.WithTag(p.named, tag); err != nil {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("the registry has an invalid tag %q", tag))
		}
		changed, err := one.run(ctx)
		if err != nil {
			return err
		}
		fresh = fresh || changed
	}
	p.status(fresh)
	return p.out.err()
}

// status is Docker's last word.
func (p *pull) status(fresh bool) {
	text := "Status: Image is up to date for "
	if fresh {
		text = "Status: Downloaded newer image for "
	}
	p.out.say("", text+reference.FamiliarString(p.named))
}

// run pulls what the name names, and says whether the name is new or names something
// else than before.
func (p *pull) run(ctx context.Context) (fresh bool, err error) {
	label := labelOf(p.named)
	target, body, err := p.ask(ctx, label)
	if err != nil {
		return false, p.explain(err)
	}
	manifest := target
	if images.IsIndexType(target.MediaType) {
		if manifest, err = p.choose(target, body); err != nil {
			return false, err
		}
	}
	if err := p.accepted(ctx, target, manifest); err != nil {
		return false, err
	}
	if err := p.write(ctx, target, bytes.NewReader(body)); err != nil {
		return false, err
	}
	if manifest.Digest != target.Digest {
		if manifest, err = p.ofIndex(ctx, manifest); err != nil {
			return false, err
		}
	}
	m, err := p.usable(ctx, manifest)
	if err != nil {
		return false, err
	}
	if err := p.fits(ctx, m); err != nil {
		return false, err
	}
	p.out.say(label, "Pulling from "+reference.Path(p.named))
	img, err := p.fetch(ctx, manifest, m)
	if err != nil {
		return false, err
	}
	return p.finish(ctx, target, img)
}

// ask asks for a manifest or index, and answers that of the first source that has it,
// which is the first to be asked for its blobs then.
func (p *pull) ask(ctx context.Context, ref string) (d ocispec.Descriptor, body []byte, err error) {
	for i, source := range p.sources {
		if body, d, err = (patient{source}).Manifest(ctx, ref); err == nil {
			p.sources = p.sources[i:]
			return d, body, nil
		}
		if ctx.Err() != nil {
			break
		}
		if i < len(p.sources)-1 {
			p.Log.Info("a mirror does not have an image: the next is asked", "mirror", source.String(), "reference", ref, "error", err)
		}
	}
	return d, nil, err // of the registry itself, which is the last
}

// choose picks the manifest for the platform from an index.
func (p *pull) choose(target ocispec.Descriptor, body []byte) (ocispec.Descriptor, error) {
	var list ocispec.Index
	if err := json.Unmarshal(body, &list); err != nil {
		return target, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("index %s: %v", target.Digest, err))
	}
	fits := slices.DeleteFunc(list.Manifests, func(d ocispec.Descriptor) bool {
		return d.Platform == nil || !p.matcher.Match(*d.Platform)
	})
	if len(fits) == 0 {
		return target, errdefs.ErrNotFound.WithMessage("no matching manifest for " + platforms.Format(p.platform) + " in the manifest list entries")
	}
	chosen := choose(fits, p.matcher)
	if images.IsIndexType(chosen.MediaType) {
		return target, errdefs.ErrNotImplemented.WithMessage("an index within an index is not supported")
	}
	return chosen, registry.CheckDescriptor(chosen)
}

// accepted asks the policy. A signature of an index is for all that it names; where it
// has none that of the platform's manifest counts.
func (p *pull) accepted(ctx context.Context, target, manifest ocispec.Descriptor) error {
	sources := make([]verify.Source, len(p.sources))
	for i, source := range p.sources {
		sources[i] = patient{source}
	}
	refused := p.Policy.Image(ctx, p.named, target.Digest, sources)
	if errdefs.IsPermissionDenied(refused) && manifest.Digest != target.Digest {
		if err := p.Policy.Image(ctx, p.named, manifest.Digest, sources); !errdefs.IsPermissionDenied(err) {
			refused = err
		}
	}
	if refused != nil && !errdefs.IsPermissionDenied(refused) {
		return p.explain(refused)
	}
	return refused
}

// ofIndex brings a manifest that an index names.
func (p *pull) ofIndex(ctx context.Context, manifest ocispec.Descriptor) (ocispec.Descriptor, error) {
	found, body, err := p.ask(ctx, manifest.Digest.String())
	switch {
	case err != nil:
		return found, p.explain(err)
	case found.Size != manifest.Size:
		return found, fmt.Errorf("manifest %s has %d bytes, and %d by its index: %w", found.Digest, found.Size, manifest.Size, registry.ErrVerification)
	}
	manifest.MediaType = found.MediaType
	return manifest, p.write(ctx, manifest, bytes.NewReader(body))
}

// usable reads a manifest that is here, and refuses what davit could not run before
// anything is fetched for it.
func (p *pull) usable(ctx context.Context, d ocispec.Descriptor) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	switch {
	case registry.IsSchema1(d):
		return m, errdefs.ErrInvalidArgument.WithMessage("[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, schema 1 support is disabled by default and will be removed in an upcoming release. Suggest the author of " +
			p.named.String() + " to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. More information at https://docs.docker.com/go/deprecated-image-specs/")
	case images.IsIndexType(d.MediaType):
		return m, errdefs.ErrNotImplemented.WithMessage("an index within an index is not supported")
	}
	m, err := p.manifest(ctx, d)
	if err != nil {
		return m, err
	}
	if !images.IsConfigType(m.Config.MediaType) && m.Config.MediaType != "application/octet-stream" {
		return m, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("%s is not an image: unsupported media type %s of its configuration", reference.FamiliarString(p.named), m.Config.MediaType))
	}
	if m.Config.Size > registry.MaxDocument {
		return m, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("the configuration of %s has %d bytes, at most %d are read", reference.FamiliarString(p.named), m.Config.Size, registry.MaxDocument))
	}
	for _, layer := range m.Layers {
		switch {
		case images.IsNonDistributable(layer.MediaType):
			return m, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("layer %s is a foreign layer (%s), which registries do not distribute: davit does not fetch it from elsewhere", layer.Digest, layer.MediaType))
		case !images.IsLayerType(layer.MediaType):
			return m, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("unsupported media type %s of layer %s", layer.MediaType, layer.Digest))
		}
	}
	for _, blob := range append(slices.Clone(m.Layers), m.Config) {
		if err := registry.CheckDescriptor(blob); err != nil {
			return m, err
		}
	}
	return m, nil
}

// fits refuses an image whose blobs would not leave the room that is to be kept free.
func (p *pull) fits(ctx context.Context, m ocispec.Manifest) error {
	wanted := int64(0)
	for _, blob := range append(slices.Clone(m.Layers), m.Config) {
		if _, err := p.content.Info(ctx, blob.Digest); err != nil {
			wanted += blob.Size
		}
	}
	if wanted == 0 {
		return nil
	}
	return p.Room.Check(p.Root, wanted)
}

// fetch brings configuration and layers, several at once, and unpacks each layer as
// soon as it is here and proven. What a registry is at fault for is worded as its.
func (p *pull) fetch(ctx context.Context, manifest ocispec.Descriptor, m ocispec.Manifest) (img *Image, err error) {
	if err := p.hold(ctx, append(slices.Clone(m.Layers), m.Config)...); err != nil {
		return nil, err
	}
	here := make([]chan struct{}, len(m.Layers))
	for i, layer := range m.Layers {
		here[i] = make(chan struct{})
		p.out.say(short(layer.Digest), "Pulling fs layer")
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := p.fetcher.Fetch(ctx, m.Config, p.sources, func(fetch.Status) {})
		if errors.Is(err, registry.ErrVerification) {
			err = fmt.Errorf("image config verification failed for digest %s: %w", m.Config.Digest, err)
		}
		if err != nil {
			return p.explain(err)
		}
		// This image: an index may have one for this host here already.
		if img, err = p.read(ctx, manifest); err != nil {
			return err
		}
		return p.register(ctx, img, m, func(i int) <-chan struct{} { return here[i] })
	})
	for i, layer := range m.Layers {
		group.Go(func() error {
			if err := p.layer(ctx, layer); err != nil {
				return p.explain(err)
			}
			close(here[i])
			return nil
		})
	}
	err = group.Wait()
	return img, err
}

// register unpacks the layers, each when it is here.
func (p *pull) register(ctx context.Context, img *Image, m ocispec.Manifest, here func(layer int) <-chan struct{}) error {
	_, err := p.unpackArriving(ctx, *img, p.Drivers.Default(plugin.Storage), here, func(i int, status string) {
		p.out.say(short(m.Layers[i].Digest), status)
	})
	if err != nil {
		return fmt.Errorf("failed to register layer: %w", err)
	}
	return nil
}

func (p *pull) layer(ctx context.Context, d ocispec.Descriptor) error {
	id := short(d.Digest)
	if _, err := p.content.Info(ctx, d.Digest); err == nil {
		p.out.say(id, "Already exists")
		return nil
	}
	err := p.fetcher.Fetch(ctx, d, p.sources, p.out.download(id, d.Size))
	if errors.Is(err, registry.ErrVerification) {
		return fmt.Errorf("filesystem layer verification failed for digest %s: %w", d.Digest, err)
	}
	if err != nil {
		return fmt.Errorf("fetching layer %s: %w", d.Digest, err)
	}
	from := p.sources[0].Name()
	p.comesFrom(ctx, d.Digest, from.RegistryStr(), from.RepositoryStr())
	p.out.say(id, "Download complete")
	return nil
}

// finish gives the image its name, which is of the target: a manifest or an index.
func (p *pull) finish(ctx context.Context, target ocispec.Descriptor, img *Image) (fresh bool, err error) {
	if err := p.link(ctx, target); err != nil {
		return false, err
	}
	before, err := p.name(ctx, p.named.String(), target, map[string]string{pulled: "true"})
	if err != nil {
		return false, err
	}
	familiar := reference.FamiliarString(p.named)
	p.event(events.ActionPull, familiar, reference.FamiliarName(p.named))
	p.out.say("", "Digest: "+target.Digest.String())
	if has := img.Config.Platform; p.asked && !p.matcher.Match(has) {
		p.out.say("", fmt.Sprintf("WARNING: image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
			familiar, platforms.FormatAll(has), platforms.FormatAll(p.platform)))
	}
	return before == nil || before.Target.Digest != target.Digest, nil
}

func short(d digest.Digest) string { return d.Encoded()[:min(12, len(d.Encoded()))] }
