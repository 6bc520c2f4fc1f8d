package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/image/room"
	"github.com/davit-engine/davit/core/image/unpack"
	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/core/rootfs"
	"github.com/davit-engine/davit/sdk/storage"
)

// pendingLayer is one layer on its way from a blob to a committed snapshot.
type pendingLayer struct {
	blob   ocispec.Descriptor
	diffID digest.Digest
	name   string // of its snapshot
	parent string // of the one below; empty for the lowest
	// here is closed when the blob is in the store, below when parent is committed.
	here, below <-chan struct{}
}

// unpacking is the work on the layers of one image for one driver.
type unpacking struct {
	*Store
	driver     storage.Driver
	driverName string
	rebaser    storage.Rebaser // nil where layers go one after the other
	working    *semaphore.Weighted
	tell       func(layer int, status string)
}

// newUnpacking lets as many layers be decompressed at once as there are processors.
func (s *Store) newUnpacking(driver storage.Driver, name string, tell func(int, string)) *unpacking {
	u := &unpacking{Store: s, driver: driver, driverName: name, working: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))), tell: tell}
	for _, status := range s.Drivers.List() {
		if status.Kind == plugin.Storage && status.Driver == name && slices.Contains(status.Features, storage.FeatureRebase) {
			u.rebaser, _ = driver.(storage.Rebaser)
		}
	}
	return u
}

// all unpacks layers, the lowest first in the list. None waits for the one below but
// to be committed, if the driver can do that.
func (u *unpacking) all(ctx context.Context, layers []pendingLayer) error {
	group, ctx := errgroup.WithContext(ctx)
	below := closed()
	for i, l := range layers {
		done := make(chan struct{})
		l.below = below
		group.Go(func() error {
			if err := u.one(ctx, i, l); err != nil {
				return fmt.Errorf("unpacking layer %s: %w", l.blob.Digest, err)
			}
			u.tell(i, "Pull complete")
			close(done)
			return nil
		})
		below = done
	}
	return group.Wait()
}

func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// one unpacks a layer, or waits for another operation that does.
func (u *unpacking) one(ctx context.Context, i int, l pendingLayer) error {
	if err := await(ctx, l.here); err != nil {
		return err
	}
	u.tell(i, "Extracting")
	for {
		_, err, _ := u.unpacking.Do(u.driverName+" "+l.name, func() (any, error) { return nil, u.layer(ctx, l) })
		if !errors.Is(err, context.Canceled) || ctx.Err() != nil {
			return err
		}
		// Who did it for us has left.
	}
}

func await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (u *unpacking) layer(ctx context.Context, l pendingLayer) error {
	if info, err := u.driver.Stat(ctx, l.name); err == nil && info.Kind == storage.KindCommitted {
		return nil
	}
	if l.parent != "" && u.rebaser != nil {
		err := u.fill(ctx, l, "", unpack.ApplyDetached, func(key string) error {
			if err := await(ctx, l.below); err != nil {
				return err
			}
			return u.rebaser.CommitOnto(ctx, l.name, key, l.parent, nil)
		})
		if !errors.Is(err, unpack.ErrNeedsBelow) {
			return err
		}
	}
	if err := await(ctx, l.below); err != nil {
		return err
	}
	return u.fill(ctx, l, l.parent, unpack.Apply, func(key string) error { return u.driver.Commit(ctx, l.name, key, nil) })
}

// apply is unpack.Apply and its like.
type apply func(ctx context.Context, root string, in io.Reader, diffID digest.Digest, limits unpack.Limits) (int64, error)

// fill makes a snapshot on a parent, unpacks the layer to it and has it committed.
func (u *unpacking) fill(ctx context.Context, l pendingLayer, parent string, apply apply, commit func(key string) error) (err error) {
	key := unpackKey + container.NewID()
	release, err := u.snapshots.hold(ctx, key)
	if err != nil {
		return err
	}
	defer release()
	size, err := u.unpackTo(ctx, l, key, parent, apply)
	if err == nil {
		// Before the layer is there: what was cut off after that would never be told.
		_, err = u.content.Update(ctx, content.Info{Digest: l.blob.Digest, Labels: map[string]string{unpackedSize: strconv.FormatInt(size, 10)}}, "labels."+unpackedSize)
		if u.blobs.ReadOnly {
			err = nil // it can be run all the same
		}
	}
	if err == nil {
		err = commit(key)
	}
	switch {
	case errdefs.IsAlreadyExists(err): // somebody was faster
		return ignoreNotFound(u.driver.Remove(ctx, key))
	case err != nil:
		return errors.Join(err, ignoreNotFound(u.driver.Remove(context.WithoutCancel(ctx), key)))
	}
	return nil
}

func (u *unpacking) unpackTo(ctx context.Context, l pendingLayer, key, parent string, apply apply) (size int64, err error) {
	if err := u.working.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	defer u.working.Release(1)
	mounts, err := u.driver.Prepare(ctx, key, parent, nil)
	if err != nil {
		return 0, err
	}
	err = rootfs.Mounted(ctx, mounts, false, func(v *rootfs.View) error {
		blob, err := u.content.ReaderAt(ctx, l.blob)
		if err != nil {
			return err
		}
		defer func() { _ = blob.Close() }()
		meter := room.Meter{Limit: u.Room, Path: u.Root}
		size, err = apply(ctx, v.Path(), meter.Reader(content.NewReader(blob)), l.diffID, u.Layers)
		return corrupt(err)
	})
	if errdefs.IsInvalidArgument(err) {
		err = u.proven(ctx, l.blob.Digest, err)
	}
	return size, err
}
