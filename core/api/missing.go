package api

import (
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
)

// missing are the endpoints of the Docker Engine API that davit does not serve
// yet. They answer 501 with their name rather than pretend.
var missing = []string{
	"POST /build", "POST /build/prune", "POST /build/cancel", "POST /session", "POST /grpc",
	"GET /containers/{name}/attach/ws",
	"/swarm", "/swarm/", "/nodes", "/nodes/", "/services", "/services/", "/tasks", "/tasks/", "/secrets", "/secrets/", "/configs", "/configs/",
	"/plugins", "/plugins/",
}

func (s *server) missingRoutes() {
	for _, pattern := range missing {
		s.handle(pattern, func(_ http.ResponseWriter, r *http.Request) error { return notImplemented(r) })
	}
	s.handle("/", func(_ http.ResponseWriter, _ *http.Request) error { return notFound() })
}

func notFound() error { return errdefs.ErrNotFound.WithMessage("page not found") }

func notImplemented(r *http.Request) error {
	return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("davit does not implement %s %s yet", r.Method, r.URL.Path))
}
