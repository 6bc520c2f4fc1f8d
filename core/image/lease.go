package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"
)

// leaseTime is how long whole blobs of pulls that a crash cut off are kept for the
// next one.
const leaseTime = 24 * time.Hour

// unfinished is the lease of what operations had written that a crash cut off.
const unfinished = "unfinished"

// leased begins an operation: blobs that are written and snapshots that are counted
// on until done are not collected.
func (s *Store) leased(ctx context.Context) (_ context.Context, done func(), err error) {
	ctx = scope(ctx)
	if s.blobs.ReadOnly { // nothing is collected
		ctx, held := withHolding(ctx)
		return ctx, held.end, nil
	}
	lease, err := s.leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return nil, nil, fmt.Errorf("making a lease: %w", err)
	}
	ctx, held := withHolding(ctx)
	return leases.WithLease(ctx, lease.ID), func() {
		held.end()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if err := s.leases.Delete(end, lease); err != nil {
			s.Log.Error("ending a lease on image content", "error", err)
		}
	}, nil
}

// hold keeps blobs, those that are here and those that will be, from being collected
// while ctx's lease lasts.
func (s *Store) hold(ctx context.Context, blobs ...ocispec.Descriptor) error {
	lease, ok := leases.FromContext(ctx)
	if !ok {
		return nil
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		for _, d := range blobs {
			if err := s.leases.AddResource(ctx, leases.Lease{ID: lease}, leases.Resource{ID: d.Digest.String(), Type: "content"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keeping image content: %w", err)
	}
	return nil
}

// endDeadLeases removes the leases of a process that is gone. What they held of blobs
// is kept for a day under one lease, which ends with the next prune: a pull that is
// repeated finds the layers that were there already.
func (s *Store) endDeadLeases(ctx context.Context) error {
	list, err := s.leases.List(ctx)
	if err != nil {
		return fmt.Errorf("listing leases: %w", err)
	}
	for _, lease := range list {
		if lease.ID == unfinished {
			continue
		}
		resources, err := s.leases.ListResources(ctx, lease)
		if err != nil {
			return fmt.Errorf("reading lease %s: %w", lease.ID, err)
		}
		err = s.db.Update(func(tx *bbolt.Tx) error {
			ctx := boltutil.WithTransaction(ctx, tx)
			if len(resources) > 0 {
				_, err := s.leases.Create(ctx, leases.WithID(unfinished), leases.WithExpiration(leaseTime))
				if err != nil && !errdefs.IsAlreadyExists(err) {
					return err
				}
			}
			for _, resource := range resources {
				if resource.Type != "content" {
					continue
				}
				if err := s.leases.AddResource(ctx, leases.Lease{ID: unfinished}, resource); err != nil {
					return err
				}
			}
			return s.leases.Delete(ctx, lease)
		})
		if err != nil {
			return fmt.Errorf("ending lease %s: %w", lease.ID, err)
		}
	}
	return nil
}

// forgetUnfinished lets go of what operations had written that a crash cut off.
func (s *Store) forgetUnfinished(ctx context.Context) error {
	err := s.leases.Delete(ctx, leases.Lease{ID: unfinished})
	if err != nil && !errdefs.IsNotFound(err) {
		return errors.Join(errors.New("letting go of what was not finished"), err)
	}
	return nil
}
