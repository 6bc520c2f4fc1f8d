package api

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/davit-engine/davit/core/filter"
)

func (s *server) containerRoutes() {
	s.handle("GET /containers/json", s.containerList)
	s.handle("POST /containers/create", s.containerCreate)
	s.handle("POST /containers/prune", s.containersPrune)
	s.handle("GET /containers/{name}/json", s.containerInspect)
	s.handle("POST /containers/{name}/start", s.containerStart)
	s.handle("POST /containers/{name}/stop", s.containerStop)
	s.handle("POST /containers/{name}/restart", s.containerRestart)
	s.handle("POST /containers/{name}/kill", s.containerKill)
	s.handle("POST /containers/{name}/pause", s.containerPause)
	s.handle("POST /containers/{name}/unpause", s.containerUnpause)
	s.handle("POST /containers/{name}/wait", s.containerWait)
	s.handle("POST /containers/{name}/resize", s.containerResize)
	s.handle("POST /containers/{name}/rename", s.containerRename)
	s.handle("POST /containers/{name}/update", s.containerUpdate)
	s.handle("POST /davit/containers/{name}/ports", s.containerPublish)
	s.handle("DELETE /containers/{name}", s.containerRemove)
	s.handle("GET /containers/{name}/top", s.containerTop)
	s.handle("GET /containers/{name}/changes", s.containerChanges)
	s.handle("POST /containers/{name}/exec", s.execCreate)
	s.handle("GET /exec/{id}/json", s.execInspect)
	s.handle("POST /exec/{id}/resize", s.execResize)
}

func (s *server) containerList(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	args, err := filters(q)
	if err != nil {
		return err
	}
	limit, err := number(q, "limit", 0)
	if err != nil {
		return err
	}
	if limit < 0 {
		limit = 0
	}
	// "since" and "before" were parameters of their own in older versions.
	for _, name := range []string{"since", "before"} {
		if value := q.Get(name); value != "" {
			if args == nil {
				args = filter.Args{}
			}
			args[name] = append(args[name], value)
		}
	}
	list, err := s.Backend.ContainerList(r.Context(), ContainerListOptions{All: flag(q, "all"), Size: flag(q, "size"), Limit: limit, Filters: args})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *server) containerCreate(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	var req struct {
		container.CreateRequest
		MacAddress string // in Config before API 1.44
	}
	if err := readJSON(r, &req, false); err != nil {
		return err
	}
	if req.Config == nil || req.Config.Image == "" && len(req.Config.Cmd) == 0 {
		return invalid("config cannot be empty in order to create a container")
	}
	if err := legacyMAC(&req.CreateRequest, req.MacAddress); err != nil {
		return err
	}
	response, err := s.Backend.ContainerCreate(r.Context(), q.Get("name"), q.Get("platform"), req.CreateRequest)
	if err != nil {
		return err
	}
	if response.Warnings == nil {
		response.Warnings = []string{}
	}
	return writeJSON(w, http.StatusCreated, response)
}

func (s *server) containersPrune(w http.ResponseWriter, r *http.Request) error {
	args, err := filters(r.URL.Query())
	if err != nil {
		return err
	}
	report, err := s.Backend.ContainersPrune(r.Context(), args)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

func (s *server) containerInspect(w http.ResponseWriter, r *http.Request) error {
	response, err := s.Backend.ContainerInspect(r.Context(), r.PathValue("name"), flag(r.URL.Query(), "size"))
	if err != nil {
		return err
	}
	body, err := legacyInspect(response)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, body)
}

// done answers an operation without content: 204, or 304 where nothing had to be
// done.
func done(w http.ResponseWriter, changed bool, err error) error {
	if err != nil {
		return err
	}
	if !changed {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) containerStart(w http.ResponseWriter, r *http.Request) error {
	o := StartOptions{Checkpoint: r.URL.Query().Get("checkpoint"), CheckpointDir: r.URL.Query().Get("checkpoint-dir")}
	if o.Checkpoint != "" && !s.Experimental {
		return errdefs.ErrInvalidArgument.WithMessage("checkpoint is only supported in experimental mode")
	}
	started, err := s.Backend.ContainerStart(r.Context(), r.PathValue("name"), o)
	return done(w, started, err)
}

func stopOptions(r *http.Request) (StopOptions, error) {
	q := r.URL.Query()
	o := StopOptions{Signal: q.Get("signal")}
	if q.Get("t") != "" {
		seconds, err := number(q, "t", 0)
		if err != nil {
			return o, err
		}
		o.Timeout = &seconds
	}
	return o, nil
}

func (s *server) containerStop(w http.ResponseWriter, r *http.Request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	stopped, err := s.Backend.ContainerStop(r.Context(), r.PathValue("name"), o)
	return done(w, stopped, err)
}

func (s *server) containerRestart(w http.ResponseWriter, r *http.Request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	return done(w, true, s.Backend.ContainerRestart(r.Context(), r.PathValue("name"), o))
}

func (s *server) containerKill(w http.ResponseWriter, r *http.Request) error {
	return done(w, true, s.Backend.ContainerKill(r.Context(), r.PathValue("name"), r.URL.Query().Get("signal")))
}

func (s *server) containerPause(w http.ResponseWriter, r *http.Request) error {
	return done(w, true, s.Backend.ContainerPause(r.Context(), r.PathValue("name")))
}

func (s *server) containerUnpause(w http.ResponseWriter, r *http.Request) error {
	return done(w, true, s.Backend.ContainerUnpause(r.Context(), r.PathValue("name")))
}

// containerWait sends its header as soon as the wait is registered: clients
// start the container then.
func (s *server) containerWait(w http.ResponseWriter, r *http.Request) error {
	wait, err := s.Backend.ContainerWait(r.Context(), r.PathValue("name"), container.WaitCondition(r.URL.Query().Get("condition")))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	response, err := wait(r.Context())
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(response)
}

// size reads the query values h and w.
func size(r *http.Request) (width, height uint16, err error) {
	q := r.URL.Query()
	h, err := number(q, "h", 0)
	if err != nil {
		return 0, 0, err
	}
	w, err := number(q, "w", 0)
	if err != nil {
		return 0, 0, err
	}
	if h < 0 || w < 0 || h > 1<<16-1 || w > 1<<16-1 {
		return 0, 0, invalid("terminal size %dx%d is out of range", w, h)
	}
	return uint16(w), uint16(h), nil
}

func (s *server) containerResize(w http.ResponseWriter, r *http.Request) error {
	width, height, err := size(r)
	if err != nil {
		return err
	}
	if err := s.Backend.ContainerResize(r.Context(), r.PathValue("name"), width, height); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *server) containerRename(w http.ResponseWriter, r *http.Request) error {
	return done(w, true, s.Backend.ContainerRename(r.Context(), r.PathValue("name"), r.URL.Query().Get("name")))
}

func (s *server) containerUpdate(w http.ResponseWriter, r *http.Request) error {
	var update container.UpdateConfig
	if err := readJSON(r, &update, false); err != nil {
		return err
	}
	response, err := s.Backend.ContainerUpdate(r.Context(), r.PathValue("name"), update)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, response)
}

// containerPublish is davit's own: in Docker, ports are fixed at creation.
func (s *server) containerPublish(w http.ResponseWriter, r *http.Request) error {
	var req struct{ PortBindings network.PortMap }
	if err := readJSON(r, &req, false); err != nil {
		return err
	}
	ports, err := s.Backend.ContainerPublish(r.Context(), r.PathValue("name"), req.PortBindings)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]network.PortMap{"Ports": ports})
}

func (s *server) containerRemove(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	return done(w, true, s.Backend.ContainerRemove(r.Context(), r.PathValue("name"), ContainerRemoveOptions{Volumes: flag(q, "v"), Links: flag(q, "link"), Force: flag(q, "force")}))
}

func (s *server) containerTop(w http.ResponseWriter, r *http.Request) error {
	top, err := s.Backend.ContainerTop(r.Context(), r.PathValue("name"), r.URL.Query().Get("ps_args"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, top)
}

func (s *server) containerChanges(w http.ResponseWriter, r *http.Request) error {
	changes, err := s.Backend.ContainerChanges(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, changes)
}

func (s *server) execCreate(w http.ResponseWriter, r *http.Request) error {
	var req container.ExecCreateRequest
	if err := readJSON(r, &req, false); err != nil {
		return err
	}
	id, err := s.Backend.ExecCreate(r.Context(), r.PathValue("name"), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.ExecCreateResponse{ID: id})
}

func (s *server) execInspect(w http.ResponseWriter, r *http.Request) error {
	response, err := s.Backend.ExecInspect(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, response)
}

func (s *server) execResize(w http.ResponseWriter, r *http.Request) error {
	width, height, err := size(r)
	if err != nil {
		return err
	}
	if err := s.Backend.ExecResize(r.Context(), r.PathValue("id"), width, height); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// statsPause is the pace of streamed stats.
const statsPause = time.Second
