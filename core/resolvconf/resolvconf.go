// Package resolvconf reads the host's resolv.conf and makes those of containers.
// It writes nothing and asks nobody.
package resolvconf

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Embedded is the name server that containers on user-defined networks ask.
var Embedded = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// Public name servers are used where the host's cannot be, as Docker does.
var public4, public6 = addresses("8.8.8.8", "8.8.4.4"), addresses("2001:4860:4860::8888", "2001:4860:4860::8844")

func addresses(list ...string) []netip.Addr {
	made := make([]netip.Addr, len(list))
	for i, text := range list {
		made[i] = netip.MustParseAddr(text)
	}
	return made
}

// Config is what a resolv.conf says (resolv.conf(5)).
type Config struct {
	Servers []netip.Addr
	Search  []string
	Options []string
	Other   []string // lines with other keywords, as they are
	Invalid []string // name servers that are no addresses
}

// Parse reads a file's content. What it cannot read it leaves out, as resolvers do.
func Parse(body []byte) Config {
	var c Config
	for line := range bytes.Lines(body) {
		text := strings.TrimSpace(string(line))
		fields := strings.Fields(text)
		if len(fields) == 0 || fields[0][0] == '#' || fields[0][0] == ';' {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if len(fields) < 2 {
				continue
			}
			if a, err := netip.ParseAddr(fields[1]); err == nil {
				c.Servers = append(c.Servers, a)
			} else {
				c.Invalid = append(c.Invalid, fields[1])
			}
		case "search", "domain":
			if len(fields) > 1 {
				c.Search = fields[1:] // the last line counts
			}
		case "options":
			c.Options = append(c.Options, fields[1:]...)
		default:
			c.Other = append(c.Other, text)
		}
	}
	return c
}

// Overrides are said for one container or for all; empty: what the host has.
type Overrides struct {
	Servers []netip.Addr // --dns
	Search  []string     // --dns-search; "." alone: none
	Options []string     // --dns-option
}

// Or completes overrides by others that are less special.
func (o Overrides) Or(less Overrides) Overrides {
	if len(o.Servers) == 0 {
		o.Servers = less.Servers
	}
	if len(o.Search) == 0 {
		o.Search = less.Search
	}
	if len(o.Options) == 0 {
		o.Options = less.Options
	}
	return o
}

// Network says which name servers a container reaches.
type Network int

// The networks that differ.
const (
	// Direct is any without a name server of its own: the host's loopback and
	// link-local addresses mean something else there.
	Direct Network = iota
	// Direct6 is Direct with IPv6.
	Direct6
	// Own is a user-defined network, with Embedded.
	Own
	// Host is the host's own.
	Host
)

// For is a container's configuration on a network.
func (c Config) For(n Network, o Overrides) Made {
	m := Made{Config: c, over: o}
	if len(o.Servers) > 0 {
		m.Servers = o.Servers
	}
	if len(o.Search) > 0 {
		m.Search = slices.DeleteFunc(slices.Clone(o.Search), func(s string) bool { return s == "." })
	}
	if len(o.Options) > 0 {
		m.Options = o.Options
	}
	switch n {
	case Own:
		m.upstreams, m.Servers = m.Servers, []netip.Addr{Embedded}
		m.Options = withNdots(m.Options)
		m.how = "internal resolver"
	case Direct, Direct6:
		m.how = "legacy"
		if len(o.Servers) > 0 {
			break
		}
		m.Servers = slices.DeleteFunc(slices.Clone(c.Servers), func(a netip.Addr) bool {
			return a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is6() && n != Direct6
		})
		if len(m.Servers) == 0 {
			m.Fallback, m.Servers = true, slices.Clone(public4)
			if n == Direct6 {
				m.Servers = append(m.Servers, public6...)
			}
		}
	case Host:
	}
	return m
}

// withNdots adds that names without a dot are names: containers' names are. A
// number that somebody chose stays.
func withNdots(options []string) []string {
	options = slices.DeleteFunc(slices.Clone(options), func(option string) bool {
		value, is := strings.CutPrefix(option, "ndots:")
		n, err := strconv.Atoi(value)
		return is && (err != nil || n < 0) || option == "ndots"
	})
	if _, ok := ndots(options); !ok {
		options = append(options, "ndots:0")
	}
	return options
}

func ndots(options []string) (n int, ok bool) {
	for _, option := range options {
		if value, is := strings.CutPrefix(option, "ndots:"); is {
			if number, err := strconv.Atoi(value); err == nil && number >= 0 {
				n, ok = number, true
			}
		}
	}
	return n, ok
}

// Ndots says whether somebody chose that names with fewer dots are first looked
// for in the search domains.
func (c Config) Ndots(o Overrides) bool {
	options := c.Options
	if len(o.Options) > 0 {
		options = o.Options
	}
	n, _ := ndots(options)
	return n > 0
}

// Made is a container's configuration.
type Made struct {
	Config
	Fallback bool // the servers are public ones: the host's are of no use

	over      Overrides
	upstreams []netip.Addr
	how       string
}

// File is the content of the container's file. Comments at its end say where it
// comes from, in the form that Docker's has.
func (m Made) File(path string) []byte {
	var b bytes.Buffer
	b.WriteString("# Made by davit. What is changed here stays until the container starts again.\n\n")
	for _, a := range m.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(m.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(m.Search, " "))
	}
	if len(m.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(m.Options, " "))
	}
	for _, line := range m.Other {
		b.WriteString(line + "\n")
	}
	fmt.Fprintf(&b, "\n# Based on host file: '%s'", path)
	if m.how != "" {
		fmt.Fprintf(&b, " (%s)", m.how)
	}
	b.WriteByte('\n')
	if m.Fallback {
		b.WriteString("# Used default nameservers.\n")
	}
	if m.how == "internal resolver" {
		m.explainUpstreams(&b)
	}
	if len(m.Invalid) > 0 {
		fmt.Fprintf(&b, "# Invalid nameservers: %v\n", m.Invalid)
	}
	var overrides []string
	for _, over := range []struct {
		name string
		n    int
	}{{"nameservers", len(m.over.Servers)}, {"search", len(m.over.Search)}, {"options", len(m.over.Options)}} {
		if over.n > 0 {
			overrides = append(overrides, over.name)
		}
	}
	fmt.Fprintf(&b, "# Overrides: %v\n", overrides)
	return b.Bytes()
}

func (m Made) explainUpstreams(b *bytes.Buffer) {
	if len(m.upstreams) == 0 {
		b.WriteString("# NO EXTERNAL NAMESERVERS DEFINED\n")
		return
	}
	var list []string
	for _, a := range m.upstreams {
		text := a.String()
		if len(m.over.Servers) == 0 {
			text = "host(" + text + ")" // asked from the host's network
		}
		list = append(list, text)
	}
	fmt.Fprintf(b, "# ExtServers: %v\n", list)
}
