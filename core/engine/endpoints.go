package engine

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	mobynetwork "github.com/moby/moby/api/types/network"
	"golang.org/x/sync/errgroup"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/network"
	sdknetwork "github.com/davit-engine/davit/sdk/network"
)

// requestedEndpoints reads --network and the networking config of a create
// request. Unknown networks fail here, not at start.
func (e *Engine) requestedEndpoints(r *container.Record, config *mobynetwork.NetworkingConfig) (map[string]container.Endpoint, error) {
	mode := r.HostConfig.NetworkMode
	endpoints := map[string]container.Endpoint{}
	if mode.IsContainer() {
		other, err := e.containers.Find(mode.ConnectedContainer())
		if err != nil {
			return nil, err
		}
		host := *r.HostConfig
		host.NetworkMode = mobycontainer.NetworkMode("container:" + other.ID)
		r.HostConfig = &host
		if len(host.PortBindings) > 0 {
			return nil, errdefs.ErrInvalidArgument.WithMessage("conflicting options: port publishing and the container type network mode")
		}
		return endpoints, nil
	}
	wanted := map[string]*mobynetwork.EndpointSettings{}
	if config != nil {
		maps.Copy(wanted, config.EndpointsConfig)
	}
	// Clients speak of the default network also as "default".
	if settings, ok := wanted[mobynetwork.NetworkDefault]; ok {
		delete(wanted, mobynetwork.NetworkDefault)
		wanted[mobynetwork.NetworkBridge] = settings
	}
	if name := string(mode); wanted[name] == nil {
		found := false
		// The client may give the network's ID in one place and its name in the other.
		for other := range wanted {
			if n, err := e.Networks.Find(other); err == nil && (n.ID == name || n.Name == name || strings.HasPrefix(n.ID, name)) {
				found = true
			}
		}
		if !found {
			wanted[name] = &mobynetwork.EndpointSettings{}
		}
	}
	for name, settings := range wanted {
		n, err := e.Networks.Find(name)
		if err != nil {
			return nil, err
		}
		if settings == nil {
			settings = &mobynetwork.EndpointSettings{}
		}
		if len(settings.Links) == 0 && len(r.HostConfig.Links) > 0 && (name == string(mode) || n.ID == string(mode) || len(wanted) == 1) {
			settings = settings.Copy() // clients say it there, too
			settings.Links = r.HostConfig.Links
		}
		if err := checkEndpoint(n, settings); err != nil {
			return nil, err
		}
		endpoints[n.Name] = container.Endpoint{NetworkID: n.ID, Request: settings}
	}
	return endpoints, nil
}

func checkEndpoint(n network.Network, settings *mobynetwork.EndpointSettings) error {
	if _, err := parseLinks(settings.Links); err != nil {
		return err
	}
	if !n.UserDefined() {
		if len(settings.Links) > 0 {
			return errLinks
		}
		if len(settings.Aliases) > 0 {
			return errdefs.ErrInvalidArgument.WithMessage("network-scoped aliases are only supported for user-defined networks")
		}
		if c := settings.IPAMConfig; c != nil && (c.IPv4Address.IsValid() || c.IPv6Address.IsValid()) {
			return errdefs.ErrInvalidArgument.WithMessage("user specified IP address is supported on user defined networks only")
		}
		return nil
	}
	if c := settings.IPAMConfig; c != nil {
		for _, address := range []netip.Addr{c.IPv4Address, c.IPv6Address} {
			inside := slices.ContainsFunc(n.Pools, func(p sdknetwork.Pool) bool { return p.Subnet.Contains(address) })
			if address.IsValid() && !inside && len(n.Pools) > 0 {
				return errdefs.ErrInvalidArgument.WithMessage("no configured subnet contains IP address " + address.String())
			}
		}
	}
	return nil
}

// needsDriver says whether a network is made by a driver: host and none are the
// engine's own.
func needsDriver(name string) bool { return name != network.Host && name != network.None }

// attachNetworks connects a namespace to all networks of a container, at once.
func (e *Engine) attachNetworks(ctx context.Context, r container.Record, netns string, u *undo) (map[string]container.Endpoint, error) {
	names := slices.Sorted(maps.Keys(r.Endpoints))
	names = slices.DeleteFunc(names, func(name string) bool { return !needsDriver(name) })
	gateways := e.gatewaysOf(r)
	// The gateway's network is eth0.
	for _, gateway := range []string{gateways.ip6, gateways.ip4} {
		if i := slices.Index(names, gateway); i > 0 {
			names = slices.Insert(slices.Delete(names, i, i+1), 0, gateway)
		}
	}
	attached := make([]container.Endpoint, len(names))
	group, ctx := errgroup.WithContext(ctx)
	for i, name := range names {
		endpoint := r.Endpoints[name]
		endpoint.EndpointID = container.NewID()
		request := attachment(r, endpoint, netns, fmt.Sprintf("eth%d", i), gateways.of(name))
		attached[i] = endpoint
		u.add(func(ctx context.Context) error {
			return e.Networks.Detach(ctx, endpoint.NetworkID, endpoint.EndpointID)
		})
		group.Go(func() error {
			result, err := e.Networks.Attach(ctx, request)
			if err != nil {
				return fmt.Errorf("failed to set up container networking: driver failed programming external connectivity on endpoint %s (%s): %w", r.Name, endpoint.EndpointID, err)
			}
			attached[i].Attached = &result
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	endpoints := maps.Clone(r.Endpoints)
	for i, name := range names {
		endpoints[name] = attached[i]
	}
	return endpoints, nil
}

// attachment is what the network service is asked for one endpoint. Published
// ports go with the gateways' networks.
func attachment(r container.Record, endpoint container.Endpoint, netns, device string, routes routes) network.Attachment {
	settings := endpoint.Request
	a := network.Attachment{
		Attachment: sdknetwork.Attachment{
			NetworkID: endpoint.NetworkID, EndpointID: endpoint.EndpointID, ContainerID: r.ID,
			Netns: netns, Interface: device, Gateway4: routes.ip4, Gateway6: routes.ip6, Options: settings.DriverOpts,
			Ports: routes.ports(publishedPorts(r)),
		},
		ContainerName: r.Name, Aliases: settings.Aliases, Hostname: r.Config.Hostname,
	}
	a.Links, _ = parseLinks(settings.Links) // checked with the request
	if len(settings.MacAddress) > 0 {
		a.MAC = settings.MacAddress.String()
	}
	if c := settings.IPAMConfig; c != nil {
		a.IPv4, a.IPv6 = c.IPv4Address, c.IPv6Address
	}
	return a
}

// publishedPorts reads -p and -P.
func publishedPorts(r container.Record) []sdknetwork.Port {
	var ports []sdknetwork.Port
	for port, bindings := range r.HostConfig.PortBindings {
		for _, binding := range bindings {
			p := sdknetwork.Port{Proto: string(port.Proto()), ContainerPort: port.Num(), HostIP: binding.HostIP}
			p.HostPort, p.HostPortEnd = portRange(binding.HostPort)
			ports = append(ports, p)
		}
		if len(bindings) == 0 {
			ports = append(ports, sdknetwork.Port{Proto: string(port.Proto()), ContainerPort: port.Num()})
		}
	}
	if r.HostConfig.PublishAllPorts {
		for port := range r.Config.ExposedPorts {
			if _, ok := r.HostConfig.PortBindings[port]; !ok {
				ports = append(ports, sdknetwork.Port{Proto: string(port.Proto()), ContainerPort: port.Num()})
			}
		}
	}
	slices.SortFunc(ports, func(a, b sdknetwork.Port) int {
		if a.ContainerPort != b.ContainerPort {
			return int(a.ContainerPort) - int(b.ContainerPort)
		}
		return strings.Compare(a.Proto+a.HostIP.String(), b.Proto+b.HostIP.String())
	})
	return ports
}

func portRange(s string) (first, last uint16) {
	low, high, isRange := strings.Cut(s, "-")
	_, _ = fmt.Sscanf(low, "%d", &first)
	if isRange {
		_, _ = fmt.Sscanf(high, "%d", &last)
	}
	return first, last
}

// endpointSettings is an endpoint as the API shows it.
func endpointSettings(name string, r container.Record) *mobynetwork.EndpointSettings {
	endpoint := r.Endpoints[name]
	s := endpoint.Request.Copy()
	s.NetworkID = endpoint.NetworkID
	if (network.Network{Name: name}).UserDefined() {
		s.DNSNames = slices.Compact(append(append([]string{r.Name}, s.Aliases...), r.ID[:12]))
		if r.Config.Hostname != "" && !slices.Contains(s.DNSNames, r.Config.Hostname) {
			s.DNSNames = append(s.DNSNames, r.Config.Hostname)
		}
	}
	a := endpoint.Attached
	if a == nil {
		return s
	}
	s.EndpointID = endpoint.EndpointID
	s.Gateway, s.IPv6Gateway = a.Gateway4, a.Gateway6
	s.IPAddress, s.IPPrefixLen = address(a.IPv4)
	s.GlobalIPv6Address, s.GlobalIPv6PrefixLen = address(a.IPv6)
	if a.MAC != "" {
		_ = s.MacAddress.UnmarshalText([]byte(a.MAC))
	}
	return s
}

func address(p netip.Prefix) (netip.Addr, int) {
	if !p.IsValid() {
		return netip.Addr{}, 0
	}
	return p.Addr(), p.Bits()
}
