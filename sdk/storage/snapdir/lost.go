package snapdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/containerd/errdefs"
)

// There are hands that delete directories of snapshots. A committed snapshot whose
// directory is gone is forgotten when it is asked for, so that it can be committed
// again; those that stand on it are joined to the new one then.

// isLost says whether somebody else removed a snapshot's directory.
func (s *Store) isLost(e *entry) bool {
	_, err := os.Lstat(s.Dir(e.Number))
	return errors.Is(err, fs.ErrNotExist)
}

// sound is an error if a committed snapshot cannot be used: ErrNotFound if its directory
// is gone, ErrFailedPrecondition if that of one below is. The caller holds mu.
func (s *Store) sound(e *entry) error {
	if e.committing {
		return nil
	}
	if s.isLost(e) {
		s.drop(e)
		return fmt.Errorf("the directory of snapshot %q is gone: %w", e.Name, errdefs.ErrNotFound)
	}
	for name := e.Parent; name != ""; {
		below := s.byName[name]
		if below != nil && !below.committing && s.isLost(below) {
			s.drop(below)
			below = nil
		}
		if below == nil {
			return fmt.Errorf("snapshot %q stands on %q, whose directory is gone: %w", e.Name, name, errdefs.ErrFailedPrecondition)
		}
		name = below.Parent
	}
	return nil
}

// join tells all who stand on a snapshot where it and those below it are. The caller
// holds mu.
func (s *Store) join(below *entry) {
	for _, e := range s.byName {
		if e.Parent == below.Name {
			e.Chain = append([]int{below.Number}, below.Chain...)
			s.join(e)
		}
	}
}

// adopt makes those children that were left without a parent of its name. The caller
// holds mu.
func (s *Store) adopt(parent *entry) {
	for _, e := range s.byName {
		if e.Parent == parent.Name {
			parent.children++
		}
	}
	s.join(parent)
}

// rejoin is join for all of whose ancestors none is missing; the others keep what they
// know, which cannot be mounted. The caller holds mu.
func (s *Store) rejoin() {
	for _, e := range s.byName {
		var chain []int
		name := e.Parent
		for below := s.byName[name]; below != nil; below = s.byName[name] {
			chain, name = append(chain, below.Number), below.Parent
		}
		if name == "" {
			e.Chain = slices.Clip(chain)
		}
	}
}
