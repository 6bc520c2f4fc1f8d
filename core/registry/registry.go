// Package registry reaches image registries: it knows from the configuration where
// each is, which mirrors stand before it and whom to trust, and asks for manifests,
// blobs and tags by the OCI distribution specification. It keeps nothing.
package registry

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/moby/moby/api/types/registry"
)

const userAgent = "davit"

// AnyOther is the key of registries that have no entry of their own.
const AnyOther = "*"

// DefaultSilence is how long a registry may be silent before it is given up.
const DefaultSilence = 30 * time.Second

// Host is how one registry is reached. The zero value is TLS that the host's
// certificate authorities vouch for.
type Host struct {
	Mirrors  []string // asked before it, in this order: HOST[:PORT][/PREFIX] or a URL
	Blocked  bool     // never asked
	Insecure bool     // plain HTTP, or a certificate that nobody vouches for
	CA       string   // file with further certificate authorities
	Cert     string   // file with a client certificate
	Key      string   // file with its key
}

// Options are the configuration of all registries.
type Options struct {
	Hosts map[string]Host // by host[:port] as in references, e.g. "docker.io"
	// CertsDir holds a folder HOST[:PORT] for each registry with files *.crt
	// (authorities), *.cert and *.key (a client certificate); as Docker's certs.d.
	CertsDir string
	Silence  time.Duration // zero: [DefaultSilence]
}

// Registries are all registries. It is safe for concurrent use.
type Registries struct{ Options }

// New answers registries as configured.
func New(o Options) *Registries {
	if o.Silence == 0 {
		o.Silence = DefaultSilence
	}
	return &Registries{o}
}

// loopback is what Docker trusts without TLS: who listens there is this host.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// isLoopback says whether host[:port] is on this host.
func isLoopback(host string) bool {
	if bare, _, err := net.SplitHostPort(host); err == nil {
		host = bare
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && slices.ContainsFunc(loopback, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) })
}

// host is the configuration of one. A registry that is not named has that of all
// others.
func (r *Registries) host(domain string) Host {
	h, ok := r.Hosts[domain]
	if !ok {
		h = r.Hosts[AnyOther]
	}
	h.Insecure = h.Insecure || isLoopback(domain)
	return h
}

// checked is host, or ErrPermissionDenied for a registry that is not to be asked.
func (r *Registries) checked(domain string) (Host, error) {
	h := r.host(domain)
	if h.Blocked {
		return h, errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("registry %s is blocked by the configuration", domain))
	}
	return h, nil
}

// ForPull answers where a name's images may be had, in the order in which to ask:
// the mirrors of its registry, and itself. Nothing is asked yet. The credentials are
// for the registry; mirrors do not get them.
func (r *Registries) ForPull(named reference.Named, auth *registry.AuthConfig) ([]*Repository, error) {
	domain, path := reference.Domain(named), reference.Path(named)
	h, err := r.checked(domain)
	if err != nil {
		return nil, err
	}
	var list []*Repository
	for _, mirror := range h.Mirrors {
		m, err := ParseMirror(mirror)
		if err != nil {
			return nil, err
		}
		own := r.host(m.Host)
		own.Insecure = own.Insecure || m.Plain
		repository, err := r.repository(m.Host, strings.TrimPrefix(m.Prefix+"/"+path, "/"), own, nil, transport.PullScope)
		if err != nil {
			return nil, fmt.Errorf("mirror %q of %s: %w", mirror, domain, err)
		}
		list = append(list, repository)
	}
	itself, err := r.repository(domain, path, h, auth, transport.PullScope)
	if err != nil {
		return nil, err
	}
	return append(list, itself), nil
}

// ForPush answers where a name's images go: its registry itself.
func (r *Registries) ForPush(named reference.Named, auth *registry.AuthConfig) (*Repository, error) {
	domain := reference.Domain(named)
	h, err := r.checked(domain)
	if err != nil {
		return nil, err
	}
	return r.repository(domain, reference.Path(named), h, auth, transport.PushScope)
}

func (r *Registries) repository(domain, path string, h Host, auth *registry.AuthConfig, scope string) (*Repository, error) {
	base, err := r.transport(domain, h)
	if err != nil {
		return nil, err
	}
	repository, err := name.NewRepository(domain+"/"+path, h.naming()...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return &Repository{name: repository, auth: authenticator(auth), base: base, scope: scope, silence: r.Silence, connecting: make(chan struct{}, 1)}, nil
}

// naming is how names of the registry are read: those of an insecure one allow plain
// HTTP.
func (h Host) naming() []name.Option {
	if h.Insecure {
		return []name.Option{name.Insecure}
	}
	return nil
}

func authenticator(auth *registry.AuthConfig) authn.Authenticator {
	if auth == nil {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: auth.Username, Password: auth.Password, Auth: auth.Auth,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
	})
}

// Mirror is where a mirror is.
type Mirror struct {
	Host   string // host[:port]
	Prefix string // what its repositories' names begin with; no slashes around it
	Plain  bool   // the configuration says http://
}

// ParseMirror reads HOST[:PORT][/PREFIX], with https:// or http:// before it or
// without.
func ParseMirror(text string) (Mirror, error) {
	var m Mirror
	rest := text
	if scheme, after, ok := strings.Cut(text, "://"); ok {
		if scheme != "http" && scheme != "https" {
			return m, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("mirror %q: must be HOST[:PORT][/PREFIX], with http:// or https:// or without", text))
		}
		m.Plain, rest = scheme == "http", after
	}
	u, err := url.Parse("//" + rest)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return m, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("mirror %q: must be HOST[:PORT][/PREFIX], with http:// or https:// or without", text))
	}
	m.Host, m.Prefix = u.Host, strings.Trim(u.Path, "/")
	return m, nil
}

// Info is the configuration in Docker's words.
func (r *Registries) Info() *registry.ServiceConfig {
	info := &registry.ServiceConfig{InsecureRegistryCIDRs: slices.Clone(loopback), IndexConfigs: map[string]*registry.IndexInfo{}, Mirrors: []string{}}
	add := func(domain string, h Host) {
		mirrors := make([]string, 0, len(h.Mirrors))
		for _, text := range h.Mirrors {
			if m, err := ParseMirror(text); err == nil {
				mirrors = append(mirrors, m.url())
			}
		}
		official := domain == "docker.io"
		info.IndexConfigs[domain] = &registry.IndexInfo{Name: domain, Mirrors: mirrors, Secure: !h.Insecure, Official: official}
		if official {
			info.Mirrors = mirrors
		}
	}
	add("docker.io", r.host("docker.io"))
	for domain := range r.Hosts {
		if domain != AnyOther {
			add(domain, r.host(domain))
		}
	}
	return info
}

// url is the mirror as Docker writes it, with a slash at the end.
func (m Mirror) url() string {
	u := url.URL{Scheme: "https", Host: m.Host, Path: "/"}
	if m.Plain {
		u.Scheme = "http"
	}
	if m.Prefix != "" {
		u.Path += m.Prefix + "/"
	}
	return u.String()
}
