package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/image/blobs"
)

// Incomplete says that an image is here in part: of a blob that it needs somebody else
// removed or changed the file. Pulling or loading the image again brings what is missing.
// It is a kind of errdefs.ErrNotFound.
type Incomplete struct {
	Image string // as it was asked for
	Lost  *blobs.Lost
}

func (i *Incomplete) Error() string {
	return fmt.Sprintf("image %s is incomplete: %v: pull or load it again", i.Image, i.Lost)
}

// Unwrap answers what is missing.
func (i *Incomplete) Unwrap() error { return i.Lost }

// incomplete tells of which image a blob is lost. Other errors stay as they are.
func incomplete(image string, err error) error {
	var lost *blobs.Lost
	if !errors.As(err, &lost) || errors.As(err, new(*Incomplete)) {
		return err
	}
	return &Incomplete{image, lost}
}

func isLost(err error) bool { return errors.As(err, new(*blobs.Lost)) }

// whole is an error unless all that an image needs on this platform is here.
func (s *Store) whole(ctx context.Context, image string, target ocispec.Descriptor) error {
	target, err := s.platformManifest(ctx, target)
	if err != nil {
		return incomplete(image, err)
	}
	m, err := s.manifest(ctx, target)
	if err != nil {
		return incomplete(image, err)
	}
	for _, d := range append(slices.Clone(m.Layers), m.Config) {
		if _, err := s.content.Info(ctx, d.Digest); err != nil {
			return incomplete(image, err)
		}
	}
	return nil
}

// proven reads a layer's blob that could not be unpacked. If it is not what its digest
// says, the disk is at fault and not who made the image: it is removed, to be brought
// anew.
func (s *Store) proven(ctx context.Context, d digest.Digest, failed error) error {
	lost := s.blobs.Verify(ctx, d)
	if !isLost(lost) {
		return failed
	}
	s.Log.Error("a blob is damaged on the disk", "digest", d, "error", lost)
	return errors.Join(lost, s.blobs.Discard(ctx, d))
}

// tellLosses says at start which images are incomplete.
func (s *Store) tellLosses(ctx context.Context) error {
	lost, err := s.blobs.Losses(ctx)
	if err != nil {
		return fmt.Errorf("looking at the files of images: %w", err)
	}
	if len(lost) == 0 {
		return nil
	}
	users, err := s.usersOfBlobs(ctx)
	if err != nil {
		return err
	}
	for _, one := range lost {
		if names := users[one.Digest]; len(names) > 0 {
			s.Log.Error("images are incomplete: pull or load them again", "images", names, "error", one)
		}
	}
	return nil
}

// usersOfBlobs names the images that need each blob.
func (s *Store) usersOfBlobs(ctx context.Context) (map[digest.Digest][]string, error) {
	list, err := s.names.List(ctx)
	if err != nil {
		return nil, err
	}
	users := map[digest.Digest][]string{}
	for _, record := range list {
		name := familiar(record.Name)
		err := images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
			if !slices.Contains(users[d.Digest], name) {
				users[d.Digest] = append(users[d.Digest], name)
			}
			children, err := images.Children(ctx, s.content, d)
			if err != nil { // it is not here, or unreadable itself
				return nil, images.ErrSkipDesc
			}
			return children, nil
		}), record.Target)
		if err != nil {
			return nil, fmt.Errorf("reading image %s: %w", name, err)
		}
	}
	return users, nil
}

// familiar is a name as users write it.
func familiar(name string) string {
	if named, err := reference.ParseNormalizedNamed(name); err == nil {
		return reference.FamiliarString(named)
	}
	return name
}

// damagedName answers the full name of an image that cannot be read; empty if the
// reference names none.
func (s *Store) damagedName(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	s.reading.RLock()
	defer s.reading.RUnlock()
	name := reference.TagNameOnly(named).String()
	if s.index.damaged[name] == nil {
		return ""
	}
	return name
}

// removeDamaged takes away the name of an image that cannot be read. The caller holds
// changing.
func (s *Store) removeDamaged(ctx context.Context, name string) ([]mobyimage.DeleteResponse, error) {
	if err := s.dropNames(ctx, []string{name}, func(context.Context) error { return nil }); err != nil {
		return nil, err
	}
	var report []mobyimage.DeleteResponse
	if !strings.HasPrefix(name, dangling) {
		report = []mobyimage.DeleteResponse{{Untagged: familiar(name)}}
	}
	return report, s.refresh(ctx)
}

// pruneDamaged removes what no pull of another image can bring back: names of images
// whose manifest or configuration is lost. The caller holds changing.
func (s *Store) pruneDamaged(ctx context.Context, onlyDangling bool) (report []mobyimage.DeleteResponse, err error) {
	s.reading.RLock()
	damaged := s.index.damaged // is never written to, only replaced
	s.reading.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(damaged)) {
		if !isLost(damaged[name]) || onlyDangling && !strings.HasPrefix(name, dangling) {
			continue
		}
		deleted, err := s.removeDamaged(ctx, name)
		report = append(report, deleted...)
		if err != nil {
			return report, err
		}
	}
	return report, nil
}
