package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/moby/moby/api/types/registry"
)

// DockerHub is the name under which Docker's clients keep the credentials of the
// registry that has no name of its own in references.
const DockerHub = "https://index.docker.io/v1/"

// Login asks a registry whether it takes the credentials. Nothing is kept: that
// is the client's. ErrUnauthenticated if it does not.
func (r *Registries) Login(ctx context.Context, auth *registry.AuthConfig) error {
	host := loginHost(auth.ServerAddress)
	h, err := r.checked(host)
	if err != nil {
		return err
	}
	base, err := r.transport(host, h)
	if err != nil {
		return err
	}
	server, err := name.NewRegistry(host, h.naming()...)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	ctx, watch := watched(ctx, r.Silence)
	defer watch.stop()
	way, err := transport.NewWithContext(ctx, server, authenticator(auth), base, nil)
	url := server.Scheme() + "://" + server.RegistryStr() + "/v2/"
	if err == nil {
		err = askVersion(ctx, way, url)
	}
	err = watch.explain(plain(err))
	refused := Refusal(err)
	switch {
	case refused != nil && (refused.StatusCode == http.StatusUnauthorized || refused.StatusCode == http.StatusForbidden):
		return errdefs.ErrUnauthenticated.WithMessage(fmt.Sprintf("Get %q: %s", url, Diagnosis(refused)))
	case err != nil:
		return errdefs.ErrUnavailable.WithMessage(err.Error()) // it has the URL
	}
	return nil
}

// loginHost is the host and port of a server address, which may be a URL, as
// references name it.
func loginHost(address string) string {
	if address == "" || address == DockerHub {
		return "docker.io"
	}
	_, rest, found := strings.Cut(address, "://")
	if !found {
		rest = address
	}
	host, _, _ := strings.Cut(rest, "/")
	if host == name.DefaultRegistry {
		return "docker.io"
	}
	return host
}

func askVersion(ctx context.Context, way http.RoundTripper, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
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
