package overlay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/storage"
)

// Commit implements storage.Driver.
func (d *Driver) Commit(_ context.Context, name, key string, labels map[string]string) error {
	return d.commit(name, key, "", labels)
}

// CommitOnto implements storage.Rebaser. The content of a layer does not depend on
// those below it.
func (d *Driver) CommitOnto(_ context.Context, name, key, parent string, labels map[string]string) error {
	if parent == "" {
		return fmt.Errorf("name of the parent is empty: %w", errdefs.ErrInvalidArgument)
	}
	return d.commit(name, key, parent, labels)
}

// commit commits a snapshot; with parent, as its child.
func (d *Driver) commit(name, key, parent string, labels map[string]string) error {
	if name == "" {
		return fmt.Errorf("snapshot name is empty: %w", errdefs.ErrInvalidArgument)
	}
	d.mu.Lock()
	s := d.byName[key]
	var err error
	switch {
	case d.byName[name] != nil:
		err = fmt.Errorf("snapshot %q: %w", name, errdefs.ErrAlreadyExists)
	case s == nil:
		err = fmt.Errorf("snapshot %q: %w", key, errdefs.ErrNotFound)
	case s.Kind != storage.KindActive:
		err = fmt.Errorf("snapshot %q is not active: %w", key, errdefs.ErrFailedPrecondition)
	case s.committing:
		err = fmt.Errorf("snapshot %q is being committed: %w", key, errdefs.ErrFailedPrecondition)
	case parent != "" && s.Parent != "":
		err = fmt.Errorf("snapshot %q has a parent, %q: %w", key, s.Parent, errdefs.ErrFailedPrecondition)
	}
	var onto *snapshot
	if err == nil && parent != "" {
		onto, err = d.parent(parent)
	}
	if err != nil {
		d.mu.Unlock()
		return err
	}
	committed := *s
	if onto != nil {
		committed.Parent, committed.Chain = parent, append([]int{onto.Number}, onto.Chain...)
		onto.children++
	}
	now := time.Now().UTC() // a committed snapshot is a new one
	committed.Kind, committed.Name, committed.Created, committed.Updated = storage.KindCommitted, name, now, now
	committed.Labels = maps.Clone(labels)
	d.byName[name] = &committed // taken from here on
	// One directory becomes one snapshot, and is neither removed nor stood on before.
	s.committing, committed.committing = true, true
	d.mu.Unlock()
	if onto != nil {
		err = copyAttributes(d.content(onto.Number), d.content(s.Number))
	}
	if err = errors.Join(err, syncTree(d.content(s.Number)), d.save(&committed, true)); err != nil {
		d.mu.Lock()
		delete(d.byName, name)
		if onto != nil {
			onto.children--
		}
		s.committing = false
		d.mu.Unlock()
		return fmt.Errorf("committing snapshot %s: %w", key, err)
	}
	d.mu.Lock()
	delete(d.byName, key)
	committed.committing = false
	d.mu.Unlock()
	// Only now nobody mounts it for writing any more.
	if err := os.RemoveAll(filepath.Join(d.number(s.Number), "work")); err != nil {
		d.log.Warn("removing a work directory", "snapshot", name, "error", err)
	}
	return nil
}
