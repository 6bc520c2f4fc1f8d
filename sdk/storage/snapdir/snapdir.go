// Package snapdir keeps the books of storage drivers whose snapshots are
// directories: keys, parents, labels, and what a crash left. A driver embeds a
// [Store] and says with a [Content] what is in the directories.
//
// Each snapshot is a directory <root>/s/<number> with its record (snapshot.json) and
// what the driver keeps in it. Numbers keep mount options short. Records are written
// by rename and after everything else, so that a directory without one is what a
// crash left of a creation; those of committed snapshots are durable, those of active
// ones survive the process but need not survive a power cut.
package snapdir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// Snapshot is a snapshot and where it is.
type Snapshot struct {
	storage.Info
	Number int // see Store.Dir
	// Chain are the numbers of all ancestors, the parent first.
	Chain []int
	// Built is when everything in it had been made: what changed later did so at its
	// user's hands.
	Built time.Time
}

// Content is what a driver does with the directories of snapshots.
type Content interface {
	// Build fills the directory of a new snapshot, which is there and empty. After an
	// error it is deleted.
	Build(ctx context.Context, s Snapshot) error
	// Mounts describes how an active snapshot or view is mounted.
	Mounts(s Snapshot) []mount.Mount
	// Commit makes what is in an active snapshot fit to be stood on, and durable. It
	// is active again after an error.
	Commit(ctx context.Context, s Snapshot) error
	// Settle removes what only an active snapshot needs from the directory of one that
	// is committed; also at each start, when that may have been done.
	Settle(dir string) error
	// Delete deletes the directory of a snapshot that was removed, or of which a crash
	// left a part.
	Delete(dir string) error
}

// entry is a snapshot in the index.
type entry struct {
	Snapshot
	children   int
	committing bool          // a commit of it is under way
	building   chan struct{} // closed when it is built or given up; nil afterwards
}

// Store implements storage.Driver for a Content.
type Store struct {
	root    string
	content Content
	log     hclog.Logger

	mu     sync.Mutex
	byName map[string]*entry
	last   int

	trash   chan string
	emptied sync.WaitGroup
}

// Open opens, and if need be makes, a store below root. Of content only what gets a
// directory is called before it returns.
func Open(root string, content Content, log hclog.Logger) (*Store, error) {
	s := &Store{root: root, content: content, log: log, byName: map[string]*entry{}, trash: make(chan string, 4096)}
	for _, dir := range []string{s.path("s"), s.path("trash")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	left, err := os.ReadDir(s.path("trash"))
	if err != nil {
		return nil, err
	}
	s.emptied.Go(func() {
		for _, found := range left {
			s.delete(s.path("trash", found.Name()))
		}
		for path := range s.trash {
			s.delete(path)
		}
	})
	return s, nil
}

// Close waits until what was removed is deleted. Nothing may be called any more.
func (s *Store) Close() {
	close(s.trash)
	s.emptied.Wait()
}

func (s *Store) delete(path string) {
	if err := s.content.Delete(path); err != nil {
		s.log.Warn("deleting a removed snapshot", "path", path, "error", err)
	}
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.root}, parts...)...)
}

// Dir is the directory of the snapshot of a number.
func (s *Store) Dir(number int) string { return s.path("s", strconv.Itoa(number)) }

// Tree is where a snapshot's files are by convention.
func (s *Store) Tree(number int) string { return filepath.Join(s.Dir(number), "fs") }

// Prepare implements storage.Driver.
func (s *Store) Prepare(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	return s.create(ctx, storage.KindActive, key, parent, labels)
}

// View implements storage.Driver.
func (s *Store) View(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	return s.create(ctx, storage.KindView, key, parent, labels)
}

func (s *Store) create(ctx context.Context, kind storage.Kind, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	if key == "" {
		return nil, fmt.Errorf("snapshot key is empty: %w", errdefs.ErrInvalidArgument)
	}
	e, err := s.reserve(kind, key, parent, labels)
	if err != nil {
		return nil, err
	}
	made := e.Snapshot // nobody else looks at it before it is built
	if err = s.build(ctx, &made); err != nil {
		err = errors.Join(fmt.Errorf("making snapshot %s: %w", key, err), s.content.Delete(s.Dir(made.Number)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(e.building)
	e.building = nil
	if err != nil {
		s.drop(e)
		return nil, err
	}
	e.Snapshot = made
	return s.content.Mounts(made), nil
}

func (s *Store) build(ctx context.Context, made *Snapshot) error {
	if err := os.Mkdir(s.Dir(made.Number), 0o700); err != nil {
		return err
	}
	if err := s.content.Build(ctx, *made); err != nil {
		return err
	}
	made.Built = time.Now().UTC()
	return s.save(made, false)
}

// reserve takes the name, a number and the parent.
func (s *Store) reserve(kind storage.Kind, key, parent string, labels map[string]string) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName[key] != nil {
		return nil, fmt.Errorf("snapshot %q: %w", key, errdefs.ErrAlreadyExists)
	}
	now := time.Now().UTC()
	e := &entry{building: make(chan struct{})}
	e.Info = storage.Info{Kind: kind, Name: key, Parent: parent, Labels: maps.Clone(labels), Created: now, Updated: now}
	if parent != "" {
		p, err := s.parent(parent)
		if err != nil {
			return nil, err
		}
		p.children++
		e.Chain = append([]int{p.Number}, p.Chain...)
	}
	s.last++
	e.Number = s.last
	s.byName[key] = e
	return e, nil
}

// parent finds a snapshot that another may stand on; the caller holds mu.
func (s *Store) parent(name string) (*entry, error) {
	p := s.byName[name]
	if p == nil {
		return nil, fmt.Errorf("parent snapshot %q: %w", name, errdefs.ErrNotFound)
	}
	if p.Kind != storage.KindCommitted || p.committing {
		return nil, fmt.Errorf("parent snapshot %q is not committed: %w", name, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

// drop forgets a snapshot; the caller holds mu.
func (s *Store) drop(e *entry) {
	delete(s.byName, e.Name)
	if p := s.byName[e.Parent]; p != nil {
		p.children--
	}
}

// built finds a snapshot and waits until it is built. The caller holds mu, which is
// free while that lasts.
func (s *Store) built(ctx context.Context, key string) (*entry, error) {
	for {
		e := s.byName[key]
		if e == nil {
			return nil, fmt.Errorf("snapshot %q: %w", key, errdefs.ErrNotFound)
		}
		building := e.building
		if building == nil {
			return e, nil
		}
		s.mu.Unlock()
		select {
		case <-building:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("waiting for snapshot %s: %w", key, err)
		}
	}
}

// Find answers a snapshot. ErrNotFound for an unknown key.
func (s *Store) Find(ctx context.Context, key string) (Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.built(ctx, key)
	if err != nil {
		return Snapshot{}, err
	}
	return e.Snapshot, nil
}

// Mounts implements storage.Driver.
func (s *Store) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	found, err := s.Find(ctx, key)
	if err != nil {
		return nil, err
	}
	if found.Kind == storage.KindCommitted {
		return nil, fmt.Errorf("snapshot %q is committed: %w", key, errdefs.ErrFailedPrecondition)
	}
	return s.content.Mounts(found), nil
}

// Remove implements storage.Driver.
func (s *Store) Remove(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.built(ctx, key)
	if err != nil {
		return err
	}
	if e.committing {
		return fmt.Errorf("snapshot %q is being committed: %w", key, errdefs.ErrFailedPrecondition)
	}
	if e.children > 0 {
		return fmt.Errorf("snapshot %q has %d children: %w", key, e.children, errdefs.ErrFailedPrecondition)
	}
	// One rename makes it gone, also for the next start.
	doomed := s.path("trash", strconv.Itoa(e.Number))
	if err := os.Rename(s.Dir(e.Number), doomed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing snapshot %s: %w", key, err)
	}
	s.drop(e)
	select {
	case s.trash <- doomed:
	default: // very much at once: the next start deletes it
	}
	return nil
}

// Stat implements storage.Driver. ErrFailedPrecondition for a committed snapshot that
// stands on one whose directory somebody else removed.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.built(ctx, key)
	if err == nil && e.Kind == storage.KindCommitted {
		err = s.sound(e)
	}
	if err != nil {
		return storage.Info{}, err
	}
	return e.Info, nil
}

// SetLabels implements storage.Driver.
func (s *Store) SetLabels(ctx context.Context, key string, labels map[string]string) (storage.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.built(ctx, key)
	if err != nil {
		return storage.Info{}, err
	}
	changed := e.Snapshot
	changed.Labels = maps.Clone(e.Labels)
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
	if err := s.save(&changed, false); err != nil {
		return storage.Info{}, fmt.Errorf("labelling snapshot %s: %w", key, err)
	}
	e.Snapshot = changed
	return e.Info, nil
}

// List implements storage.Driver. What is still being built is listed, too.
func (s *Store) List(ctx context.Context, prefix string, fn func(storage.Info) error) error {
	s.mu.Lock()
	var infos []storage.Info
	for name, e := range s.byName {
		if strings.HasPrefix(name, prefix) {
			infos = append(infos, e.Info)
		}
	}
	s.mu.Unlock()
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
func (s *Store) Release(context.Context, string) error { return nil }

// Usage implements storage.Driver: what is in a snapshot's tree.
func (s *Store) Usage(ctx context.Context, key string) (storage.Usage, error) {
	found, err := s.Find(ctx, key)
	if err != nil {
		return storage.Usage{}, err
	}
	return Measure(ctx, s.Tree(found.Number))
}
