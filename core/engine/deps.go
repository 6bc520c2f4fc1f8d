package engine

import (
	"context"
	"io"

	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	mobynetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	mobyvolume "github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/core/image"
	"github.com/davit-engine/davit/core/image/layers"
	"github.com/davit-engine/davit/core/network"
	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/core/resolvconf"
	corevolume "github.com/davit-engine/davit/core/volume"
	"github.com/davit-engine/davit/sdk/mount"
	sdknetwork "github.com/davit-engine/davit/sdk/network"
	"github.com/davit-engine/davit/sdk/runtime"
	"github.com/davit-engine/davit/sdk/storage"
	"github.com/davit-engine/davit/sdk/volume"
)

// Drivers finds driver plugins by name; the empty name is the configured
// default. The drivers it answers route every call to the plugin's present
// process and wait, within the call's deadline, while it is being restarted.
// An unknown name is ErrNotFound and lists the drivers that exist.
// It is implemented by plugin.Host.
type Drivers interface {
	Storage(name string) (storage.Driver, error)
	Network(name string) (sdknetwork.Driver, error)
	Runtime(name string) (runtime.Driver, error)
	Volume(name string) (volume.Driver, error)
	Default(kind plugin.Kind) string
	List() []plugin.Status
	// Upgrade replaces a plugin's process by one of what is installed now.
	Upgrade(ctx context.Context, name string, o plugin.UpgradeOptions) (plugin.Upgrade, error)
	// Called waits until a driver that is started on demand was called by somebody.
	Called(ctx context.Context, kind plugin.Kind, name string) error
}

// Images is what the engine needs of image.Store.
type Images interface {
	// Resolve finds an image by name, ID or ID prefix. ErrNotFound with the text
	// "No such image: REF".
	Resolve(ctx context.Context, ref string) (image.Image, error)
	// Unpack makes sure that all layers are committed snapshots of the storage
	// driver and answers the name of the topmost (empty for an image without
	// layers). Idempotent and safe to call at once for the same image.
	// Until release the snapshots are not removed.
	Unpack(ctx context.Context, img image.Image, driver string) (parent string, release func(), err error)
	// Collect frees soon what nothing needs any more, in the background.
	Collect()

	List(ctx context.Context, f filter.Args) ([]image.Image, error)
	Inspect(ctx context.Context, name string, platform *ocispec.Platform) (mobyimage.InspectResponse, error)
	History(ctx context.Context, name string, platform *ocispec.Platform) ([]mobyimage.HistoryResponseItem, error)
	Pull(ctx context.Context, ref, platform string, auth *registry.AuthConfig, out func(jsonstream.Message) error) error
	Push(ctx context.Context, ref string, platform *ocispec.Platform, auth *registry.AuthConfig, out func(jsonstream.Message) error) error
	Tag(ctx context.Context, name, ref string) error
	// Remove untags name, and deletes the image with its last name. inUse answers
	// the container that uses an image, if any, and whether it runs.
	Remove(ctx context.Context, name string, force, noPrune bool, inUse image.InUse) ([]mobyimage.DeleteResponse, error)
	Prune(ctx context.Context, f filter.Args, inUse image.InUse) (mobyimage.PruneReport, error)
	Load(ctx context.Context, in io.Reader, platform *ocispec.Platform, out func(jsonstream.Message) error) error
	Save(ctx context.Context, names []string, platform *ocispec.Platform) (func(io.Writer) error, error)
	Import(ctx context.Context, o image.ImportOptions, in io.Reader, out func(jsonstream.Message) error) error
	// AskRegistry describes an image of a registry without fetching it; Search looks for
	// repositories.
	AskRegistry(ctx context.Context, ref string, insecure bool, auth *registry.AuthConfig) (image.Remote, error)
	Search(ctx context.Context, term string, limit int, f filter.Args, auth *registry.AuthConfig) ([]registry.SearchResult, error)
	// Tree reads what the layers of an image change, Diff in what two images differ.
	Tree(ctx context.Context, ref string, files bool) (layers.Image, error)
	Diff(ctx context.Context, from, to string) (layers.Difference, error)
	// Commit makes an image of a container's image and the layer that write puts out,
	// and answers its ID.
	Commit(ctx context.Context, o image.CommitOptions, write func(io.Writer) (empty bool, err error)) (string, error)
	// Check reads all blobs and proves them; with repair those that are damaged are
	// removed.
	Check(ctx context.Context, repair bool) (image.Checked, error)
	// Usage measures the store's blobs and layers.
	Usage(ctx context.Context) (image.Usage, error)
}

// Registries is what the engine needs of registry.Registries.
type Registries interface {
	// Login asks a registry whether it takes the credentials. ErrUnauthenticated if
	// it does not.
	Login(ctx context.Context, auth *registry.AuthConfig) error
	// Info is the configuration in Docker's words.
	Info() *registry.ServiceConfig
}

// Networks is what the engine needs of network.Service.
type Networks interface {
	// NewNetns hands out a network namespace (with lo up) from the warm pool;
	// the file belongs to id. Asking again answers the same namespace.
	NewNetns(ctx context.Context, id string) (path string, err error)
	// AdoptNetns makes the network namespace of a process id's. Idempotent.
	AdoptNetns(id string, pid int) (path string, err error)
	// FreeNetns destroys id's namespace in the background. Idempotent.
	FreeNetns(id string)

	// Find answers a network by name, ID or ID prefix; ErrNotFound with the text
	// "network NAME not found".
	Find(nameOrID string) (network.Network, error)
	// Attach connects a container's namespace to a network and registers its
	// names with the DNS server.
	Attach(ctx context.Context, a network.Attachment) (sdknetwork.Endpoint, error)
	// Detach undoes Attach. Idempotent.
	Detach(ctx context.Context, networkID, endpointID string) error
	// UpdatePorts replaces the published ports of an attached endpoint and answers
	// those in use.
	UpdatePorts(ctx context.Context, networkID, endpointID string, ports []sdknetwork.Port) ([]sdknetwork.Port, error)
	// SetGateway says which default routes an attached endpoint provides from now on.
	SetGateway(ctx context.Context, networkID, endpointID string, ipv4, ipv6 bool) error
	// Rename replaces a container's name in the DNS of all its networks.
	Rename(containerID, newName string)
	// ResolvConf renders a container's /etc/resolv.conf for the kind of network it
	// is on.
	ResolvConf(containerID string, n resolvconf.Network, o resolvconf.Overrides) ([]byte, error)
	// ServeDNS opens the DNS server inside a container's namespace; StopDNS ends
	// it. Both are idempotent.
	ServeDNS(ctx context.Context, containerID, netns string, o resolvconf.Overrides) error
	StopDNS(containerID string)
	// Reconcile is called once at start-up, and again for one driver after that
	// driver's process was restarted (driver != ""), with the containers whose
	// namespaces and the attachments that are in use; all others are destroyed.
	Reconcile(ctx context.Context, driver string, netnsOf []string, inUse []network.Attachment) error

	List(ctx context.Context, f filter.Args) ([]mobynetwork.Summary, error)
	Inspect(ctx context.Context, name string) (mobynetwork.Inspect, error)
	Create(ctx context.Context, req mobynetwork.CreateRequest) (mobynetwork.CreateResponse, error)
	Remove(ctx context.Context, name string) error
	Prune(ctx context.Context, f filter.Args) (mobynetwork.PruneReport, error)
}

// Volumes is what the engine needs of volume.Service.
type Volumes interface {
	// Ensure answers the named volume and creates it with the driver (empty:
	// default) if it does not exist. It is reserved for the container until Settled.
	// An anonymous volume goes with its container.
	Ensure(ctx context.Context, req mobyvolume.CreateRequest, containerID string, anonymous bool) (vol mobyvolume.Volume, fresh bool, err error)
	// Settled says that a container is made, or given up: what it has is known from
	// its record.
	Settled(containerID string)
	// Clone copies a volume's data into a new volume, Rename gives one another name;
	// ErrConflict while running answers containers (for a clone without force).
	// Containers that have a renamed volume learn of it by moved.
	Clone(ctx context.Context, source, name string, labels map[string]string, force bool, running func(name string) []string) (mobyvolume.Volume, error)
	Rename(ctx context.Context, name, newName string, running func(name string) []string, moved func(corevolume.Renamed) error) (mobyvolume.Volume, error)
	FinishRenames(moved func(corevolume.Renamed) error) error
	// Resize limits a volume, in bytes; 0 for no limit.
	Resize(ctx context.Context, name string, size int64) (mobyvolume.Volume, error)
	// Disown lets an anonymous volume outlive the container it was made for.
	Disown(name string) error
	// Sweep removes anonymous volumes whose container does not exist and which
	// nobody else uses.
	Sweep(ctx context.Context, exists func(containerID string) bool, users func(name string) []string) error
	// Mount and Unmount bracket a container's use of a volume. The details are those
	// of the event.
	Mount(ctx context.Context, name, containerID string, details map[string]string) (mount.Mount, error)
	Unmount(ctx context.Context, name, containerID string) error
	// Borrow mounts a volume for the engine's own work until it is given back.
	Borrow(ctx context.Context, name string) (m mount.Mount, giveBack func() error, err error)
	// Fill runs fn with a borrowed volume that nobody else fills meanwhile.
	Fill(ctx context.Context, name string, fn func(mount.Mount) error) error
	// Size measures a volume, in bytes; -1 if nobody can tell.
	Size(ctx context.Context, name string) int64
	// Reconcile is called at start-up and after a restart of one driver with all
	// claims in use.
	Reconcile(ctx context.Context, driver string, inUse []volume.Claim) error

	List(ctx context.Context, f filter.Args, users func(name string) int) (mobyvolume.ListResponse, error)
	Inspect(ctx context.Context, name string) (mobyvolume.Volume, error)
	Create(ctx context.Context, req mobyvolume.CreateRequest) (mobyvolume.Volume, error)
	// Remove fails with ErrConflict ("volume is in use - [IDs]") while users
	// answers containers.
	Remove(ctx context.Context, name string, force bool, users func(name string) []string) error
	Prune(ctx context.Context, f filter.Args, users func(name string) []string) (mobyvolume.PruneReport, error)
}
