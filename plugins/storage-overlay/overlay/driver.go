// Package overlay is davit's default storage driver: snapshots are directories,
// put together by overlayfs in the kernel. It describes mounts and never makes
// one itself.
//
// A snapshot's directory has its content (fs) and, when active, overlayfs's work
// directory (work); sdk/storage/snapdir keeps the books of them.
package overlay

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/storage"
	"github.com/davit-engine/davit/sdk/storage/snapdir"
)

// Driver implements storage.Driver, storage.Differ and storage.Rebaser.
type Driver struct {
	*snapdir.Store
}

// New opens, and if need be makes, a store below root.
func New(root string, log hclog.Logger) (*Driver, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	if err := probe(root); err != nil {
		return nil, err
	}
	d := &Driver{}
	var err error
	d.Store, err = snapdir.Open(root, content{d}, log)
	return d, err
}

// CommitOnto implements storage.Rebaser. The content of a layer does not depend on
// those below it.
func (d *Driver) CommitOnto(ctx context.Context, name, key, parent string, labels map[string]string) error {
	return d.Rebase(ctx, name, key, parent, labels, func(_ context.Context, s snapdir.Snapshot) error {
		if err := copyAttributes(d.Tree(s.Chain[0]), d.Tree(s.Number)); err != nil {
			return err
		}
		return snapdir.SyncTree(d.Tree(s.Number))
	})
}

// content implements snapdir.Content.
type content struct{ *Driver }

// Build implements snapdir.Content.
func (c content) Build(_ context.Context, s snapdir.Snapshot) error {
	if err := os.Mkdir(c.Tree(s.Number), 0o755); err != nil || s.Kind != storage.KindActive {
		return err
	}
	if err := os.Mkdir(work(c.Dir(s.Number)), 0o711); err != nil || len(s.Chain) == 0 {
		return err
	}
	return copyAttributes(c.Tree(s.Chain[0]), c.Tree(s.Number))
}

// work is overlayfs's work directory in a snapshot's.
func work(dir string) string { return filepath.Join(dir, "work") }

// Commit implements snapdir.Content.
func (c content) Commit(_ context.Context, s snapdir.Snapshot) error {
	return snapdir.SyncTree(c.Tree(s.Number))
}

// Settle implements snapdir.Content.
func (content) Settle(dir string) error { return os.RemoveAll(work(dir)) }

// Delete implements snapdir.Content.
func (content) Delete(dir string) error { return os.RemoveAll(dir) }

// Mounts implements snapdir.Content.
func (c content) Mounts(s snapdir.Snapshot) []mount.Mount {
	bind := func(n int, mode string) []mount.Mount {
		return []mount.Mount{{Type: "bind", Source: c.Tree(n), Options: []string{"rbind", mode}}}
	}
	switch {
	case s.Kind == storage.KindActive && len(s.Chain) == 0:
		return bind(s.Number, "rw")
	case s.Kind == storage.KindView && len(s.Chain) == 0:
		return bind(s.Number, "ro")
	case s.Kind == storage.KindView && len(s.Chain) == 1:
		return bind(s.Chain[0], "ro")
	}
	lower := make([]string, len(s.Chain))
	for i, n := range s.Chain {
		lower[i] = c.Tree(n)
	}
	options := []string{"index=off", "lowerdir=" + strings.Join(lower, ":")}
	if s.Kind == storage.KindActive {
		options = append(options, "upperdir="+c.Tree(s.Number), "workdir="+work(c.Dir(s.Number)))
	} else {
		options = append(options, "ro")
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}
}

// copyAttributes gives a new upper directory the owner and mode of the layer
// below: the root directory of the container is the upper one.
func copyAttributes(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && (st.Uid != 0 || st.Gid != 0) {
		if err := os.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if mode := info.Mode(); mode.Perm() != 0o755 || mode&(os.ModeSticky|os.ModeSetuid|os.ModeSetgid) != 0 {
		return os.Chmod(to, mode)
	}
	return nil
}
