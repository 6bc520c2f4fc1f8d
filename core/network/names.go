package network

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/davit-engine/davit/core/dns"
)

// nameServer is where containers on user-defined networks ask.
const nameServer = "127.0.0.11"

// ServeDNS implements the engine's Networks.
func (s *Service) ServeDNS(ctx context.Context, containerID, netns string, o DNSOptions) error {
	servers := o.Servers
	if len(servers) == 0 {
		servers = s.Upstreams
	}
	return s.names.Serve(ctx, dns.Client{ID: containerID, Netns: netns, Servers: servers})
}

// StopDNS implements the engine's Networks.
func (s *Service) StopDNS(containerID string) { s.names.Stop(containerID) }

// lookup answers the addresses of a name as one container sees it, and whether
// the name is known at all.
func (s *Service) lookup(containerID, name string) ([]netip.Addr, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []netip.Addr
	known := false
	s.visible(containerID, func(n Network, a attached) {
		label, network, qualified := strings.Cut(name, ".")
		if qualified && !strings.EqualFold(network, n.Name) || !a.named(label) {
			if !a.named(name) {
				return
			}
		}
		known = true
		if a.endpoint.IPv4.IsValid() {
			found = append(found, a.endpoint.IPv4.Addr())
		}
		if a.endpoint.IPv6.IsValid() {
			found = append(found, a.endpoint.IPv6.Addr())
		}
	})
	return found, known
}

// reverse answers the name of an address.
func (s *Service) reverse(containerID string, address netip.Addr) (string, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	name := ""
	s.visible(containerID, func(n Network, a attached) {
		if a.endpoint.IPv4.Addr() == address || a.endpoint.IPv6.IsValid() && a.endpoint.IPv6.Addr() == address {
			name = a.ContainerName + "." + n.Name
		}
	})
	return name, name != ""
}

// visible calls fn for every container on the user-defined networks that a
// container is on; the caller holds mu.
func (s *Service) visible(containerID string, fn func(Network, attached)) {
	for id, endpoints := range s.attached {
		n, ok := s.networks[id]
		if !ok || !n.UserDefined() {
			continue
		}
		member := false
		for _, a := range endpoints {
			member = member || a.ContainerID == containerID
		}
		if !member {
			continue
		}
		for _, a := range endpoints {
			fn(n, a)
		}
	}
}

func (a attached) named(name string) bool {
	return strings.EqualFold(a.ContainerName, name) || strings.EqualFold(a.Hostname, name) ||
		len(a.ContainerID) >= 12 && strings.EqualFold(a.ContainerID[:12], name) ||
		slices.ContainsFunc(a.Aliases, func(alias string) bool { return strings.EqualFold(alias, name) })
}

// upstreams answers the name servers that a container's other questions go to;
// none for one that is only on internal networks.
func (s *Service) upstreams(containerID string) []netip.Addr {
	s.mu.RLock()
	outside := false
	s.visible(containerID, func(n Network, a attached) {
		outside = outside || a.ContainerID == containerID && !n.Request.Internal
	})
	s.mu.RUnlock()
	if !outside {
		return nil
	}
	servers, _, _ := hostResolver()
	return servers
}

// hostResolver reads the host's resolv.conf. With systemd-resolved's stub in it,
// the servers behind the stub.
func hostResolver() (servers []netip.Addr, search, options []string) {
	body, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return nil, nil, nil
	}
	servers, search, options = parseResolv(body)
	if len(servers) == 1 && servers[0] == netip.MustParseAddr("127.0.0.53") {
		if real, err := os.ReadFile("/run/systemd/resolve/resolv.conf"); err == nil {
			return parseResolv(real)
		}
	}
	return servers, search, options
}

func parseResolv(body []byte) (servers []netip.Addr, search, options []string) {
	for line := range bytes.Lines(body) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(fields[1]); err == nil {
				servers = append(servers, a)
			}
		case "search", "domain":
			search = fields[1:]
		case "options":
			options = append(options, fields[1:]...)
		}
	}
	return servers, search, options
}

// ResolvConf implements the engine's Networks.
func (s *Service) ResolvConf(useDNS bool, o DNSOptions) ([]byte, error) {
	servers, search, options := hostResolver()
	if len(s.Upstreams) > 0 {
		servers = s.Upstreams
	}
	if len(o.Servers) > 0 {
		servers = o.Servers
	} else {
		// The host's own loopback is not the container's.
		servers = slices.DeleteFunc(servers, netip.Addr.IsLoopback)
	}
	if len(o.Search) > 0 {
		search = o.Search
	}
	if len(search) == 1 && search[0] == "." {
		search = nil
	}
	if len(o.Options) > 0 {
		options = o.Options
	}
	var b bytes.Buffer
	b.WriteString("# Made by davit.\n")
	if useDNS {
		fmt.Fprintf(&b, "nameserver %s\n", nameServer)
		if !slices.ContainsFunc(options, func(option string) bool { return strings.HasPrefix(option, "ndots:") }) {
			options = append(slices.Clone(options), "ndots:0")
		}
	} else {
		for _, server := range servers {
			fmt.Fprintf(&b, "nameserver %s\n", server)
		}
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.Bytes(), nil
}
