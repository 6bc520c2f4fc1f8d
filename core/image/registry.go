package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/moby/moby/api/types/registry"
)

const userAgent = "davit"

// DockerHub is the name under which Docker's clients keep the credentials of the
// registry that has no name of its own in references.
const DockerHub = "https://index.docker.io/v1/"

// remoteRepository is where a reference's image is, and how to get there.
// Nothing is asked yet.
func (s *Store) remoteRepository(named reference.Named, auth *registry.AuthConfig) (name.Repository, []remote.Option, error) {
	var how []name.Option
	if slices.Contains(s.Insecure, reference.Domain(named)) {
		how = append(how, name.Insecure)
	}
	repository, err := name.NewRepository(named.Name(), how...)
	if err != nil {
		return repository, nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return repository, []remote.Option{remote.WithAuth(authenticator(auth)), remote.WithUserAgent(userAgent)}, nil
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

// Login asks a registry whether it takes the credentials. Nothing is kept: that
// is the client's. ErrUnauthenticated if it does not.
func (s *Store) Login(ctx context.Context, auth *registry.AuthConfig) error {
	host := registryHost(auth.ServerAddress)
	var how []name.Option
	if slices.Contains(s.Insecure, host) {
		how = append(how, name.Insecure)
	}
	server, err := name.NewRegistry(host, how...)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	way, err := transport.NewWithContext(ctx, server, authenticator(auth), transport.NewUserAgent(remote.DefaultTransport, userAgent), nil)
	url := server.Scheme() + "://" + server.RegistryStr() + "/v2/"
	if err == nil {
		err = askVersion(ctx, way, url)
	}
	var refused *transport.Error
	switch {
	case errors.As(err, &refused) && (refused.StatusCode == http.StatusUnauthorized || refused.StatusCode == http.StatusForbidden):
		return errdefs.ErrUnauthenticated.WithMessage(fmt.Sprintf("Get %q: %s", url, refusal(refused)))
	case err != nil:
		return errdefs.ErrUnavailable.WithMessage(err.Error()) // it has the URL
	}
	return nil
}

// registryHost is the host and port of a server address, which may be a URL.
func registryHost(address string) string {
	if address == "" || address == DockerHub {
		return name.DefaultRegistry
	}
	_, rest, found := strings.Cut(address, "://")
	if !found {
		rest = address
	}
	host, _, _ := strings.Cut(rest, "/")
	return host
}

func askVersion(ctx context.Context, way http.RoundTripper, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: way}).Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	return transport.CheckError(response, http.StatusOK)
}

// refusal is what a registry said, in Docker's form.
func refusal(err *transport.Error) string {
	if len(err.Errors) == 0 { // the answer of a HEAD has no body
		switch err.StatusCode {
		case http.StatusUnauthorized:
			return "unauthorized: authentication required"
		case http.StatusForbidden:
			return "denied: requested access to the resource is denied"
		}
		return strings.ToLower(http.StatusText(err.StatusCode)) + ": " + err.Error()
	}
	d := err.Errors[0]
	return strings.ToLower(strings.ReplaceAll(string(d.Code), "_", " ")) + ": " + d.Message
}
