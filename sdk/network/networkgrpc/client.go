package networkgrpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/davit-engine/davit/sdk/errcode"
	"github.com/davit-engine/davit/sdk/network"
	networkv1 "github.com/davit-engine/davit/sdk/proto/davit/network/v1"
)

// Client is a network driver at the other end of a connection.
type Client struct{ rpc networkv1.NetworkClient }

var _ network.Driver = (*Client)(nil)

// NewClient answers the driver served over cc.
func NewClient(cc grpc.ClientConnInterface) *Client {
	return &Client{rpc: networkv1.NewNetworkClient(errcode.Conn(cc))}
}

// CreateNetwork implements [network.Driver].
func (c *Client) CreateNetwork(ctx context.Context, n network.Network) (network.Network, error) {
	r, err := c.rpc.CreateNetwork(ctx, &networkv1.CreateNetworkRequest{Network: networkToProto(n)})
	if err != nil {
		return network.Network{}, err
	}
	return networkFromProto(r.GetNetwork())
}

// DeleteNetwork implements [network.Driver].
func (c *Client) DeleteNetwork(ctx context.Context, id string) error {
	_, err := c.rpc.DeleteNetwork(ctx, &networkv1.DeleteNetworkRequest{Id: id})
	return err
}

// Attach implements [network.Driver].
func (c *Client) Attach(ctx context.Context, a network.Attachment) (network.Endpoint, error) {
	r, err := c.rpc.Attach(ctx, &networkv1.AttachRequest{Attachment: attachmentToProto(a)})
	if err != nil {
		return network.Endpoint{}, err
	}
	return endpointFromProto(r.GetEndpoint())
}

// Detach implements [network.Driver].
func (c *Client) Detach(ctx context.Context, networkID, endpointID string) error {
	_, err := c.rpc.Detach(ctx, &networkv1.DetachRequest{NetworkId: networkID, EndpointId: endpointID})
	return err
}

// UpdatePorts implements [network.Driver].
func (c *Client) UpdatePorts(ctx context.Context, networkID, endpointID string, ports []network.Port) ([]network.Port, error) {
	r, err := c.rpc.UpdatePorts(ctx, &networkv1.UpdatePortsRequest{
		NetworkId: networkID, EndpointId: endpointID, Ports: portsToProto(ports),
	})
	if err != nil {
		return nil, err
	}
	return portsFromProto(r.GetPorts())
}

// SetGateway implements [network.Driver].
func (c *Client) SetGateway(ctx context.Context, networkID, endpointID string, ipv4, ipv6 bool) error {
	_, err := c.rpc.SetGateway(ctx, &networkv1.SetGatewayRequest{
		NetworkId: networkID, EndpointId: endpointID, Gateway4: ipv4, Gateway6: ipv6,
	})
	return err
}

// List implements [network.Driver].
func (c *Client) List(ctx context.Context) (network.State, error) {
	r, err := c.rpc.List(ctx, &networkv1.ListRequest{})
	if err != nil {
		return network.State{}, err
	}
	var state network.State
	for _, p := range r.GetNetworks() {
		n, err := networkFromProto(p)
		if err != nil {
			return network.State{}, err
		}
		state.Networks = append(state.Networks, n)
	}
	for _, p := range r.GetEndpoints() {
		e, err := endpointFromProto(p)
		if err != nil {
			return network.State{}, err
		}
		state.Endpoints = append(state.Endpoints, e)
	}
	return state, nil
}

// Reconcile implements [network.Driver].
func (c *Client) Reconcile(ctx context.Context, networkIDs, endpointIDs []string) error {
	_, err := c.rpc.Reconcile(ctx, &networkv1.ReconcileRequest{NetworkIds: networkIDs, EndpointIds: endpointIDs})
	return err
}
