package api

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/types/checkpoint"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/filter"
	coreimage "github.com/davit-engine/davit/core/image"
	"github.com/davit-engine/davit/core/image/layers"
	"github.com/davit-engine/davit/core/plugin"
)

// Backend is what the API needs of the engine. Every method takes names, full
// IDs or unambiguous ID prefixes where Docker does. Errors are of the kinds of
// containerd/errdefs and carry the text that the client is shown.
type Backend interface {
	Containers
	Execs
	Images
	Networks
	Volumes
	System
}

// Containers are the container operations.
type Containers interface {
	ContainerCreate(ctx context.Context, name, platform string, req container.CreateRequest) (container.CreateResponse, error)
	ContainerStart(ctx context.Context, name string, o StartOptions) (started bool, err error)
	ContainerCheckpoint(ctx context.Context, name string, o checkpoint.CreateRequest) error
	ContainerCheckpoints(ctx context.Context, name, dir string) ([]checkpoint.Summary, error)
	ContainerCheckpointRemove(ctx context.Context, name, id, dir string) error
	ContainerStop(ctx context.Context, name string, o StopOptions) (stopped bool, err error)
	ContainerRestart(ctx context.Context, name string, o StopOptions) error
	ContainerKill(ctx context.Context, name, signal string) error
	ContainerPause(ctx context.Context, name string) error
	ContainerUnpause(ctx context.Context, name string) error
	// ContainerWait answers at once with a function that waits, so that the API
	// can send its header when the wait is registered.
	ContainerWait(ctx context.Context, name string, condition container.WaitCondition) (func(context.Context) (container.WaitResponse, error), error)
	ContainerInspect(ctx context.Context, name string, size bool) (container.InspectResponse, error)
	ContainerList(ctx context.Context, o ContainerListOptions) ([]container.Summary, error)
	ContainerRename(ctx context.Context, name, newName string) error
	ContainerRemove(ctx context.Context, name string, o ContainerRemoveOptions) error
	ContainersPrune(ctx context.Context, f filter.Args) (container.PruneReport, error)
	ContainerUpdate(ctx context.Context, name string, u container.UpdateConfig) (container.UpdateResponse, error)
	// ContainerPublish replaces the published ports of a container, also of one that
	// runs (served below /davit/containers), and answers those in use.
	ContainerPublish(ctx context.Context, name string, bindings network.PortMap) (network.PortMap, error)
	ContainerResize(ctx context.Context, name string, width, height uint16) error
	ContainerTop(ctx context.Context, name, psArgs string) (container.TopResponse, error)
	ContainerStats(ctx context.Context, name string) (container.StatsResponse, error)
	ContainerChanges(ctx context.Context, name string) ([]container.FilesystemChange, error)
	ContainerLogs(ctx context.Context, name string, o LogsOptions) (LogStream, error)
	ContainerAttach(ctx context.Context, name string, o AttachOptions) (Session, error)
	ContainerStatPath(ctx context.Context, name, path string) (container.PathStat, error)
	ContainerArchive(ctx context.Context, name, path string) (io.ReadCloser, container.PathStat, error)
	ContainerExtract(ctx context.Context, name, path string, o ExtractOptions, content io.Reader) error
	ContainerCommit(ctx context.Context, name string, o CommitOptions) (imageID string, err error)
	ContainerExport(ctx context.Context, name string) (io.ReadCloser, error)
}

// Execs are the exec operations.
type Execs interface {
	ExecCreate(ctx context.Context, containerName string, req container.ExecCreateRequest) (id string, err error)
	// ExecStart starts an exec. With req.Detach the Session is nil. Errors before
	// the process could be attached are returned; a command that cannot be run is
	// reported by Session.Run and by the exec's exit code (126, 127).
	ExecStart(ctx context.Context, id string, req container.ExecStartRequest) (Session, error)
	ExecInspect(ctx context.Context, id string) (container.ExecInspectResponse, error)
	ExecResize(ctx context.Context, id string, width, height uint16) error
}

// Images are the image operations.
type Images interface {
	ImageList(ctx context.Context, o ImageListOptions) ([]image.Summary, error)
	ImageInspect(ctx context.Context, name string, platform *ocispec.Platform) (image.InspectResponse, error)
	ImageHistory(ctx context.Context, name string, platform *ocispec.Platform) ([]image.HistoryResponseItem, error)
	ImagePush(ctx context.Context, ref string, platform *ocispec.Platform, auth *registry.AuthConfig, out Progress) error
	RegistryLogin(ctx context.Context, auth *registry.AuthConfig) error
	ImagePull(ctx context.Context, ref, platform string, auth *registry.AuthConfig, out Progress) error
	ImageTag(ctx context.Context, name, ref string) error
	ImageRemove(ctx context.Context, name string, force, noPrune bool) ([]image.DeleteResponse, error)
	ImagesPrune(ctx context.Context, f filter.Args) (image.PruneReport, error)
	// ImageAskRegistry describes an image of a registry, and answers its manifest or
	// index. Insecure allows to do without TLS.
	ImageAskRegistry(ctx context.Context, ref string, insecure bool, auth *registry.AuthConfig) (registry.DistributionInspect, []byte, error)
	ImageSearch(ctx context.Context, term string, limit int, f filter.Args, auth *registry.AuthConfig) ([]registry.SearchResult, error)
	// ImageTree and ImageDiff are davit's own (served below /davit/images).
	ImageTree(ctx context.Context, name string, files bool) (layers.Image, error)
	ImageDiff(ctx context.Context, from, to string) (layers.Difference, error)
	ImageLoad(ctx context.Context, in io.Reader, platform *ocispec.Platform, out Progress) error
	// ImageSave answers a function that writes the archive, when all images are found.
	ImageSave(ctx context.Context, names []string, platform *ocispec.Platform) (func(io.Writer) error, error)
	ImageImport(ctx context.Context, o ImageImportOptions, in io.Reader, out Progress) error
}

// Networks are the network operations.
type Networks interface {
	NetworkList(ctx context.Context, f filter.Args) ([]network.Summary, error)
	NetworkInspect(ctx context.Context, name string) (network.Inspect, error)
	NetworkCreate(ctx context.Context, req network.CreateRequest) (network.CreateResponse, error)
	NetworkRemove(ctx context.Context, name string) error
	NetworkConnect(ctx context.Context, name string, req network.ConnectRequest) error
	NetworkDisconnect(ctx context.Context, name string, req network.DisconnectRequest) error
	NetworksPrune(ctx context.Context, f filter.Args) (network.PruneReport, error)
}

// Volumes are the volume operations.
type Volumes interface {
	VolumeList(ctx context.Context, f filter.Args) (volume.ListResponse, error)
	VolumeInspect(ctx context.Context, name string) (volume.Volume, error)
	VolumeCreate(ctx context.Context, req volume.CreateRequest) (volume.Volume, error)
	VolumeRemove(ctx context.Context, name string, force bool) error
	VolumesPrune(ctx context.Context, f filter.Args) (volume.PruneReport, error)
	// VolumeClone, VolumeRename and VolumeResize are davit's own (served below
	// /davit/volumes). A size is in bytes, 0 for no limit.
	VolumeClone(ctx context.Context, source, name string, labels map[string]string, force bool) (volume.Volume, error)
	VolumeRename(ctx context.Context, name, newName string) (volume.Volume, error)
	VolumeResize(ctx context.Context, name string, size int64) (volume.Volume, error)
}

// System are the operations on the engine itself.
type System interface {
	SystemInfo(ctx context.Context) (system.Info, error)
	SystemVersion(ctx context.Context) (system.VersionResponse, error)
	SystemDiskUsage(ctx context.Context, objects ...system.DiskUsageObject) (system.DiskUsage, error)
	// Events sends past events since `since` and then live ones to fn until
	// `until` (zero: forever), ctx ends or fn fails.
	Events(ctx context.Context, since, until time.Time, f filter.Args, fn func(events.Message) error) error
	// SystemCheck is davit's own (served at /davit/system/check): it reads all blobs of
	// images, and with repair removes those that are damaged.
	SystemCheck(ctx context.Context, repair bool) (coreimage.Checked, error)
	// DriverPlugins describes davit's driver plugins (served below /davit/plugins).
	DriverPlugins(ctx context.Context) ([]plugin.Status, error)
	// UpgradePlugin replaces a driver plugin's process by one of what is installed
	// now. ErrNotModified if that runs already.
	UpgradePlugin(ctx context.Context, name string, o plugin.UpgradeOptions) (plugin.Upgrade, error)
}

// The words of the interface are the engine's, too.
type (
	Progress               = backend.Progress
	Session                = backend.Session
	LogStream              = backend.LogStream
	StartOptions           = backend.StartOptions
	StopOptions            = backend.StopOptions
	ContainerListOptions   = backend.ContainerListOptions
	ContainerRemoveOptions = backend.ContainerRemoveOptions
	LogsOptions            = backend.LogsOptions
	AttachOptions          = backend.AttachOptions
	ExtractOptions         = backend.ExtractOptions
	ImageListOptions       = backend.ImageListOptions
	CommitOptions          = backend.CommitOptions
	ImageImportOptions     = backend.ImageImportOptions
)
