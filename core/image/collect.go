package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/sdk/storage"
)

const (
	// collectDelay lets several removals share one collection.
	collectDelay = 500 * time.Millisecond
	// collectTime bounds one collection in the background.
	collectTime = 2 * time.Minute
)

// Collect asks for a collection, soon and in the background, of blobs and snapshots
// that nothing needs any more. It never waits.
func (s *Store) Collect() {
	select {
	case s.wanted <- struct{}{}:
	default: // one is to come
	}
}

// collector runs the collections that are asked for.
func (s *Store) collector(ctx context.Context) {
	for {
		select {
		case <-s.wanted:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(collectDelay):
		case <-ctx.Done():
			return
		}
		bounded, cancel := context.WithTimeout(ctx, collectTime)
		s.Recover(bounded)
		cancel()
	}
}

// Recover removes what nobody needs: half unpacked layers, layers of no image and no
// container from all storage drivers, and blobs.
func (s *Store) Recover(ctx context.Context) {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.sweepAll(scope(ctx))
	s.collect(ctx)
}

// collect frees blobs that no image reaches.
func (s *Store) collect(ctx context.Context) {
	if s.blobs.ReadOnly {
		return
	}
	if _, err := s.db.GarbageCollect(scope(context.WithoutCancel(ctx))); err != nil {
		s.Log.Error("freeing image content", "error", err)
	}
}

// storageDrivers names the storage drivers that may have something.
func (s *Store) storageDrivers() []string {
	var names []string
	for _, status := range s.Drivers.List() {
		if status.Kind == plugin.Storage && status.State != plugin.StateIdle {
			names = append(names, status.Driver)
		}
	}
	return names
}

// sweepAll sweeps all drivers; the caller holds changing.
func (s *Store) sweepAll(ctx context.Context) {
	for _, name := range s.storageDrivers() {
		driver, err := s.Drivers.Storage(name)
		if err == nil {
			err = s.sweep(ctx, driver)
		}
		if err != nil && ctx.Err() == nil {
			s.Log.Error("removing layers that nobody uses", "driver", name, "error", err)
		}
	}
}

// sweep removes a driver's snapshots that are of no image: children first. The caller
// holds changing, so that no image gets a name meanwhile.
func (s *Store) sweep(ctx context.Context, driver storage.Driver) error {
	used := s.chains()
	var unused []string
	err := driver.List(ctx, "", func(info storage.Info) error {
		if strings.HasPrefix(info.Name, unpackKey) || strings.HasPrefix(info.Name, digest.Canonical.String()+":") && !used[info.Name] {
			unused = append(unused, info.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing snapshots: %w", err)
	}
	for {
		before := len(unused)
		unused = slices.DeleteFunc(unused, func(name string) bool {
			done, ok := s.snapshots.remove(name)
			if !ok {
				return false
			}
			defer done()
			err := driver.Remove(ctx, name)
			return err == nil || errdefs.IsNotFound(err)
		})
		if len(unused) == before || len(unused) == 0 {
			return nil // what is left has containers on it, or is being made
		}
	}
}
