package storagegrpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/davit-engine/davit/sdk/errcode"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/mount/mountgrpc"
	storagev1 "github.com/davit-engine/davit/sdk/proto/davit/storage/v1"
	"github.com/davit-engine/davit/sdk/storage"
)

// Client is a storage driver at the other end of a connection. It is always a
// [storage.Differ] and a [storage.Rebaser]; their methods are ErrNotImplemented where
// the driver is none.
type Client struct{ rpc storagev1.StorageClient }

var (
	_ storage.Driver  = (*Client)(nil)
	_ storage.Differ  = (*Client)(nil)
	_ storage.Rebaser = (*Client)(nil)
)

// NewClient answers the driver served over cc.
func NewClient(cc grpc.ClientConnInterface) *Client {
	return &Client{rpc: storagev1.NewStorageClient(errcode.Conn(cc))}
}

// Prepare implements [storage.Driver].
func (c *Client) Prepare(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	r, err := c.rpc.Prepare(ctx, &storagev1.PrepareRequest{Key: key, Parent: parent, Labels: labels})
	if err != nil {
		return nil, err
	}
	return mountgrpc.AllFromProto(r.GetMounts()), nil
}

// View implements [storage.Driver].
func (c *Client) View(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	r, err := c.rpc.View(ctx, &storagev1.ViewRequest{Key: key, Parent: parent, Labels: labels})
	if err != nil {
		return nil, err
	}
	return mountgrpc.AllFromProto(r.GetMounts()), nil
}

// Mounts implements [storage.Driver].
func (c *Client) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	r, err := c.rpc.Mounts(ctx, &storagev1.MountsRequest{Key: key})
	if err != nil {
		return nil, err
	}
	return mountgrpc.AllFromProto(r.GetMounts()), nil
}

// Commit implements [storage.Driver].
func (c *Client) Commit(ctx context.Context, name, key string, labels map[string]string) error {
	_, err := c.rpc.Commit(ctx, &storagev1.CommitRequest{Name: name, Key: key, Labels: labels})
	return err
}

// CommitOnto implements [storage.Rebaser].
func (c *Client) CommitOnto(ctx context.Context, name, key, parent string, labels map[string]string) error {
	_, err := c.rpc.Commit(ctx, &storagev1.CommitRequest{Name: name, Key: key, Parent: parent, Labels: labels})
	return err
}

// Remove implements [storage.Driver].
func (c *Client) Remove(ctx context.Context, key string) error {
	_, err := c.rpc.Remove(ctx, &storagev1.RemoveRequest{Key: key})
	return err
}

// Stat implements [storage.Driver].
func (c *Client) Stat(ctx context.Context, key string) (storage.Info, error) {
	r, err := c.rpc.Stat(ctx, &storagev1.StatRequest{Key: key})
	return fromProto(r.GetInfo()), err
}

// SetLabels implements [storage.Driver].
func (c *Client) SetLabels(ctx context.Context, key string, labels map[string]string) (storage.Info, error) {
	r, err := c.rpc.SetLabels(ctx, &storagev1.SetLabelsRequest{Key: key, Labels: labels})
	return fromProto(r.GetInfo()), err
}

// List implements [storage.Driver].
func (c *Client) List(ctx context.Context, prefix string, fn func(storage.Info) error) error {
	// Ends the stream when fn does not want the rest of it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := c.rpc.List(ctx, &storagev1.ListRequest{Prefix: prefix})
	if err != nil {
		return err
	}
	for {
		r, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(fromProto(r.GetInfo())); err != nil {
			return err
		}
	}
}

// Usage implements [storage.Driver].
func (c *Client) Usage(ctx context.Context, key string) (storage.Usage, error) {
	r, err := c.rpc.Usage(ctx, &storagev1.UsageRequest{Key: key})
	return storage.Usage{Size: r.GetSize(), Inodes: r.GetInodes()}, err
}

// Release implements [storage.Driver].
func (c *Client) Release(ctx context.Context, key string) error {
	_, err := c.rpc.Release(ctx, &storagev1.ReleaseRequest{Key: key})
	return err
}

// Diff implements [storage.Differ].
func (c *Client) Diff(ctx context.Context, key string, fn func(storage.Change) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := c.rpc.Diff(ctx, &storagev1.DiffRequest{Key: key})
	if err != nil {
		return err
	}
	for {
		r, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(storage.Change{Kind: changeFromProto(r.GetKind()), Path: r.GetPath()}); err != nil {
			return err
		}
	}
}
