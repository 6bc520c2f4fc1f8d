// Package overlay is davit's default storage driver: snapshots are directories,
// put together by overlayfs in the kernel. It describes mounts and never makes
// one itself.
//
// Each snapshot is a directory <root>/s/<number> with its record (snapshot.json),
// its content (fs) and, when active, overlayfs's work directory (work). Numbers
// keep mount options short. Records are written by rename; those of committed
// snapshots are durable, those of active ones survive the process but need not
// survive a power cut.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/storage"
)

// snapshot is a snapshot in memory and, but for children, on disk.
type snapshot struct {
	storage.Info
	Number int
	// Chain are the numbers of all ancestors, the parent first.
	Chain []int

	children   int
	committing bool // a commit of it is under way
}

// Driver implements storage.Driver, storage.Differ and storage.Rebaser.
type Driver struct {
	root string
	log  hclog.Logger

	mu     sync.Mutex
	byName map[string]*snapshot
	last   int

	trash chan string
	empty sync.WaitGroup
}

// New opens, and if need be makes, a store below root.
func New(root string, log hclog.Logger) (*Driver, error) {
	d := &Driver{root: root, log: log, byName: map[string]*snapshot{}, trash: make(chan string, 4096)}
	for _, dir := range []string{d.dir("s"), d.dir("trash")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := probe(d.dir("s")); err != nil {
		return nil, err
	}
	if err := d.load(); err != nil {
		return nil, err
	}
	left, err := os.ReadDir(d.dir("trash"))
	if err != nil {
		return nil, err
	}
	d.empty.Go(func() {
		for _, entry := range left {
			d.delete(d.dir("trash", entry.Name()))
		}
		for path := range d.trash {
			d.delete(path)
		}
	})
	return d, nil
}

// Close waits until what was removed is deleted.
func (d *Driver) Close() {
	close(d.trash)
	d.empty.Wait()
}

func (d *Driver) delete(path string) {
	if err := os.RemoveAll(path); err != nil {
		d.log.Warn("deleting a removed snapshot", "path", path, "error", err)
	}
}

func (d *Driver) dir(parts ...string) string {
	return filepath.Join(append([]string{d.root}, parts...)...)
}

func (d *Driver) number(n int) string { return d.dir("s", strconv.Itoa(n)) }

func (d *Driver) content(n int) string { return filepath.Join(d.number(n), "fs") }

// Prepare implements storage.Driver.
func (d *Driver) Prepare(_ context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	return d.create(storage.KindActive, key, parent, labels)
}

// View implements storage.Driver.
func (d *Driver) View(_ context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	return d.create(storage.KindView, key, parent, labels)
}

func (d *Driver) create(kind storage.Kind, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	if key == "" {
		return nil, fmt.Errorf("snapshot key is empty: %w", errdefs.ErrInvalidArgument)
	}
	s, err := d.reserve(kind, key, parent, labels)
	if err != nil {
		return nil, err
	}
	if err := d.build(s); err != nil {
		d.mu.Lock()
		d.drop(s)
		d.mu.Unlock()
		return nil, errors.Join(fmt.Errorf("making snapshot %s: %w", key, err), os.RemoveAll(d.number(s.Number)))
	}
	return d.mounts(s), nil
}

// reserve takes the name, a number and the parent.
func (d *Driver) reserve(kind storage.Kind, key, parent string, labels map[string]string) (*snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byName[key] != nil {
		return nil, fmt.Errorf("snapshot %q: %w", key, errdefs.ErrAlreadyExists)
	}
	now := time.Now().UTC()
	s := &snapshot{Info: storage.Info{Kind: kind, Name: key, Parent: parent, Labels: maps.Clone(labels), Created: now, Updated: now}}
	if parent != "" {
		p, err := d.parent(parent)
		if err != nil {
			return nil, err
		}
		p.children++
		s.Chain = append([]int{p.Number}, p.Chain...)
	}
	d.last++
	s.Number = d.last
	d.byName[key] = s
	return s, nil
}

// parent finds a snapshot that another may stand on; the caller holds mu.
func (d *Driver) parent(name string) (*snapshot, error) {
	p := d.byName[name]
	if p == nil {
		return nil, fmt.Errorf("parent snapshot %q: %w", name, errdefs.ErrNotFound)
	}
	if p.Kind != storage.KindCommitted || p.committing {
		return nil, fmt.Errorf("parent snapshot %q is not committed: %w", name, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

// drop forgets a snapshot; the caller holds mu.
func (d *Driver) drop(s *snapshot) {
	delete(d.byName, s.Name)
	if p := d.byName[s.Parent]; p != nil {
		p.children--
	}
}

// build makes a snapshot's directories and, last, its record: a directory
// without one is removed at the next start.
func (d *Driver) build(s *snapshot) error {
	dir := d.number(s.Number)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(d.content(s.Number), 0o755); err != nil {
		return err
	}
	if s.Kind == storage.KindActive {
		if err := os.Mkdir(filepath.Join(dir, "work"), 0o711); err != nil {
			return err
		}
		if len(s.Chain) > 0 {
			if err := copyAttributes(d.content(s.Chain[0]), d.content(s.Number)); err != nil {
				return err
			}
		}
	}
	return d.save(s, false)
}

// mounts describes how a snapshot is mounted.
func (d *Driver) mounts(s *snapshot) []mount.Mount {
	bind := func(n int, mode string) []mount.Mount {
		return []mount.Mount{{Type: "bind", Source: d.content(n), Options: []string{"rbind", mode}}}
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
		lower[i] = d.content(n)
	}
	options := []string{"index=off", "lowerdir=" + strings.Join(lower, ":")}
	if s.Kind == storage.KindActive {
		options = append(options, "upperdir="+d.content(s.Number), "workdir="+filepath.Join(d.number(s.Number), "work"))
	} else {
		options = append(options, "ro")
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}
}

// find answers a copy of a snapshot.
func (d *Driver) find(key string) (snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.byName[key]
	if s == nil {
		return snapshot{}, fmt.Errorf("snapshot %q: %w", key, errdefs.ErrNotFound)
	}
	return *s, nil
}

// Mounts implements storage.Driver.
func (d *Driver) Mounts(_ context.Context, key string) ([]mount.Mount, error) {
	s, err := d.find(key)
	if err != nil {
		return nil, err
	}
	if s.Kind == storage.KindCommitted {
		return nil, fmt.Errorf("snapshot %q is committed: %w", key, errdefs.ErrFailedPrecondition)
	}
	return d.mounts(&s), nil
}

// Remove implements storage.Driver.
func (d *Driver) Remove(_ context.Context, key string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.byName[key]
	if s == nil {
		return fmt.Errorf("snapshot %q: %w", key, errdefs.ErrNotFound)
	}
	if s.committing {
		return fmt.Errorf("snapshot %q is being committed: %w", key, errdefs.ErrFailedPrecondition)
	}
	if s.children > 0 {
		return fmt.Errorf("snapshot %q has %d children: %w", key, s.children, errdefs.ErrFailedPrecondition)
	}
	// One rename makes it gone, also for the next start.
	doomed := d.dir("trash", strconv.Itoa(s.Number))
	if err := os.Rename(d.number(s.Number), doomed); err != nil {
		return fmt.Errorf("removing snapshot %s: %w", key, err)
	}
	d.drop(s)
	select {
	case d.trash <- doomed:
	default: // very much at once: the next start deletes it
	}
	return nil
}

// Stat implements storage.Driver.
func (d *Driver) Stat(_ context.Context, key string) (storage.Info, error) {
	s, err := d.find(key)
	return s.Info, err
}

// SetLabels implements storage.Driver.
func (d *Driver) SetLabels(_ context.Context, key string, labels map[string]string) (storage.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.byName[key]
	if s == nil {
		return storage.Info{}, fmt.Errorf("snapshot %q: %w", key, errdefs.ErrNotFound)
	}
	changed := *s
	changed.Labels = maps.Clone(s.Labels)
	if changed.Labels == nil {
		changed.Labels = map[string]string{}
	}
	for name, value := range labels {
		if value == "" {
			delete(changed.Labels, name)
		} else {
			changed.Labels[name] = value
		}
	}
	changed.Updated = time.Now().UTC()
	if err := d.save(&changed, false); err != nil {
		return storage.Info{}, fmt.Errorf("labelling snapshot %s: %w", key, err)
	}
	*s = changed
	return s.Info, nil
}

// List implements storage.Driver.
func (d *Driver) List(ctx context.Context, prefix string, fn func(storage.Info) error) error {
	d.mu.Lock()
	var infos []storage.Info
	for name, s := range d.byName {
		if strings.HasPrefix(name, prefix) {
			infos = append(infos, s.Info)
		}
	}
	d.mu.Unlock()
	for _, info := range infos {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// Release implements storage.Driver: there is nothing mounted on the host.
func (d *Driver) Release(context.Context, string) error { return nil }
