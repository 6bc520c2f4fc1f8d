// Package storagegrpc carries the storage contract over gRPC, both ways.
package storagegrpc

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/davit-engine/davit/sdk/mount/mountgrpc"
	storagev1 "github.com/davit-engine/davit/sdk/proto/davit/storage/v1"
	"github.com/davit-engine/davit/sdk/storage"
)

// Service is the full name of the service.
const Service = "davit.storage.v1.Storage"

// Register serves a driver.
func Register(s grpc.ServiceRegistrar, d storage.Driver) {
	storagev1.RegisterStorageServer(s, &server{driver: d})
}

type server struct {
	storagev1.UnimplementedStorageServer
	driver storage.Driver
}

func (s *server) Prepare(ctx context.Context, r *storagev1.PrepareRequest) (*storagev1.PrepareResponse, error) {
	ms, err := s.driver.Prepare(ctx, r.GetKey(), r.GetParent(), r.GetLabels())
	if err != nil {
		return nil, err
	}
	return &storagev1.PrepareResponse{Mounts: mountgrpc.AllToProto(ms)}, nil
}

func (s *server) View(ctx context.Context, r *storagev1.ViewRequest) (*storagev1.ViewResponse, error) {
	ms, err := s.driver.View(ctx, r.GetKey(), r.GetParent(), r.GetLabels())
	if err != nil {
		return nil, err
	}
	return &storagev1.ViewResponse{Mounts: mountgrpc.AllToProto(ms)}, nil
}

func (s *server) Mounts(ctx context.Context, r *storagev1.MountsRequest) (*storagev1.MountsResponse, error) {
	ms, err := s.driver.Mounts(ctx, r.GetKey())
	if err != nil {
		return nil, err
	}
	return &storagev1.MountsResponse{Mounts: mountgrpc.AllToProto(ms)}, nil
}

func (s *server) Commit(ctx context.Context, r *storagev1.CommitRequest) (*storagev1.CommitResponse, error) {
	if r.GetParent() == "" {
		return &storagev1.CommitResponse{}, s.driver.Commit(ctx, r.GetName(), r.GetKey(), r.GetLabels())
	}
	rebaser, ok := s.driver.(storage.Rebaser)
	if !ok {
		return nil, fmt.Errorf("this storage driver does not rebase snapshots: %w", errdefs.ErrNotImplemented)
	}
	return &storagev1.CommitResponse{}, rebaser.CommitOnto(ctx, r.GetName(), r.GetKey(), r.GetParent(), r.GetLabels())
}

func (s *server) Remove(ctx context.Context, r *storagev1.RemoveRequest) (*storagev1.RemoveResponse, error) {
	if err := s.driver.Remove(ctx, r.GetKey()); err != nil {
		return nil, err
	}
	return &storagev1.RemoveResponse{}, nil
}

func (s *server) Stat(ctx context.Context, r *storagev1.StatRequest) (*storagev1.StatResponse, error) {
	info, err := s.driver.Stat(ctx, r.GetKey())
	if err != nil {
		return nil, err
	}
	return &storagev1.StatResponse{Info: toProto(info)}, nil
}

func (s *server) SetLabels(ctx context.Context, r *storagev1.SetLabelsRequest) (*storagev1.SetLabelsResponse, error) {
	info, err := s.driver.SetLabels(ctx, r.GetKey(), r.GetLabels())
	if err != nil {
		return nil, err
	}
	return &storagev1.SetLabelsResponse{Info: toProto(info)}, nil
}

func (s *server) List(r *storagev1.ListRequest, out grpc.ServerStreamingServer[storagev1.ListResponse]) error {
	return s.driver.List(out.Context(), r.GetPrefix(), func(info storage.Info) error {
		return out.Send(&storagev1.ListResponse{Info: toProto(info)})
	})
}

func (s *server) Usage(ctx context.Context, r *storagev1.UsageRequest) (*storagev1.UsageResponse, error) {
	u, err := s.driver.Usage(ctx, r.GetKey())
	if err != nil {
		return nil, err
	}
	return &storagev1.UsageResponse{Size: u.Size, Inodes: u.Inodes}, nil
}

func (s *server) Release(ctx context.Context, r *storagev1.ReleaseRequest) (*storagev1.ReleaseResponse, error) {
	if err := s.driver.Release(ctx, r.GetKey()); err != nil {
		return nil, err
	}
	return &storagev1.ReleaseResponse{}, nil
}

func (s *server) Diff(r *storagev1.DiffRequest, out grpc.ServerStreamingServer[storagev1.DiffResponse]) error {
	differ, ok := s.driver.(storage.Differ)
	if !ok {
		return fmt.Errorf("this storage driver lists no differences: %w", errdefs.ErrNotImplemented)
	}
	return differ.Diff(out.Context(), r.GetKey(), func(c storage.Change) error {
		return out.Send(&storagev1.DiffResponse{Kind: changeToProto(c.Kind), Path: c.Path})
	})
}
