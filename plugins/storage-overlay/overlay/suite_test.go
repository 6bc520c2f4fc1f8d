package overlay

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"

	davitmount "github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/storage"
)

// The contract is containerd's algebra, so containerd's own suite has to agree.
func TestContainerdsSnapshotterSuite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting overlays needs root")
	}
	testsuite.SnapshotterSuite(t, "davit", func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
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

// known turns a kind of containerd's into davit's and back.
var known = map[storage.Kind]snapshots.Kind{
	storage.KindView: snapshots.KindView, storage.KindActive: snapshots.KindActive, storage.KindCommitted: snapshots.KindCommitted,
}

func asInfo(i storage.Info) snapshots.Info {
	info := snapshots.Info{Kind: known[i.Kind], Name: i.Name, Parent: i.Parent, Labels: i.Labels, Created: i.Created, Updated: i.Updated}
	return info
}

func asMounts(list []davitmount.Mount) []mount.Mount {
	var mounts []mount.Mount
	for _, m := range list {
		mounts = append(mounts, mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return mounts
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
	for _, path := range append(fieldpaths, []string{"labels"}[min(1, len(fieldpaths)):]...) {
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
		for name, value := range info.Labels {
			change[name] = value
		}
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

var _ = slices.Sorted[string]
