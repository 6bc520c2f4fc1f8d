// Package volume is the contract of volume drivers: named directories whose
// life is independent of the containers that use them.
package volume

import (
	"context"
	"time"

	"github.com/davit-engine/davit/sdk/mount"
)

// Volume describes one volume.
type Volume struct {
	Name       string
	Mountpoint string // host path of the data where the driver has one
	Options    map[string]string
	Labels     map[string]string
	Created    time.Time
	Status     map[string]string // driver-specific, for inspect
	Fresh      bool              // true in the answer of the Create call that made it
}

// Features of drivers, by which the engine knows the optional interfaces that
// they implement.
const (
	FeatureClone  = "clone"  // [Cloner]
	FeatureRename = "rename" // [Renamer]
	FeatureResize = "resize" // [Resizer]
)

// Usage is what a volume occupies.
type Usage struct {
	Size int64 // bytes; -1 if the driver cannot tell
}

// Claim is one consumer's use of a volume, named by the engine.
type Claim struct {
	Volume   string
	Consumer string // container ID
}

// Driver stores volumes. Errors are of the kinds of containerd/errdefs. Every
// method is safe for concurrent use.
type Driver interface {
	// Create makes a volume. The same name with the same options, or with none,
	// answers the existing volume; with other options it is ErrAlreadyExists. An
	// unknown or malformed option is ErrInvalidArgument naming the option, a name that
	// the driver cannot keep too ([CheckName]).
	Create(ctx context.Context, name string, options, labels map[string]string) (Volume, error)
	// Get describes one volume.
	Get(ctx context.Context, name string) (Volume, error)
	// List describes all volumes.
	List(ctx context.Context) ([]Volume, error)
	// Remove deletes the volume and its data. ErrFailedPrecondition while it is
	// mounted by a consumer. ErrNotFound if it is not there.
	Remove(ctx context.Context, name string) error
	// Mount makes the volume usable for a consumer and returns the mount the
	// runtime has to make (usually one bind mount). Idempotent per consumer.
	Mount(ctx context.Context, name, consumer string) (mount.Mount, error)
	// Unmount ends a consumer's use. Idempotent; unknown consumers are no error.
	Unmount(ctx context.Context, name, consumer string) error
	// Usage measures a volume. A driver that cannot tell need not know the volume.
	Usage(ctx context.Context, name string) (Usage, error)
	// Reconcile tells the driver all claims that are valid; it takes them for its own
	// and drops every other. It never removes a volume; a claim on an unknown one is no
	// error.
	Reconcile(ctx context.Context, claims []Claim) error
}

// Cloner is implemented by drivers with FeatureClone.
type Cloner interface {
	// Clone makes a volume with the options and the data of another one, and labels
	// of its own. What is written to the source meanwhile may be in the copy or not.
	// Either the whole copy is there in the end or nothing. The clone of a call that
	// was made before is answered; any other volume of the name is ErrAlreadyExists.
	Clone(ctx context.Context, source, name string, labels map[string]string) (Volume, error)
}

// Renamer is implemented by drivers with FeatureRename.
type Renamer interface {
	// Rename gives a volume another name. ErrFailedPrecondition while a consumer has
	// it mounted, ErrAlreadyExists if there is one of the new name. A volume that was
	// renamed so before is answered.
	Rename(ctx context.Context, name, newName string) (Volume, error)
}

// Resizer is implemented by drivers with FeatureResize.
type Resizer interface {
	// Resize sets how many bytes a volume may hold, 0 for no limit. What is above a
	// new limit stays. ErrFailedPrecondition where the host cannot hold a limit.
	Resize(ctx context.Context, name string, size int64) (Volume, error)
}
