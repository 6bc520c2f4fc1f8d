// Package networkgrpc carries the network contract over gRPC, both ways.
package networkgrpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/davit-engine/davit/sdk/network"
	networkv1 "github.com/davit-engine/davit/sdk/proto/davit/network/v1"
)

// Service is the full name of the service.
const Service = "davit.network.v1.Network"

// Register serves a driver.
func Register(s grpc.ServiceRegistrar, d network.Driver) {
	networkv1.RegisterNetworkServer(s, &server{driver: d})
}

type server struct {
	networkv1.UnimplementedNetworkServer
	driver network.Driver
}

func (s *server) CreateNetwork(ctx context.Context, r *networkv1.CreateNetworkRequest) (*networkv1.CreateNetworkResponse, error) {
	want, err := networkFromProto(r.GetNetwork())
	if err != nil {
		return nil, err
	}
	n, err := s.driver.CreateNetwork(ctx, want)
	if err != nil {
		return nil, err
	}
	return &networkv1.CreateNetworkResponse{Network: networkToProto(n)}, nil
}

func (s *server) DeleteNetwork(ctx context.Context, r *networkv1.DeleteNetworkRequest) (*networkv1.DeleteNetworkResponse, error) {
	if err := s.driver.DeleteNetwork(ctx, r.GetId()); err != nil {
		return nil, err
	}
	return &networkv1.DeleteNetworkResponse{}, nil
}

func (s *server) Attach(ctx context.Context, r *networkv1.AttachRequest) (*networkv1.AttachResponse, error) {
	a, err := attachmentFromProto(r.GetAttachment())
	if err != nil {
		return nil, err
	}
	e, err := s.driver.Attach(ctx, a)
	if err != nil {
		return nil, err
	}
	return &networkv1.AttachResponse{Endpoint: endpointToProto(e)}, nil
}

func (s *server) Detach(ctx context.Context, r *networkv1.DetachRequest) (*networkv1.DetachResponse, error) {
	if err := s.driver.Detach(ctx, r.GetNetworkId(), r.GetEndpointId()); err != nil {
		return nil, err
	}
	return &networkv1.DetachResponse{}, nil
}

func (s *server) UpdatePorts(ctx context.Context, r *networkv1.UpdatePortsRequest) (*networkv1.UpdatePortsResponse, error) {
	want, err := portsFromProto(r.GetPorts())
	if err != nil {
		return nil, err
	}
	ports, err := s.driver.UpdatePorts(ctx, r.GetNetworkId(), r.GetEndpointId(), want)
	if err != nil {
		return nil, err
	}
	return &networkv1.UpdatePortsResponse{Ports: portsToProto(ports)}, nil
}

func (s *server) SetGateway(ctx context.Context, r *networkv1.SetGatewayRequest) (*networkv1.SetGatewayResponse, error) {
	if err := s.driver.SetGateway(ctx, r.GetNetworkId(), r.GetEndpointId(), r.GetGateway4(), r.GetGateway6()); err != nil {
		return nil, err
	}
	return &networkv1.SetGatewayResponse{}, nil
}

func (s *server) List(ctx context.Context, _ *networkv1.ListRequest) (*networkv1.ListResponse, error) {
	state, err := s.driver.List(ctx)
	if err != nil {
		return nil, err
	}
	r := &networkv1.ListResponse{}
	for _, n := range state.Networks {
		r.Networks = append(r.Networks, networkToProto(n))
	}
	for _, e := range state.Endpoints {
		r.Endpoints = append(r.Endpoints, endpointToProto(e))
	}
	return r, nil
}

func (s *server) Reconcile(ctx context.Context, r *networkv1.ReconcileRequest) (*networkv1.ReconcileResponse, error) {
	if err := s.driver.Reconcile(ctx, r.GetNetworkIds(), r.GetEndpointIds()); err != nil {
		return nil, err
	}
	return &networkv1.ReconcileResponse{}, nil
}
