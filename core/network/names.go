package network

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/davit-engine/davit/core/dns"
	"github.com/davit-engine/davit/core/resolvconf"
)

// ServeDNS implements the engine's Networks.
func (s *Service) ServeDNS(ctx context.Context, containerID, netns string, o resolvconf.Overrides) error {
	host, path, err := s.Resolver.Read()
	if err != nil {
		// No reason to do without names: it may be readable again.
		s.Log.Warn("reading the host's name servers", "file", path, "error", err)
	}
	o = o.Or(s.DNS)
	return s.names.Serve(ctx, dns.Client{ID: containerID, Netns: netns, Servers: o.Servers, Local: host.Ndots(o)})
}

// StopDNS implements the engine's Networks.
func (s *Service) StopDNS(containerID string) { s.names.Stop(containerID) }

// upstreams answers the host's name servers, as they are now, for a container's
// other questions; none for one that is only on internal networks.
func (s *Service) upstreams(containerID string) []netip.Addr {
	if !s.called.outside(containerID) {
		return nil
	}
	host, path, err := s.Resolver.Read()
	if err != nil {
		s.Log.Debug("reading the host's name servers", "file", path, "error", err)
	}
	return host.Servers
}

// directory is who is called how on which network, in lower case, as questions
// come: many more than changes.
type directory struct {
	mu       sync.RWMutex
	networks map[string]*called         // by network ID
	member   map[string]map[string]bool // container ID → network IDs
}

// called is one network's part of a directory.
type called struct {
	name      string
	asked     bool // names are answered: it is user-defined
	internal  bool
	entries   map[string]entry             // by endpoint ID
	names     map[string]map[string]bool   // name → endpoint IDs
	addresses map[netip.Addr]string        // address → endpoint ID
	links     map[string]map[string]string // container ID → what it calls others → their names
}

// entry is what one endpoint answers to.
type entry struct {
	containerID string
	host        string // the container's name, which its addresses have
	names       []string
	addresses   []netip.Addr
}

func newDirectory() *directory {
	return &directory{networks: map[string]*called{}, member: map[string]map[string]bool{}}
}

// put enters an endpoint, in the place of what was known of it.
func (d *directory) put(n Network, a attached) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remove(n.ID, a.EndpointID)
	c := d.networks[n.ID]
	if c == nil {
		c = &called{
			name: n.Name, asked: n.UserDefined(), internal: n.Request.Internal, entries: map[string]entry{},
			names: map[string]map[string]bool{}, addresses: map[netip.Addr]string{}, links: map[string]map[string]string{},
		}
		d.networks[n.ID] = c
	}
	e := entry{containerID: a.ContainerID, host: a.ContainerName, names: a.names()}
	for _, prefix := range []netip.Prefix{a.endpoint.IPv4, a.endpoint.IPv6} {
		if prefix.IsValid() {
			e.addresses = append(e.addresses, prefix.Addr())
			c.addresses[prefix.Addr()] = a.EndpointID
		}
	}
	for _, name := range e.names {
		if c.names[name] == nil {
			c.names[name] = map[string]bool{}
		}
		c.names[name][a.EndpointID] = true
	}
	c.entries[a.EndpointID] = e
	if len(a.Links) > 0 {
		c.links[a.ContainerID] = lower(a.Links)
	}
	if d.member[a.ContainerID] == nil {
		d.member[a.ContainerID] = map[string]bool{}
	}
	d.member[a.ContainerID][n.ID] = true
}

// names are what an endpoint is asked for by: its DNSNames in inspect.
func (a attached) names() []string {
	list := append([]string{a.ContainerName, a.Hostname}, a.Aliases...)
	if len(a.ContainerID) >= shortID {
		list = append(list, a.ContainerID[:shortID])
	}
	for i := range list {
		list[i] = strings.ToLower(list[i])
	}
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(name string) bool { return name == "" })
}

// shortID is the length of a container's ID as people see it.
const shortID = 12

func lower(links map[string]string) map[string]string {
	made := make(map[string]string, len(links))
	for alias, name := range links {
		made[strings.ToLower(alias)] = strings.ToLower(name)
	}
	return made
}

// drop removes an endpoint.
func (d *directory) drop(networkID, endpointID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remove(networkID, endpointID)
}

// remove is drop for who holds mu.
func (d *directory) remove(networkID, endpointID string) {
	c := d.networks[networkID]
	if c == nil {
		return
	}
	e, ok := c.entries[endpointID]
	if !ok {
		return
	}
	delete(c.entries, endpointID)
	delete(c.links, e.containerID)
	for _, a := range e.addresses {
		if c.addresses[a] == endpointID {
			delete(c.addresses, a)
		}
	}
	for _, name := range e.names {
		if delete(c.names[name], endpointID); len(c.names[name]) == 0 {
			delete(c.names, name)
		}
	}
	if len(c.entries) == 0 {
		delete(d.networks, networkID)
	}
	if delete(d.member[e.containerID], networkID); len(d.member[e.containerID]) == 0 {
		delete(d.member, e.containerID)
	}
}

// lookup answers the addresses of a name as one container sees it, on all its
// networks, and whether there is such a name. Names of containers and networks
// may have dots: in a.b.c, the whole, a.b on network c and a on network b.c are
// looked for, in this order.
func (d *directory) lookup(containerID, name string) ([]netip.Addr, bool) {
	name = strings.ToLower(name)
	d.mu.RLock()
	defer d.mu.RUnlock()
	for label, network := name, ""; label != ""; {
		var found []netip.Addr
		known := false
		for id := range d.member[containerID] {
			c := d.networks[id]
			if !c.asked || network != "" && !strings.EqualFold(network, c.name) {
				continue
			}
			target := label
			if linked, ok := c.links[containerID][label]; ok {
				target = linked
			}
			for endpointID := range c.names[target] {
				known = true
				found = append(found, c.entries[endpointID].addresses...)
			}
		}
		if known {
			return found, true
		}
		cut := strings.LastIndexByte(label, '.')
		if cut < 0 {
			break
		}
		label, network = name[:cut], name[cut+1:]
	}
	return nil, false
}

// reverse answers the name of an address, with its network's.
func (d *directory) reverse(containerID string, address netip.Addr) (string, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for id := range d.member[containerID] {
		c := d.networks[id]
		if endpointID, ok := c.addresses[address]; ok && c.asked {
			return c.entries[endpointID].host + "." + c.name, true
		}
	}
	return "", false
}

// outside says whether a container is on a network that is not internal.
func (d *directory) outside(containerID string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for id := range d.member[containerID] {
		if !d.networks[id].internal {
			return true
		}
	}
	return false
}
