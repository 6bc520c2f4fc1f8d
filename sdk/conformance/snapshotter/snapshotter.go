// Package snapshotter presents a storage driver as a snapshotter of containerd, so
// that containerd's own suite can judge it.
package snapshotter

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"

	davitmount "github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/storage"
)

// Snapshotter is a storage driver in the shape of containerd's interface.
type Snapshotter struct {
	driver storage.Driver
	once   sync.Once
	close  func() error
	err    error
}

var _ snapshots.Snapshotter = (*Snapshotter)(nil)

// New presents a driver; Close calls close, once.
func New(driver storage.Driver, close func() error) *Snapshotter {
	return &Snapshotter{driver: driver, close: close}
}

// kindOf is containerd's kind for davit's.
func kindOf(k storage.Kind) snapshots.Kind {
	switch k {
	case storage.KindView:
		return snapshots.KindView
	case storage.KindActive:
		return snapshots.KindActive
	case storage.KindCommitted:
		return snapshots.KindCommitted
	}
	return snapshots.KindUnknown
}

func asMounts(in []davitmount.Mount) []mount.Mount {
	out := make([]mount.Mount, len(in))
	for i, m := range in {
		out[i] = mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	}
	return out
}

func asInfo(i storage.Info) snapshots.Info {
	return snapshots.Info{Kind: kindOf(i.Kind), Name: i.Name, Parent: i.Parent, Labels: i.Labels, Created: i.Created, Updated: i.Updated}
}

func labels(opts []snapshots.Opt) (map[string]string, error) {
	var info snapshots.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return nil, err
		}
	}
	return info.Labels, nil
}

// Stat implements snapshots.Snapshotter.
func (s *Snapshotter) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	info, err := s.driver.Stat(ctx, key)
	return asInfo(info), err
}

// Update implements snapshots.Snapshotter. It sets what the field paths name, and all labels without any: davit's
// SetLabels merges, and an empty value removes.
func (s *Snapshotter) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (snapshots.Info, error) {
	before, err := s.driver.Stat(ctx, info.Name)
	if err != nil {
		return snapshots.Info{}, err
	}
	change := map[string]string{}
	if len(fieldpaths) == 0 {
		fieldpaths = []string{"labels"}
	}
	for _, path := range fieldpaths {
		if name, ok := strings.CutPrefix(path, "labels."); ok {
			change[name] = info.Labels[name]
			continue
		}
		if path != "labels" {
			return snapshots.Info{}, fmt.Errorf("field %q does not change: %w", path, errdefs.ErrInvalidArgument)
		}
		for name := range before.Labels {
			change[name] = ""
		}
		maps.Copy(change, info.Labels)
	}
	after, err := s.driver.SetLabels(ctx, info.Name, change)
	return asInfo(after), err
}

// Usage implements snapshots.Snapshotter.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	usage, err := s.driver.Usage(ctx, key)
	return snapshots.Usage{Inodes: usage.Inodes, Size: usage.Size}, err
}

// Mounts implements snapshots.Snapshotter.
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	mounts, err := s.driver.Mounts(ctx, key)
	return asMounts(mounts), err
}

// Prepare implements snapshots.Snapshotter.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	l, err := labels(opts)
	if err != nil {
		return nil, err
	}
	mounts, err := s.driver.Prepare(ctx, key, parent, l)
	return asMounts(mounts), err
}

// View implements snapshots.Snapshotter.
func (s *Snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	l, err := labels(opts)
	if err != nil {
		return nil, err
	}
	mounts, err := s.driver.View(ctx, key, parent, l)
	return asMounts(mounts), err
}

// Commit implements snapshots.Snapshotter.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	l, err := labels(opts)
	if err != nil {
		return err
	}
	return s.driver.Commit(ctx, name, key, l)
}

// Remove implements snapshots.Snapshotter. It adds the verb that the suite looks for; in davit the caller adds it.
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	if err := s.driver.Remove(ctx, key); err != nil {
		return fmt.Errorf("failed to remove: %w", err)
	}
	return nil
}

// Walk implements snapshots.Snapshotter.
func (s *Snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, wanted ...string) error {
	filter, err := filters.ParseAll(wanted...)
	if err != nil {
		return err
	}
	return s.driver.List(ctx, "", func(i storage.Info) error {
		fields := filters.AdapterFunc(func(path []string) (string, bool) {
			switch path[0] {
			case "kind":
				return string(i.Kind), true
			case "name":
				return i.Name, true
			case "parent":
				return i.Parent, true
			case "labels":
				value, ok := i.Labels[strings.Join(path[1:], ".")]
				return value, ok
			}
			return "", false
		})
		if !filter.Match(fields) {
			return nil
		}
		return fn(ctx, asInfo(i))
	})
}

// Close implements snapshots.Snapshotter; it may be called twice.
func (s *Snapshotter) Close() error {
	s.once.Do(func() { s.err = s.close() })
	return s.err
}
