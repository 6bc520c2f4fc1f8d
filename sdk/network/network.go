// Package network is the contract of network drivers: they create networks,
// own their addresses, and attach network namespaces to them. Names and DNS are
// the engine's, so that they work the same over every driver.
package network

import (
	"context"
	"net/netip"
)

// Feature flags a driver may announce.
const (
	// FeatureIPv6: networks may have IPv6. Without it CreateNetwork answers
	// ErrNotImplemented to one that wants it.
	FeatureIPv6 = "ipv6"
	// FeaturePorts: endpoints reach other hosts through this one, and their ports can
	// be published on it. Without it ports that are asked for are ignored.
	FeaturePorts = "ports"
)

// Pool is one address range of a network.
type Pool struct {
	Subnet  netip.Prefix
	Range   netip.Prefix          // part of Subnet to allocate from; zero: all of it
	Gateway netip.Addr            // zero: the driver chooses
	Aux     map[string]netip.Addr // addresses never to allocate, by name
}

// Network is a network as the engine asks for it and as the driver made it.
type Network struct {
	ID       string
	Name     string
	Options  map[string]string // driver options, e.g. com.docker.network.bridge.name
	Labels   map[string]string
	Pools    []Pool // empty: the driver chooses subnets
	IPv4     bool
	IPv6     bool
	Internal bool // no way out and no published ports
}

// Port is one published port.
type Port struct {
	Proto         string     // "tcp", "udp" or "sctp"
	ContainerPort uint16     // port inside the network namespace
	HostIP        netip.Addr // zero: all addresses of the families that the endpoint has
	HostPort      uint16     // first host port tried; 0: any free one
	HostPortEnd   uint16     // last host port tried; 0: same as HostPort
}

// Attachment asks for one endpoint: a network namespace on a network.
type Attachment struct {
	NetworkID   string
	EndpointID  string
	ContainerID string
	Netns       string     // path of the network namespace
	Interface   string     // wanted interface name, e.g. "eth0"
	IPv4        netip.Addr // wanted address; zero: any
	IPv6        netip.Addr
	MAC         string // wanted hardware address; empty: the driver chooses
	Ports       []Port
	Gateway4    bool              // this endpoint provides the IPv4 default route
	Gateway6    bool              // this endpoint provides the IPv6 default route
	Options     map[string]string // per-endpoint driver options
}

// Endpoint is an attached network namespace.
type Endpoint struct {
	NetworkID   string
	EndpointID  string
	ContainerID string
	Netns       string
	Interface   string
	IPv4        netip.Prefix
	IPv6        netip.Prefix
	Gateway4    netip.Addr
	Gateway6    netip.Addr
	MAC         string
	// Ports are as published: HostIP and HostPort filled in, HostPortEnd zero. A
	// port that was asked for on all addresses is there for 0.0.0.0 and for ::, with
	// the same HostPort.
	Ports []Port
}

// State is what a driver holds, as List reports it.
type State struct {
	Networks  []Network
	Endpoints []Endpoint
}

// Driver makes networks. Errors are of the kinds of containerd/errdefs; a taken
// host port is [ErrPortInUse] with the text Docker prints ("Bind for
// 0.0.0.0:80 failed: port is already allocated"). Every method is idempotent by
// ID and safe for concurrent use.
type Driver interface {
	// CreateNetwork makes a network and answers it with the pools in use. Pools
	// that overlap another network are ErrInvalidArgument ("Pool overlaps with
	// other one on this address space").
	CreateNetwork(ctx context.Context, n Network) (Network, error)
	// DeleteNetwork removes a network. ErrFailedPrecondition while it has
	// endpoints. An unknown network is no error.
	DeleteNetwork(ctx context.Context, id string) error
	// Attach puts an interface of the network into the namespace, with
	// addresses, routes and published ports, all or nothing. A taken address is
	// ErrAlreadyExists, one in no pool of the network ErrInvalidArgument; with none
	// left it is ErrResourceExhausted, and ErrNotFound for an unknown network.
	Attach(ctx context.Context, a Attachment) (Endpoint, error)
	// Detach undoes Attach, also when the namespace is gone. An unknown endpoint
	// is no error. Addresses and ports are free when it returns; the kernel's
	// links may go a little later.
	Detach(ctx context.Context, networkID, endpointID string) error
	// UpdatePorts replaces an endpoint's published ports and answers those in use. On
	// error the old ones stay. ErrNotFound for an unknown endpoint.
	UpdatePorts(ctx context.Context, networkID, endpointID string, ports []Port) ([]Port, error)
	// SetGateway says which default routes of its namespace an endpoint provides
	// from now on. The caller withdraws the other endpoint's first. ErrNotFound for an
	// unknown endpoint.
	SetGateway(ctx context.Context, networkID, endpointID string, ipv4, ipv6 bool) error
	// List reports what the driver holds.
	List(ctx context.Context) (State, error)
	// Reconcile tells the driver which networks and endpoints are valid; it
	// drops all others it made and restores what is missing of the valid ones.
	Reconcile(ctx context.Context, networkIDs, endpointIDs []string) error
}
