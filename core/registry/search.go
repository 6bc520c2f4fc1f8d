package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
)

// Bounds of how many results a search may ask for, as Docker's.
const (
	DefaultResults = 25
	MaxResults     = 100
)

// maxSearchAnswer bounds what is read of an answer.
const maxSearchAnswer = 8 << 20

// Search asks a registry for repositories by a term, which may begin with the
// registry's name. It is of the registries' API of version 1, which Docker Hub still
// has, and most others do not: ErrNotImplemented.
func (r *Registries) Search(ctx context.Context, term string, limit int, auth *registry.AuthConfig) ([]registry.SearchResult, error) {
	if limit == 0 {
		limit = DefaultResults
	}
	if limit < 1 || limit > MaxResults {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("limit %d is outside the range of [1, %d]", limit, MaxResults))
	}
	if strings.Contains(term, "://") {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid repository name (%s): must not contain a scheme", term))
	}
	domain, rest := "docker.io", term
	if first, after, nested := strings.Cut(term, "/"); nested && (strings.ContainsAny(first, ".:") || first == "localhost") {
		domain, rest = first, after
	}
	h, err := r.checked(domain)
	if err != nil {
		return nil, err
	}
	way, err := r.transport(domain, h)
	if err != nil {
		return nil, err
	}
	server := domain
	if domain == "docker.io" {
		server, rest = "index.docker.io", strings.TrimPrefix(rest, "library/")
	}
	schemes := []string{"https"}
	if h.Insecure {
		schemes = append(schemes, "http")
	}
	ctx, watch := watched(ctx, r.Silence)
	defer watch.stop()
	query := url.Values{"q": {rest}, "n": {fmt.Sprint(limit)}}
	for _, scheme := range schemes {
		var a answer
		if a, err = search(ctx, way, scheme+"://"+server+"/v1/search?"+query.Encode(), auth); err == nil {
			return results(domain, a)
		}
	}
	return nil, errdefs.ErrUnavailable.WithMessage(watch.explain(plain(err)).Error()) // it has the URL
}

// answer is a registry's, cut where it is too long.
type answer struct {
	code   int
	status string
	body   []byte
}

func search(ctx context.Context, way http.RoundTripper, address string, auth *registry.AuthConfig) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return answer{}, err
	}
	if auth != nil && auth.Username != "" {
		request.SetBasicAuth(auth.Username, auth.Password)
	}
	response, err := (&http.Client{Transport: way}).Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSearchAnswer+1))
	return answer{response.StatusCode, response.Status, body}, err
}

func results(domain string, a answer) ([]registry.SearchResult, error) {
	switch a.code {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return nil, errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("registry %s cannot be searched: it does not have version 1 of the registries' API (%s)", domain, a.status))
	case http.StatusUnauthorized:
		return nil, errdefs.ErrUnauthenticated.WithMessage(fmt.Sprintf("registry %s: searching needs a login (%s)", domain, a.status))
	default:
		return nil, errdefs.ErrUnavailable.WithMessage(fmt.Sprintf("registry %s: Unexpected status code %d", domain, a.code))
	}
	var found registry.SearchResults
	if len(a.body) > maxSearchAnswer {
		return nil, errdefs.ErrUnavailable.WithMessage(fmt.Sprintf("registry %s answers more than %d bytes", domain, maxSearchAnswer))
	}
	if err := json.Unmarshal(a.body, &found); err != nil {
		return nil, errdefs.ErrUnavailable.WithMessage(fmt.Sprintf("registry %s: the results are no JSON: %v", domain, err))
	}
	if found.Results == nil {
		found.Results = []registry.SearchResult{}
	}
	return found.Results, nil
}

// Insecurely answers the same registries, of which one may be reached without TLS.
func (r *Registries) Insecurely(domain string) *Registries {
	o := r.Options
	h := r.host(domain)
	h.Insecure = true
	o.Hosts = map[string]Host{domain: h}
	for name, other := range r.Hosts {
		if name != domain {
			o.Hosts[name] = other
		}
	}
	return &Registries{o}
}
