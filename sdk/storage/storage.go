// Package storage is the contract of storage drivers.
//
// A driver keeps snapshots of filesystems in the algebra of containerd's
// snapshotter: Prepare makes a writable (active) snapshot on top of a committed
// parent, View a read-only one, Commit turns an active snapshot into a
// committed one that others can stand on, Remove deletes any snapshot that has
// no children. The driver describes snapshots as mounts; it does not mount
// them, unless its features include FeatureMounts, in which case Release undoes
// what it mounted.
//
// All keys and names share one name space per driver. Every method is safe for
// concurrent use.
package storage

import (
	"context"
	"time"

	"github.com/davit-engine/davit/sdk/mount"
)

// Feature flags a driver may announce.
const (
	// FeatureMounts says that Prepare, View or Mounts mount on the host and that
	// Release must be called when the mounts are no longer used.
	FeatureMounts = "mounts"
	// FeatureDiff says that the driver implements [Differ].
	FeatureDiff = "diff"
	// FeatureRebase says that the driver implements [Rebaser].
	FeatureRebase = "rebase"
)

// Kind says what a snapshot is.
type Kind string

// The kinds of snapshots.
const (
	KindView      Kind = "view"
	KindActive    Kind = "active"
	KindCommitted Kind = "committed"
)

// Info describes a snapshot.
type Info struct {
	Kind    Kind
	Name    string // key of an active snapshot or view, name of a committed one
	Parent  string // name of the committed parent, empty for none
	Labels  map[string]string
	Created time.Time
	Updated time.Time
}

// Usage is what a snapshot itself occupies, parents excluded.
type Usage struct {
	Size   int64 // bytes
	Inodes int64
}

// Driver stores snapshots. Errors are of the kinds of containerd/errdefs:
// ErrNotFound for an unknown key or parent, ErrAlreadyExists for a key or name
// in use, ErrFailedPrecondition for an operation the snapshot's kind or its
// children forbid, ErrInvalidArgument for a malformed request.
type Driver interface {
	// Prepare creates the active snapshot key on top of the committed snapshot
	// parent (empty for none) and returns its mounts. ErrAlreadyExists if key
	// exists, whatever its parent. ErrInvalidArgument if parent is not committed, and
	// for an empty key.
	Prepare(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error)
	// View is Prepare for a snapshot that is never written to.
	View(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error)
	// Mounts returns the mounts of the active snapshot or view key.
	// ErrFailedPrecondition for a committed one.
	Mounts(ctx context.Context, key string) ([]mount.Mount, error)
	// Commit turns the active snapshot key into the committed snapshot name. The
	// key is free afterwards. The content is durable when Commit returns.
	// ErrAlreadyExists if name is in use, which is looked at before the key: that is
	// what a repetition is answered.
	Commit(ctx context.Context, name, key string, labels map[string]string) error
	// Remove deletes a snapshot. ErrFailedPrecondition while it has children.
	// The name is free when Remove returns; space may be freed a little later.
	Remove(ctx context.Context, key string) error
	// Stat describes a snapshot.
	Stat(ctx context.Context, key string) (Info, error)
	// SetLabels merges labels into a snapshot's; an empty value removes a label.
	SetLabels(ctx context.Context, key string, labels map[string]string) (Info, error)
	// List calls fn for every snapshot whose name starts with prefix, in no
	// particular order, until fn returns an error, which List returns.
	List(ctx context.Context, prefix string, fn func(Info) error) error
	// Usage measures a snapshot without its parents.
	Usage(ctx context.Context, key string) (Usage, error)
	// Release undoes the driver's own host mounts of key. Drivers without
	// FeatureMounts return nil. Idempotent.
	Release(ctx context.Context, key string) error
}

// Rebaser is implemented by drivers with FeatureRebase: layers can be unpacked
// before the ones below them are there.
type Rebaser interface {
	// CommitOnto is Commit for an active snapshot that was prepared without a parent
	// and becomes a child of the committed snapshot parent. What it holds are the
	// changes to the parent, in overlayfs's form: a character device 0/0 is a path that
	// is gone, the attribute trusted.overlay.opaque=y a directory that hides the
	// parent's. Its root directory gets the parent's owner and mode. ErrNotFound for an unknown parent, ErrInvalidArgument for one that is
	// not committed, ErrFailedPrecondition for a snapshot that has a parent.
	CommitOnto(ctx context.Context, name, key, parent string, labels map[string]string) error
}

// Change is one path that differs between a snapshot and its parent.
type Change struct {
	Kind ChangeKind
	Path string // absolute within the snapshot
}

// ChangeKind says how a path changed.
type ChangeKind string

// The kinds of changes, in Docker's order (0, 1, 2).
const (
	ChangeModify ChangeKind = "modify"
	ChangeAdd    ChangeKind = "add"
	ChangeDelete ChangeKind = "delete"
)

// Differ is implemented by drivers with FeatureDiff.
type Differ interface {
	// Diff lists the paths in which snapshot key differs from its parent.
	Diff(ctx context.Context, key string, fn func(Change) error) error
}
