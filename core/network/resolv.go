package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// nameServer is where containers on user-defined networks ask.
const nameServer = "127.0.0.11"

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
