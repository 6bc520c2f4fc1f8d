package engine

import (
	"context"
	"io"
	"slices"
	"strings"

	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/core/image"
	"github.com/davit-engine/davit/core/image/layers"
)

// ImageList implements the API's backend.
func (e *Engine) ImageList(ctx context.Context, o backend.ImageListOptions) ([]mobyimage.Summary, error) {
	images, err := e.Images.List(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	list := make([]mobyimage.Summary, 0, len(images))
	for _, img := range images {
		list = append(list, e.imageSummary(img))
	}
	slices.SortStableFunc(list, func(a, b mobyimage.Summary) int { return int(b.Created - a.Created) })
	return list, nil
}

func (e *Engine) imageSummary(img image.Image) mobyimage.Summary {
	summary := mobyimage.Summary{
		ID: img.ID.String(), RepoTags: img.RepoTags, RepoDigests: img.RepoDigests, Size: img.Size, SharedSize: -1,
		Labels: img.Config.Config.Labels,
	}
	if img.Config.Created != nil {
		summary.Created = img.Config.Created.Unix()
	}
	if summary.RepoTags == nil {
		summary.RepoTags = []string{}
	}
	if summary.RepoDigests == nil {
		summary.RepoDigests = []string{}
	}
	for _, c := range e.containers.All() {
		if c.Record().Image == summary.ID {
			summary.Containers++
		}
	}
	return summary
}

// imageInUse answers a container that has an image; a running one rather than
// another.
func (e *Engine) imageInUse(imageID string) (containerID string, running bool) {
	for _, c := range e.containers.All() {
		r := c.Record()
		if r.Image != imageID {
			continue
		}
		containerID = r.ID[:12]
		if r.Status.Alive() {
			return containerID, true
		}
	}
	return containerID, false
}

// ImageInspect implements the API's backend.
func (e *Engine) ImageInspect(ctx context.Context, name string, platform *ocispec.Platform) (mobyimage.InspectResponse, error) {
	return e.Images.Inspect(ctx, name, platform)
}

// ImageHistory implements the API's backend.
func (e *Engine) ImageHistory(ctx context.Context, name string, platform *ocispec.Platform) ([]mobyimage.HistoryResponseItem, error) {
	return e.Images.History(ctx, name, platform)
}

// ImagePush implements the API's backend.
func (e *Engine) ImagePush(ctx context.Context, ref string, platform *ocispec.Platform, auth *registry.AuthConfig, out backend.Progress) error {
	return e.Images.Push(ctx, ref, platform, auth, out)
}

// RegistryLogin implements the API's backend.
func (e *Engine) RegistryLogin(ctx context.Context, auth *registry.AuthConfig) error {
	return e.Registries.Login(ctx, auth)
}

// ImagePull implements the API's backend.
func (e *Engine) ImagePull(ctx context.Context, ref, platform string, auth *registry.AuthConfig, out backend.Progress) error {
	return e.Images.Pull(ctx, ref, platform, auth, out)
}

// ImageTag implements the API's backend.
func (e *Engine) ImageTag(ctx context.Context, name, ref string) error {
	return e.Images.Tag(ctx, name, ref)
}

// ImageRemove implements the API's backend.
func (e *Engine) ImageRemove(ctx context.Context, name string, force, noPrune bool) ([]mobyimage.DeleteResponse, error) {
	return e.Images.Remove(ctx, name, force, noPrune, e.imageInUse)
}

// ImagesPrune implements the API's backend.
func (e *Engine) ImagesPrune(ctx context.Context, f filter.Args) (mobyimage.PruneReport, error) {
	return e.Images.Prune(ctx, f, e.imageInUse)
}

// ImageAskRegistry implements the API's backend.
func (e *Engine) ImageAskRegistry(ctx context.Context, ref string, insecure bool, auth *registry.AuthConfig) (registry.DistributionInspect, []byte, error) {
	found, err := e.Images.AskRegistry(ctx, ref, insecure, auth)
	return found.DistributionInspect, found.Raw, err
}

// ImageSearch implements the API's backend.
func (e *Engine) ImageSearch(ctx context.Context, term string, limit int, f filter.Args, auth *registry.AuthConfig) ([]registry.SearchResult, error) {
	return e.Images.Search(ctx, term, limit, f, auth)
}

// ImageTree implements the API's backend.
func (e *Engine) ImageTree(ctx context.Context, name string, files bool) (layers.Image, error) {
	return e.Images.Tree(ctx, name, files)
}

// ImageDiff implements the API's backend.
func (e *Engine) ImageDiff(ctx context.Context, from, to string) (layers.Difference, error) {
	return e.Images.Diff(ctx, from, to)
}

// SystemCheck implements the API's backend.
func (e *Engine) SystemCheck(ctx context.Context, repair bool) (image.Checked, error) {
	return e.Images.Check(ctx, repair)
}

// ImageLoad implements the API's backend.
func (e *Engine) ImageLoad(ctx context.Context, in io.Reader, platform *ocispec.Platform, out backend.Progress) error {
	return e.Images.Load(ctx, in, platform, out)
}

// ImageSave implements the API's backend.
func (e *Engine) ImageSave(ctx context.Context, names []string, platform *ocispec.Platform) (func(io.Writer) error, error) {
	return e.Images.Save(ctx, names, platform)
}

// ImageImport implements the API's backend.
func (e *Engine) ImageImport(ctx context.Context, o backend.ImageImportOptions, in io.Reader, out backend.Progress) error {
	for i := range o.Changes {
		o.Changes[i] = strings.TrimSpace(o.Changes[i])
	}
	return e.Images.Import(ctx, image.ImportOptions{Repo: o.Repo, Tag: o.Tag, Message: o.Message, Platform: o.Platform, Source: o.Source, Changes: o.Changes}, in, out)
}
