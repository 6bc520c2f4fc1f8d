package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/davit-engine/davit/core/plugin"
)

// parallelDownloads is how many layers of one image are fetched at once.
const parallelDownloads = 4

// Pull fetches an image from its registry, for one platform (empty: the host's),
// and unpacks it with the default storage driver. The name is set when everything
// is here and proven.
func (s *Store) Pull(ctx context.Context, ref, platform string, auth *registry.AuthConfig, out func(jsonstream.Message) error) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return errdefs.ErrInvalidArgument.WithMessage("invalid reference format")
	}
	named = reference.TagNameOnly(named)
	matcher := platforms.Default()
	if platform != "" {
		p, err := platforms.Parse(platform)
		if err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		matcher = platforms.OnlyStrict(p)
	}
	ctx, done, err := s.leased(ctx)
	if err != nil {
		return err
	}
	defer done()
	p := &pull{Store: s, named: named, matcher: matcher, out: newProgress(out)}
	if p.repository, p.options, err = s.remoteRepository(named, auth); err != nil {
		return err
	}
	return p.run(ctx)
}

// pull is one image on its way.
type pull struct {
	*Store
	named      reference.Named
	matcher    platforms.MatchComparer
	repository name.Repository
	options    []remote.Option
	out        *progress
}

func (p *pull) run(ctx context.Context) error {
	label := "latest"
	var ref name.Reference
	switch n := p.named.(type) {
	case reference.Digested:
		label = n.Digest().String()
		ref = p.repository.Digest(label)
	case reference.Tagged:
		label = n.Tag()
		ref = p.repository.Tag(label)
	}
	options := append(slices.Clone(p.options), remote.WithContext(ctx))
	found, err := remote.Get(ref, options...)
	if err != nil {
		return p.explain(err)
	}
	p.out.say(label, "Pulling from "+reference.Path(p.named))
	target := descriptor(found.Descriptor)
	if err := p.write(ctx, target, bytes.NewReader(found.Manifest)); err != nil {
		return err
	}
	manifest := target
	if images.IsIndexType(target.MediaType) {
		if manifest, err = p.choose(ctx, target); err != nil {
			return err
		}
	}
	img, err := remote.Image(p.repository.Digest(manifest.Digest.String()), options...)
	if err != nil {
		return p.explain(err)
	}
	if err := p.fetch(ctx, manifest, img); err != nil {
		return p.explain(err)
	}
	return p.finish(ctx, target)
}

func descriptor(d v1.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: string(d.MediaType), Digest: digest.Digest(d.Digest.String()), Size: d.Size}
}

// choose picks the manifest for the platform from an index that is here.
func (p *pull) choose(ctx context.Context, target ocispec.Descriptor) (ocispec.Descriptor, error) {
	var list ocispec.Index
	if err := p.readJSON(ctx, target, &list); err != nil {
		return target, err
	}
	fits := slices.DeleteFunc(list.Manifests, func(d ocispec.Descriptor) bool {
		return d.Platform == nil || !p.matcher.Match(*d.Platform)
	})
	if len(fits) == 0 {
		return target, errdefs.ErrNotFound.WithMessage("no matching manifest for " + platforms.Format(platforms.DefaultSpec()) + " in the manifest list entries")
	}
	return choose(fits, p.matcher), nil
}

// fetch brings manifest, configuration and layers, the layers in parallel.
func (p *pull) fetch(ctx context.Context, target ocispec.Descriptor, img v1.Image) error {
	body, err := img.RawManifest()
	if err != nil {
		return err
	}
	if err := p.write(ctx, target, bytes.NewReader(body)); err != nil {
		return err
	}
	manifest, err := p.manifest(ctx, target)
	if err != nil {
		return err
	}
	for _, layer := range manifest.Layers {
		p.out.say(short(layer.Digest), "Pulling fs layer")
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelDownloads)
	group.Go(func() error {
		config, err := img.RawConfigFile()
		if err != nil {
			return fmt.Errorf("fetching the image configuration: %w", err)
		}
		return p.write(ctx, manifest.Config, bytes.NewReader(config))
	})
	for _, layer := range manifest.Layers {
		group.Go(func() error { return p.layer(ctx, layer, img) })
	}
	return group.Wait()
}

func (p *pull) layer(ctx context.Context, d ocispec.Descriptor, img v1.Image) error {
	if _, err := p.content.Info(ctx, d.Digest); err == nil {
		p.out.say(short(d.Digest), "Already exists")
		return p.hold(ctx, d.Digest)
	}
	hash, err := v1.NewHash(d.Digest.String())
	if err != nil {
		return err
	}
	layer, err := img.LayerByDigest(hash)
	if err != nil {
		return err
	}
	// ggcr checks size and digest while it reads, the content store once more.
	body, err := layer.Compressed()
	if err != nil {
		return fmt.Errorf("fetching layer %s: %w", d.Digest, err)
	}
	defer func() { _ = body.Close() }()
	if err := p.write(ctx, d, p.out.meter(short(d.Digest), "Downloading", d.Size, body)); err != nil {
		return fmt.Errorf("fetching layer %s: %w", d.Digest, err)
	}
	p.comesFrom(ctx, d.Digest, p.repository.RegistryStr(), p.repository.RepositoryStr())
	p.out.say(short(d.Digest), "Download complete")
	return nil
}

// finish unpacks the image and gives it its name.
func (p *pull) finish(ctx context.Context, target ocispec.Descriptor) error {
	if err := p.link(ctx, target); err != nil {
		return err
	}
	img, err := p.read(ctx, target)
	if err != nil {
		return err
	}
	manifest, err := p.manifest(ctx, img.Manifest)
	if err != nil {
		return err
	}
	_, err = p.unpack(ctx, *img, p.Drivers.Default(plugin.Storage), func(i int, status string) {
		p.out.say(short(manifest.Layers[i].Digest), status)
	})
	if err != nil {
		return fmt.Errorf("failed to register layer: %w", err)
	}
	before, err := p.name(ctx, p.named.String(), target, map[string]string{pulled: "true"})
	if err != nil {
		return err
	}
	familiar := reference.FamiliarString(p.named)
	p.event(events.ActionPull, familiar, reference.FamiliarName(p.named))
	p.out.say("", "Digest: "+target.Digest.String())
	if before != nil && before.Target.Digest == target.Digest {
		p.out.say("", "Status: Image is up to date for "+familiar)
	} else {
		p.out.say("", "Status: Downloaded newer image for "+familiar)
	}
	return p.out.err()
}

// name sets an image's name. What had it before keeps its ID, as a dangling
// image, if it has no other name.
func (s *Store) name(ctx context.Context, full string, target ocispec.Descriptor, labels map[string]string) (before *images.Image, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	before, err = s.setName(ctx, images.Image{Name: full, Target: target, Labels: labels})
	if err != nil {
		return nil, fmt.Errorf("naming the image %s: %w", full, err)
	}
	if before != nil && before.Target.Digest != target.Digest {
		if err := s.keep(ctx, before.Target); err != nil {
			return nil, err
		}
	}
	// An image that got a name dangles no more.
	if !strings.HasPrefix(full, dangling) {
		if err := s.names.Delete(ctx, dangling+target.Digest.String()); err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
	}
	return before, s.refresh(ctx)
}

// keep gives a target that lost its last name a name that nobody sees.
func (s *Store) keep(ctx context.Context, target ocispec.Descriptor) error {
	list, err := s.names.List(ctx, "target.digest=="+target.Digest.String())
	if err != nil || len(list) > 0 {
		return err
	}
	_, err = s.setName(ctx, images.Image{Name: dangling + target.Digest.String(), Target: target})
	return err
}

func short(d digest.Digest) string { return d.Encoded()[:min(12, len(d.Encoded()))] }

// explain words a registry's refusal as Docker does.
func (p *pull) explain(err error) error {
	var refused *transport.Error
	if !errors.As(err, &refused) {
		return err
	}
	familiar := reference.FamiliarString(p.named)
	text := refused.Error()
	if len(refused.Errors) > 0 {
		d := refused.Errors[0]
		text = strings.ToLower(strings.ReplaceAll(string(d.Code), "_", " ")) + ": " + d.Message
	}
	switch refused.StatusCode {
	case http.StatusNotFound:
		if slices.ContainsFunc(refused.Errors, func(d transport.Diagnostic) bool { return d.Code == transport.NameUnknownErrorCode }) {
			break
		}
		return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("manifest for %s not found: %s", familiar, text))
	case http.StatusUnauthorized, http.StatusForbidden:
	case http.StatusTooManyRequests:
		return errdefs.ErrResourceExhausted.WithMessage("toomanyrequests: " + text)
	default:
		return fmt.Errorf("registry %s: %w: %w", reference.Domain(p.named), err, errdefs.ErrUnavailable)
	}
	return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("pull access denied for %s, repository does not exist or may require 'docker login': %s",
		reference.FamiliarName(p.named), text))
}

// isHostError tells a fault of this host's disk or memory from one of the input.
func isHostError(err error) bool {
	return slices.ContainsFunc([]error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.ENOMEM}, func(host error) bool { return errors.Is(err, host) })
}

// progress sends messages in order; the first failure is kept for the end, since
// a client that went away does not stop a pull others may wait for.
type progress struct {
	lock   chan struct{}
	out    func(jsonstream.Message) error
	failed error
}

func newProgress(out func(jsonstream.Message) error) *progress {
	return &progress{lock: make(chan struct{}, 1), out: out}
}

func (p *progress) send(m jsonstream.Message) {
	p.lock <- struct{}{}
	defer func() { <-p.lock }()
	if p.failed == nil {
		p.failed = p.out(m)
	}
}

func (p *progress) say(id, status string) { p.send(jsonstream.Message{ID: id, Status: status}) }

func (p *progress) err() error { return p.failed }

// meter reports each half mebibyte that passes.
func (p *progress) meter(id, status string, total int64, body io.Reader) io.Reader {
	return &meter{Reader: body, progress: p, id: id, status: status, total: total}
}

type meter struct {
	io.Reader
	*progress
	id, status           string
	total, current, last int64
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.Reader.Read(b)
	m.current += int64(n)
	if m.current-m.last >= 1<<19 {
		m.last = m.current
		m.send(jsonstream.Message{ID: m.id, Status: m.status, Progress: &jsonstream.Progress{Current: m.current, Total: m.total}})
	}
	return n, err
}
