package api

import (
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/checkpoint"
)

func (s *server) checkpointRoutes() {
	s.experimental("POST /containers/{name}/checkpoints", s.checkpointCreate)
	s.experimental("GET /containers/{name}/checkpoints", s.checkpointList)
	s.experimental("DELETE /containers/{name}/checkpoints/{id}", s.checkpointRemove)
}

// experimental registers a handler of what Docker calls experimental: without
// that mode it is refused in Docker's words.
func (s *server) experimental(pattern string, h handler) {
	if !s.Experimental {
		h = func(http.ResponseWriter, *http.Request) error {
			return errdefs.ErrNotImplemented.WithMessage("This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.")
		}
	}
	s.handle(pattern, h)
}

func (s *server) checkpointCreate(w http.ResponseWriter, r *http.Request) error {
	var request checkpoint.CreateRequest
	if err := readJSON(r, &request, false); err != nil {
		return err
	}
	if err := s.Backend.ContainerCheckpoint(r.Context(), r.PathValue("name"), request); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *server) checkpointList(w http.ResponseWriter, r *http.Request) error {
	list, err := s.Backend.ContainerCheckpoints(r.Context(), r.PathValue("name"), r.URL.Query().Get("dir"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *server) checkpointRemove(w http.ResponseWriter, r *http.Request) error {
	err := s.Backend.ContainerCheckpointRemove(r.Context(), r.PathValue("name"), r.PathValue("id"), r.URL.Query().Get("dir"))
	return done(w, true, err)
}
