package overlay

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/sdk/storage"
)

// The contract is containerd's algebra, so containerd's own suite has to agree.
func TestContainerdsSnapshotterSuite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting overlays needs root")
	}
	// By this name the suite knows what overlayfs cannot rename.
	testsuite.SnapshotterSuite(t, "overlayfs", func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		d, err := New(root, hclog.NewNullLogger())
		if err != nil {
			return nil, nil, err
		}
		s := &snapshotter{driver: d}
		return s, s.Close, nil
	})
}

// snapshotter is a Driver in the shape of containerd's interface.
type snapshotter struct {
	driver *Driver
	once   sync.Once
}

// kinds are containerd's for davit's.
var kinds = map[storage.Kind]snapshots.Kind{
	storage.KindView: snapshots.KindView, storage.KindActive: snapshots.KindActive, storage.KindCommitted: snapshots.KindCommitted,
}

func asInfo(i storage.Info) snapshots.Info {
	return snapshots.Info{Kind: kinds[i.Kind], Name: i.Name, Parent: i.Parent, Labels: i.Labels, Created: i.Created, Updated: i.Updated}
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

func (s *snapshotter) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	info, err := s.driver.Stat(ctx, key)
	return asInfo(info), err
}

// Update sets what the field paths name, and all labels without any: davit's
// SetLabels merges, and an empty value removes.
func (s *snapshotter) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (snapshots.Info, error) {
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

func (s *snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	usage, err := s.driver.Usage(ctx, key)
	return snapshots.Usage{Inodes: usage.Inodes, Size: usage.Size}, err
}

func (s *snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	mounts, err := s.driver.Mounts(ctx, key)
	return asMounts(mounts), err
}

func (s *snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	l, err := labels(opts)
	if err != nil {
		return nil, err
	}
	mounts, err := s.driver.Prepare(ctx, key, parent, l)
	return asMounts(mounts), err
}

func (s *snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	l, err := labels(opts)
	if err != nil {
		return nil, err
	}
	mounts, err := s.driver.View(ctx, key, parent, l)
	return asMounts(mounts), err
}

func (s *snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	l, err := labels(opts)
	if err != nil {
		return err
	}
	return s.driver.Commit(ctx, name, key, l)
}

// Remove adds the verb that the suite looks for; in davit the caller adds it.
func (s *snapshotter) Remove(ctx context.Context, key string) error {
	if err := s.driver.Remove(ctx, key); err != nil {
		return fmt.Errorf("failed to remove: %w", err)
	}
	return nil
}

func (s *snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, wanted ...string) error {
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

// Close may be called twice, unlike the driver's.
func (s *snapshotter) Close() error {
	s.once.Do(s.driver.Close)
	return nil
}
