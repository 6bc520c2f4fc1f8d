// Package copies is a storage driver for any filesystem: each snapshot is a directory
// with everything in it, copied from its parent, and containers get it by a bind
// mount. Where the filesystem can share blocks between files, a copy takes none.
//
// It is for where overlayfs cannot work (a network filesystem, another overlay) and
// for programs that want a plain directory. A snapshot takes as long as its copy.
package copies

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/storage"
	"github.com/davit-engine/davit/sdk/storage/snapdir"
	"github.com/davit-engine/davit/sdk/storage/treediff"
	"github.com/davit-engine/davit/sdk/treecopy"
)

// Driver implements storage.Driver and storage.Differ.
type Driver struct {
	*snapdir.Store
}

// New opens, and if need be makes, a store below root.
func New(root string, log hclog.Logger) (*Driver, error) {
	d := &Driver{}
	var err error
	d.Store, err = snapdir.Open(root, content{d}, log)
	return d, err
}

// Diff implements storage.Differ.
func (d *Driver) Diff(ctx context.Context, key string, fn func(storage.Change) error) error {
	s, err := d.Find(ctx, key)
	if err != nil {
		return err
	}
	if s.Kind == storage.KindView {
		return fmt.Errorf("snapshot %q is a view: %w", key, errdefs.ErrFailedPrecondition)
	}
	if len(s.Chain) > 0 {
		return treediff.Compare(ctx, d.Tree(s.Chain[0]), d.Tree(s.Number), s.Built, fn)
	}
	return treediff.Added(ctx, d.Tree(s.Number), fn)
}

// content implements snapdir.Content.
type content struct{ *Driver }

// Build implements snapdir.Content. A view needs no copy: it shows its parent.
func (c content) Build(ctx context.Context, s snapdir.Snapshot) error {
	tree := c.Tree(s.Number)
	if err := os.Mkdir(tree, 0o755); err != nil || s.Kind == storage.KindView || len(s.Chain) == 0 {
		return err
	}
	from, err := os.Open(c.Tree(s.Chain[0]))
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	into, err := os.Open(tree)
	if err != nil {
		return err
	}
	err = treecopy.Copy(ctx, from, into)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	}
	return errors.Join(err, into.Close())
}

// Mounts implements snapdir.Content.
func (c content) Mounts(s snapdir.Snapshot) []mount.Mount {
	number, mode := s.Number, "rw"
	if s.Kind == storage.KindView {
		mode = "ro"
		if len(s.Chain) > 0 {
			number = s.Chain[0]
		}
	}
	return []mount.Mount{{Type: "bind", Source: c.Tree(number), Options: []string{"rbind", mode}}}
}

// Commit implements snapdir.Content.
func (c content) Commit(_ context.Context, s snapdir.Snapshot) error {
	return snapdir.SyncTree(c.Tree(s.Number))
}

// Settle implements snapdir.Content: all snapshots are alike.
func (content) Settle(string) error { return nil }

// Delete implements snapdir.Content.
func (content) Delete(dir string) error { return os.RemoveAll(dir) }
