package api

import (
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"

	"github.com/davit-engine/davit/core/filter"
)

func (s *server) volumeRoutes() {
	s.handle("GET /volumes", s.volumeList)
	s.handle("GET /volumes/{name}", s.volumeInspect)
	s.handle("POST /volumes/create", s.volumeCreate)
	s.handle("POST /volumes/prune", s.volumesPrune)
	s.handle("DELETE /volumes/{name}", s.volumeRemove)
	s.handle("PUT /volumes/{name}", s.volumeUpdate)
	s.handle("POST /davit/volumes/{name}/clone", s.volumeClone)
	s.handle("POST /davit/volumes/{name}/rename", s.volumeRename)
	s.handle("POST /davit/volumes/{name}/resize", s.volumeResize)
}

func (s *server) volumeList(w http.ResponseWriter, r *http.Request) error {
	args, err := filters(r.URL.Query())
	if err != nil {
		return err
	}
	list, err := s.Backend.VolumeList(r.Context(), args)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *server) volumeInspect(w http.ResponseWriter, r *http.Request) error {
	v, err := s.Backend.VolumeInspect(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

func (s *server) volumeCreate(w http.ResponseWriter, r *http.Request) error {
	var req volume.CreateRequest
	if err := readJSON(r, &req, true); err != nil {
		return err
	}
	v, err := s.Backend.VolumeCreate(r.Context(), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, v)
}

func (s *server) volumesPrune(w http.ResponseWriter, r *http.Request) error {
	args, err := filters(r.URL.Query())
	if err != nil {
		return err
	}
	if before(r, "1.42") {
		// Named and anonymous volumes were not told apart.
		if args == nil {
			args = filter.Args{}
		}
		args["all"] = []string{"true"}
	}
	report, err := s.Backend.VolumesPrune(r.Context(), args)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

func (s *server) volumeRemove(w http.ResponseWriter, r *http.Request) error {
	return done(w, true, s.Backend.VolumeRemove(r.Context(), r.PathValue("name"), flag(r.URL.Query(), "force")))
}

// volumeUpdate changes cluster volumes, and nothing else, in Docker.
func (s *server) volumeUpdate(http.ResponseWriter, *http.Request) error {
	return errdefs.ErrUnavailable.WithMessage("volume update only valid for cluster volumes, but swarm is unavailable")
}

// volumeClone is davit's own, like the two that follow.
func (s *server) volumeClone(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		Name   string
		Labels map[string]string
		Force  bool
	}
	if err := readJSON(r, &req, false); err != nil {
		return err
	}
	v, err := s.Backend.VolumeClone(r.Context(), r.PathValue("name"), req.Name, req.Labels, req.Force)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, v)
}

func (s *server) volumeRename(w http.ResponseWriter, r *http.Request) error {
	var req struct{ Name string }
	if err := readJSON(r, &req, false); err != nil {
		return err
	}
	v, err := s.Backend.VolumeRename(r.Context(), r.PathValue("name"), req.Name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

func (s *server) volumeResize(w http.ResponseWriter, r *http.Request) error {
	var req struct{ Size *int64 }
	if err := readJSON(r, &req, false); err != nil {
		return err
	}
	if req.Size == nil {
		return invalid("Size is required: bytes, 0 for no limit")
	}
	v, err := s.Backend.VolumeResize(r.Context(), r.PathValue("name"), *req.Size)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}
