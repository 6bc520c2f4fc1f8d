// Package volumegrpc carries the volume contract over gRPC, both ways.
package volumegrpc

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/davit-engine/davit/sdk/mount/mountgrpc"
	volumev1 "github.com/davit-engine/davit/sdk/proto/davit/volume/v1"
	"github.com/davit-engine/davit/sdk/volume"
)

// Service is the full name of the service.
const Service = "davit.volume.v1.Volume"

// Register serves a driver.
func Register(s grpc.ServiceRegistrar, d volume.Driver) {
	volumev1.RegisterVolumeServer(s, &server{driver: d})
}

type server struct {
	volumev1.UnimplementedVolumeServer
	driver volume.Driver
}

func (s *server) Create(ctx context.Context, r *volumev1.CreateRequest) (*volumev1.CreateResponse, error) {
	v, err := s.driver.Create(ctx, r.GetName(), r.GetOptions(), r.GetLabels())
	if err != nil {
		return nil, err
	}
	return &volumev1.CreateResponse{Volume: toProto(v)}, nil
}

func (s *server) Get(ctx context.Context, r *volumev1.GetRequest) (*volumev1.GetResponse, error) {
	v, err := s.driver.Get(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return &volumev1.GetResponse{Volume: toProto(v)}, nil
}

func (s *server) List(_ *volumev1.ListRequest, out grpc.ServerStreamingServer[volumev1.ListResponse]) error {
	vs, err := s.driver.List(out.Context())
	if err != nil {
		return err
	}
	for _, v := range vs {
		if err := out.Send(&volumev1.ListResponse{Volume: toProto(v)}); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) Remove(ctx context.Context, r *volumev1.RemoveRequest) (*volumev1.RemoveResponse, error) {
	if err := s.driver.Remove(ctx, r.GetName()); err != nil {
		return nil, err
	}
	return &volumev1.RemoveResponse{}, nil
}

func (s *server) Mount(ctx context.Context, r *volumev1.MountRequest) (*volumev1.MountResponse, error) {
	m, err := s.driver.Mount(ctx, r.GetName(), r.GetConsumer())
	if err != nil {
		return nil, err
	}
	return &volumev1.MountResponse{Mount: mountgrpc.ToProto(m)}, nil
}

func (s *server) Unmount(ctx context.Context, r *volumev1.UnmountRequest) (*volumev1.UnmountResponse, error) {
	if err := s.driver.Unmount(ctx, r.GetName(), r.GetConsumer()); err != nil {
		return nil, err
	}
	return &volumev1.UnmountResponse{}, nil
}

func (s *server) Usage(ctx context.Context, r *volumev1.UsageRequest) (*volumev1.UsageResponse, error) {
	u, err := s.driver.Usage(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return &volumev1.UsageResponse{Size: u.Size}, nil
}

func (s *server) Reconcile(ctx context.Context, r *volumev1.ReconcileRequest) (*volumev1.ReconcileResponse, error) {
	claims := make([]volume.Claim, len(r.GetClaims()))
	for i, c := range r.GetClaims() {
		claims[i] = volume.Claim{Volume: c.GetVolume(), Consumer: c.GetConsumer()}
	}
	if err := s.driver.Reconcile(ctx, claims); err != nil {
		return nil, err
	}
	return &volumev1.ReconcileResponse{}, nil
}

// Features are those of a driver.
func Features(d volume.Driver) []string {
	var features []string
	add := func(feature string, has bool) {
		if has {
			features = append(features, feature)
		}
	}
	_, clones := d.(volume.Cloner)
	_, renames := d.(volume.Renamer)
	_, resizes := d.(volume.Resizer)
	add(volume.FeatureClone, clones)
	add(volume.FeatureRename, renames)
	add(volume.FeatureResize, resizes)
	return features
}

func lacking(what string) error {
	return fmt.Errorf("this volume driver does not %s volumes: %w", what, errdefs.ErrNotImplemented)
}

func (s *server) Clone(ctx context.Context, r *volumev1.CloneRequest) (*volumev1.CloneResponse, error) {
	cloner, ok := s.driver.(volume.Cloner)
	if !ok {
		return nil, lacking("clone")
	}
	v, err := cloner.Clone(ctx, r.GetSource(), r.GetName(), r.GetLabels())
	if err != nil {
		return nil, err
	}
	return &volumev1.CloneResponse{Volume: toProto(v)}, nil
}

func (s *server) Rename(ctx context.Context, r *volumev1.RenameRequest) (*volumev1.RenameResponse, error) {
	renamer, ok := s.driver.(volume.Renamer)
	if !ok {
		return nil, lacking("rename")
	}
	v, err := renamer.Rename(ctx, r.GetName(), r.GetNewName())
	if err != nil {
		return nil, err
	}
	return &volumev1.RenameResponse{Volume: toProto(v)}, nil
}

func (s *server) Resize(ctx context.Context, r *volumev1.ResizeRequest) (*volumev1.ResizeResponse, error) {
	resizer, ok := s.driver.(volume.Resizer)
	if !ok {
		return nil, lacking("resize")
	}
	v, err := resizer.Resize(ctx, r.GetName(), r.GetSize())
	if err != nil {
		return nil, err
	}
	return &volumev1.ResizeResponse{Volume: toProto(v)}, nil
}
