package networkgrpc

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/network"
	networkv1 "github.com/davit-engine/davit/sdk/proto/davit/network/v1"
)

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// parser reads addresses and ports and keeps the first error, so that a
// conversion reads like the message it converts.
type parser struct{ err error }

func (p *parser) fail(field string, err error) {
	if p.err == nil {
		p.err = fmt.Errorf("%s: %w: %w", field, err, errdefs.ErrInvalidArgument)
	}
}

func (p *parser) addr(field, s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		p.fail(field, err)
	}
	return a
}

func (p *parser) prefix(field, s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	x, err := netip.ParsePrefix(s)
	if err != nil {
		p.fail(field, err)
	}
	return x
}

func (p *parser) port(field string, n uint32) uint16 {
	if n > math.MaxUint16 {
		p.fail(field, fmt.Errorf("port %d is above 65535", n))
		return 0
	}
	return uint16(n)
}

func (p *parser) ports(in []*networkv1.Port) []network.Port {
	var out []network.Port
	for _, x := range in {
		out = append(out, network.Port{
			Proto:         x.GetProto(),
			ContainerPort: p.port("container_port", x.GetContainerPort()),
			HostIP:        p.addr("host_ip", x.GetHostIp()),
			HostPort:      p.port("host_port", x.GetHostPort()),
			HostPortEnd:   p.port("host_port_end", x.GetHostPortEnd()),
		})
	}
	return out
}

func portsFromProto(in []*networkv1.Port) ([]network.Port, error) {
	var p parser
	out := p.ports(in)
	return out, p.err
}

func portsToProto(in []network.Port) []*networkv1.Port {
	out := make([]*networkv1.Port, len(in))
	for i, x := range in {
		out[i] = &networkv1.Port{
			Proto: x.Proto, ContainerPort: uint32(x.ContainerPort), HostIp: addrText(x.HostIP),
			HostPort: uint32(x.HostPort), HostPortEnd: uint32(x.HostPortEnd),
		}
	}
	return out
}

func networkToProto(n network.Network) *networkv1.NetworkSpec {
	out := &networkv1.NetworkSpec{
		Id: n.ID, Name: n.Name, Options: n.Options, Labels: n.Labels,
		Ipv4: n.IPv4, Ipv6: n.IPv6, Internal: n.Internal,
	}
	for _, pool := range n.Pools {
		p := &networkv1.Pool{
			Subnet: prefixText(pool.Subnet), Range: prefixText(pool.Range), Gateway: addrText(pool.Gateway),
		}
		for name, a := range pool.Aux {
			if p.Aux == nil {
				p.Aux = make(map[string]string, len(pool.Aux))
			}
			p.Aux[name] = addrText(a)
		}
		out.Pools = append(out.Pools, p)
	}
	return out
}

func networkFromProto(in *networkv1.NetworkSpec) (network.Network, error) {
	var p parser
	out := network.Network{
		ID: in.GetId(), Name: in.GetName(), Options: in.GetOptions(), Labels: in.GetLabels(),
		IPv4: in.GetIpv4(), IPv6: in.GetIpv6(), Internal: in.GetInternal(),
	}
	for _, x := range in.GetPools() {
		pool := network.Pool{
			Subnet:  p.prefix("subnet", x.GetSubnet()),
			Range:   p.prefix("range", x.GetRange()),
			Gateway: p.addr("gateway", x.GetGateway()),
		}
		for name, a := range x.GetAux() {
			if pool.Aux == nil {
				pool.Aux = make(map[string]netip.Addr, len(x.GetAux()))
			}
			pool.Aux[name] = p.addr("aux "+name, a)
		}
		out.Pools = append(out.Pools, pool)
	}
	return out, p.err
}

func attachmentToProto(a network.Attachment) *networkv1.Attachment {
	return &networkv1.Attachment{
		NetworkId: a.NetworkID, EndpointId: a.EndpointID, ContainerId: a.ContainerID,
		Netns: a.Netns, Interface: a.Interface, Ipv4: addrText(a.IPv4), Ipv6: addrText(a.IPv6),
		Mac: a.MAC, Ports: portsToProto(a.Ports), Gateway4: a.Gateway4, Gateway6: a.Gateway6, Options: a.Options,
	}
}

func attachmentFromProto(in *networkv1.Attachment) (network.Attachment, error) {
	var p parser
	out := network.Attachment{
		NetworkID: in.GetNetworkId(), EndpointID: in.GetEndpointId(), ContainerID: in.GetContainerId(),
		Netns: in.GetNetns(), Interface: in.GetInterface(),
		IPv4: p.addr("ipv4", in.GetIpv4()), IPv6: p.addr("ipv6", in.GetIpv6()),
		MAC: in.GetMac(), Ports: p.ports(in.GetPorts()), Gateway4: in.GetGateway4(), Gateway6: in.GetGateway6(), Options: in.GetOptions(),
	}
	return out, p.err
}

func endpointToProto(e network.Endpoint) *networkv1.Endpoint {
	return &networkv1.Endpoint{
		NetworkId: e.NetworkID, EndpointId: e.EndpointID, ContainerId: e.ContainerID,
		Netns: e.Netns, Interface: e.Interface, Ipv4: prefixText(e.IPv4), Ipv6: prefixText(e.IPv6),
		Gateway4: addrText(e.Gateway4), Gateway6: addrText(e.Gateway6), Mac: e.MAC, Ports: portsToProto(e.Ports),
	}
}

func endpointFromProto(in *networkv1.Endpoint) (network.Endpoint, error) {
	var p parser
	out := network.Endpoint{
		NetworkID: in.GetNetworkId(), EndpointID: in.GetEndpointId(), ContainerID: in.GetContainerId(),
		Netns: in.GetNetns(), Interface: in.GetInterface(),
		IPv4: p.prefix("ipv4", in.GetIpv4()), IPv6: p.prefix("ipv6", in.GetIpv6()),
		Gateway4: p.addr("gateway4", in.GetGateway4()), Gateway6: p.addr("gateway6", in.GetGateway6()),
		MAC: in.GetMac(), Ports: p.ports(in.GetPorts()),
	}
	return out, p.err
}
