package snapdir

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/storage"
)

// Commit implements storage.Driver.
func (s *Store) Commit(ctx context.Context, name, key string, labels map[string]string) error {
	return s.commit(ctx, name, key, "", labels, s.content.Commit)
}

// Rebase is Commit for a snapshot without a parent that becomes a child of one; see
// storage.Rebaser. What is done instead of Content.Commit is done by adopt, to which
// the snapshot is described with its parent.
func (s *Store) Rebase(ctx context.Context, name, key, parent string, labels map[string]string, adopt func(context.Context, Snapshot) error) error {
	if parent == "" {
		return fmt.Errorf("name of the parent is empty: %w", errdefs.ErrInvalidArgument)
	}
	return s.commit(ctx, name, key, parent, labels, adopt)
}

// commit commits a snapshot; with parent, as its child.
func (s *Store) commit(ctx context.Context, name, key, parent string, labels map[string]string, finish func(context.Context, Snapshot) error) error {
	if name == "" {
		return fmt.Errorf("snapshot name is empty: %w", errdefs.ErrInvalidArgument)
	}
	s.mu.Lock()
	e, onto, err := s.committable(ctx, name, key, parent)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	committed := &entry{Snapshot: e.Snapshot}
	if onto != nil {
		committed.Parent, committed.Chain = parent, append([]int{onto.Number}, onto.Chain...)
		onto.children++
	}
	now := time.Now().UTC() // a committed snapshot is a new one
	committed.Kind, committed.Name, committed.Created, committed.Updated = storage.KindCommitted, name, now, now
	committed.Labels = maps.Clone(labels)
	s.byName[name] = committed // taken from here on
	// One directory becomes one snapshot, and is neither removed nor stood on before.
	e.committing, committed.committing = true, true
	s.mu.Unlock()
	if err = finish(ctx, committed.Snapshot); err == nil {
		err = s.save(&committed.Snapshot, true)
	}
	s.mu.Lock()
	e.committing, committed.committing = false, false
	if err != nil {
		delete(s.byName, name)
		if onto != nil {
			onto.children--
		}
		s.mu.Unlock()
		return fmt.Errorf("committing snapshot %s: %w", key, err)
	}
	delete(s.byName, key)
	s.adopt(committed)
	s.mu.Unlock()
	// Only now nobody mounts it for writing any more.
	if err := s.content.Settle(s.Dir(committed.Number)); err != nil {
		s.log.Warn("removing what a committed snapshot does not need", "snapshot", name, "error", err)
	}
	return nil
}

// committable finds a snapshot that can be committed, and its future parent; the
// caller holds mu.
func (s *Store) committable(ctx context.Context, name, key, parent string) (e, onto *entry, err error) {
	e, err = s.built(ctx, key)
	switch {
	case s.byName[name] != nil:
		return nil, nil, fmt.Errorf("snapshot %q: %w", name, errdefs.ErrAlreadyExists)
	case err != nil:
		return nil, nil, err
	case e.Kind != storage.KindActive:
		return nil, nil, fmt.Errorf("snapshot %q is not active: %w", key, errdefs.ErrFailedPrecondition)
	case e.committing:
		return nil, nil, fmt.Errorf("snapshot %q is being committed: %w", key, errdefs.ErrFailedPrecondition)
	case parent == "":
		return e, nil, nil
	case e.Parent != "":
		return nil, nil, fmt.Errorf("snapshot %q has a parent, %q: %w", key, e.Parent, errdefs.ErrFailedPrecondition)
	}
	onto, err = s.parent(parent)
	return e, onto, err
}
