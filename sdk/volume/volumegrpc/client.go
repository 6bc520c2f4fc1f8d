package volumegrpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/davit-engine/davit/sdk/errcode"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/mount/mountgrpc"
	volumev1 "github.com/davit-engine/davit/sdk/proto/davit/volume/v1"
	"github.com/davit-engine/davit/sdk/volume"
)

// Client is a volume driver at the other end of a connection. It has the optional
// methods of all drivers; what the driver lacks is ErrNotImplemented.
type Client struct{ rpc volumev1.VolumeClient }

var (
	_ volume.Driver  = (*Client)(nil)
	_ volume.Cloner  = (*Client)(nil)
	_ volume.Renamer = (*Client)(nil)
	_ volume.Resizer = (*Client)(nil)
)

// NewClient answers the driver served over cc.
func NewClient(cc grpc.ClientConnInterface) *Client {
	return &Client{rpc: volumev1.NewVolumeClient(errcode.Conn(cc))}
}

// Create implements [volume.Driver].
func (c *Client) Create(ctx context.Context, name string, options, labels map[string]string) (volume.Volume, error) {
	r, err := c.rpc.Create(ctx, &volumev1.CreateRequest{Name: name, Options: options, Labels: labels})
	return fromProto(r.GetVolume()), err
}

// Get implements [volume.Driver].
func (c *Client) Get(ctx context.Context, name string) (volume.Volume, error) {
	r, err := c.rpc.Get(ctx, &volumev1.GetRequest{Name: name})
	return fromProto(r.GetVolume()), err
}

// List implements [volume.Driver].
func (c *Client) List(ctx context.Context) ([]volume.Volume, error) {
	in, err := c.rpc.List(ctx, &volumev1.ListRequest{})
	if err != nil {
		return nil, err
	}
	var out []volume.Volume
	for {
		r, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, fromProto(r.GetVolume()))
	}
}

// Remove implements [volume.Driver].
func (c *Client) Remove(ctx context.Context, name string) error {
	_, err := c.rpc.Remove(ctx, &volumev1.RemoveRequest{Name: name})
	return err
}

// Mount implements [volume.Driver].
func (c *Client) Mount(ctx context.Context, name, consumer string) (mount.Mount, error) {
	r, err := c.rpc.Mount(ctx, &volumev1.MountRequest{Name: name, Consumer: consumer})
	return mountgrpc.FromProto(r.GetMount()), err
}

// Unmount implements [volume.Driver].
func (c *Client) Unmount(ctx context.Context, name, consumer string) error {
	_, err := c.rpc.Unmount(ctx, &volumev1.UnmountRequest{Name: name, Consumer: consumer})
	return err
}

// Usage implements [volume.Driver].
func (c *Client) Usage(ctx context.Context, name string) (volume.Usage, error) {
	r, err := c.rpc.Usage(ctx, &volumev1.UsageRequest{Name: name})
	return volume.Usage{Size: r.GetSize()}, err
}

// Reconcile implements [volume.Driver].
func (c *Client) Reconcile(ctx context.Context, claims []volume.Claim) error {
	r := &volumev1.ReconcileRequest{Claims: make([]*volumev1.Claim, len(claims))}
	for i, claim := range claims {
		r.Claims[i] = &volumev1.Claim{Volume: claim.Volume, Consumer: claim.Consumer}
	}
	_, err := c.rpc.Reconcile(ctx, r)
	return err
}

// Clone implements [volume.Cloner].
func (c *Client) Clone(ctx context.Context, source, name string, labels map[string]string) (volume.Volume, error) {
	r, err := c.rpc.Clone(ctx, &volumev1.CloneRequest{Source: source, Name: name, Labels: labels})
	return fromProto(r.GetVolume()), err
}

// Rename implements [volume.Renamer].
func (c *Client) Rename(ctx context.Context, name, newName string) (volume.Volume, error) {
	r, err := c.rpc.Rename(ctx, &volumev1.RenameRequest{Name: name, NewName: newName})
	return fromProto(r.GetVolume()), err
}

// Resize implements [volume.Resizer].
func (c *Client) Resize(ctx context.Context, name string, size int64) (volume.Volume, error) {
	r, err := c.rpc.Resize(ctx, &volumev1.ResizeRequest{Name: name, Size: size})
	return fromProto(r.GetVolume()), err
}

func toProto(v volume.Volume) *volumev1.VolumeInfo {
	p := &volumev1.VolumeInfo{
		Name: v.Name, Mountpoint: v.Mountpoint, Options: v.Options,
		Labels: v.Labels, Status: v.Status, Fresh: v.Fresh,
	}
	if !v.Created.IsZero() {
		p.Created = timestamppb.New(v.Created)
	}
	return p
}

func fromProto(p *volumev1.VolumeInfo) volume.Volume {
	v := volume.Volume{
		Name: p.GetName(), Mountpoint: p.GetMountpoint(), Options: p.GetOptions(),
		Labels: p.GetLabels(), Status: p.GetStatus(), Fresh: p.GetFresh(),
	}
	if t := p.GetCreated(); t != nil {
		v.Created = t.AsTime()
	}
	return v
}
