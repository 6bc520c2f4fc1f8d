package api

import (
	"net/http"

	"github.com/moby/moby/api/types/network"
)

func (s *server) networkRoutes() {
	s.handle("GET /networks", s.networkList)
	s.handle("GET /networks/{name}", s.networkInspect)
	s.handle("POST /networks/create", s.networkCreate)
	s.handle("POST /networks/prune", s.networksPrune)
	s.handle("POST /networks/{name}/connect", s.networkConnect)
	s.handle("POST /networks/{name}/disconnect", s.networkDisconnect)
	s.handle("DELETE /networks/{name}", s.networkRemove)
}

func (s *server) networkList(w http.ResponseWriter, r *http.Request) error {
	args, err := filters(r.URL.Query())
	if err != nil {
		return err
	}
	list, err := s.Backend.NetworkList(r.Context(), args)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *server) networkInspect(w http.ResponseWriter, r *http.Request) error {
	response, err := s.Backend.NetworkInspect(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, response)
}

func (s *server) networkCreate(w http.ResponseWriter, r *http.Request) error {
	var req network.CreateRequest
	if err := readJSON(r, &req, false); err != nil {
		return err
	}
	response, err := s.Backend.NetworkCreate(r.Context(), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, response)
}

func (s *server) networksPrune(w http.ResponseWriter, r *http.Request) error {
	args, err := filters(r.URL.Query())
	if err != nil {
		return err
	}
	report, err := s.Backend.NetworksPrune(r.Context(), args)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

func (s *server) networkConnect(w http.ResponseWriter, r *http.Request) error {
	var req network.ConnectRequest
	if err := readJSON(r, &req, false); err != nil {
		return err
	}
	if err := s.Backend.NetworkConnect(r.Context(), r.PathValue("name"), req); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *server) networkDisconnect(w http.ResponseWriter, r *http.Request) error {
	var req network.DisconnectRequest
	if err := readJSON(r, &req, false); err != nil {
		return err
	}
	if err := s.Backend.NetworkDisconnect(r.Context(), r.PathValue("name"), req); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *server) networkRemove(w http.ResponseWriter, r *http.Request) error {
	return done(w, true, s.Backend.NetworkRemove(r.Context(), r.PathValue("name")))
}
