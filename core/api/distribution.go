package api

import (
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// distribution describes an image of a registry.
func (s *server) distribution(w http.ResponseWriter, r *http.Request) error {
	name, ok := strings.CutSuffix(r.PathValue("rest"), "/json")
	if !ok {
		return notFound()
	}
	found, _, err := s.askRegistry(r, name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, found)
}

// remoteManifest is davit's own: the description with the manifest or index itself.
func (s *server) remoteManifest(w http.ResponseWriter, r *http.Request) error {
	name, ok := strings.CutSuffix(r.PathValue("rest"), "/manifest")
	if !ok {
		return notFound()
	}
	found, raw, err := s.askRegistry(r, name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, RemoteManifest{found, raw})
}

// RemoteManifest is the answer to GET /davit/distribution/NAME/manifest.
type RemoteManifest struct {
	registry.DistributionInspect
	Raw []byte // as the registry has it
}

func (s *server) askRegistry(r *http.Request, name string) (registry.DistributionInspect, []byte, error) {
	auth, err := registryAuth(r)
	if err != nil {
		return registry.DistributionInspect{}, nil, err
	}
	return s.Backend.ImageAskRegistry(r.Context(), name, flag(r.URL.Query(), "insecure"), auth)
}

func (s *server) imageSearch(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	term := q.Get("term")
	if term == "" {
		return invalid("term is needed")
	}
	limit, err := number(q, "limit", 0)
	if err != nil {
		return err
	}
	args, err := filters(q)
	if err != nil {
		return err
	}
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	found, err := s.Backend.ImageSearch(r.Context(), term, limit, args, auth)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, found)
}
