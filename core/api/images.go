package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (s *server) imageRoutes() {
	s.handle("GET /images/json", s.imageList)
	s.handle("POST /auth", s.login)
	s.handle("POST /images/create", s.imageCreate)
	s.handle("POST /commit", s.commit)
	s.handle("POST /images/prune", s.imagesPrune)
	s.handle("POST /images/load", s.imageLoad)
	s.handle("GET /images/get", s.imagesSave)
	s.handle("GET /images/search", s.imageSearch)
	s.handle("GET /distribution/{rest...}", s.distribution)
	s.handle("GET /davit/images/diff", s.imageDiff)
	s.handle("GET /davit/images/{rest...}", s.imageTree)
	s.handle("GET /davit/distribution/{rest...}", s.remoteManifest)
	// Names of images have slashes: the operation is the path's end.
	s.handle("GET /images/{rest...}", s.imageGet)
	s.handle("POST /images/{rest...}", s.imagePost)
	s.handle("DELETE /images/{rest...}", s.imageRemove)
}

func (s *server) imageGet(w http.ResponseWriter, r *http.Request) error {
	rest := r.PathValue("rest")
	platform, err := onePlatform(r.URL.Query())
	if err != nil {
		return err
	}
	if name, ok := strings.CutSuffix(rest, "/json"); ok {
		response, err := s.Backend.ImageInspect(r.Context(), name, platform)
		if err != nil {
			return err
		}
		shaped, err := legacyImage(r, response)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, shaped)
	}
	if name, ok := strings.CutSuffix(rest, "/history"); ok {
		history, err := s.Backend.ImageHistory(r.Context(), name, platform)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, history)
	}
	if name, ok := strings.CutSuffix(rest, "/get"); ok {
		return s.save(w, r, []string{name})
	}
	return notImplemented(r)
}

func (s *server) imagePost(w http.ResponseWriter, r *http.Request) error {
	rest := r.PathValue("rest")
	if name, ok := strings.CutSuffix(rest, "/tag"); ok {
		q := r.URL.Query()
		ref := q.Get("repo")
		if tag := q.Get("tag"); tag != "" {
			ref += ":" + tag
		}
		if err := s.Backend.ImageTag(r.Context(), name, ref); err != nil {
			return err
		}
		w.WriteHeader(http.StatusCreated)
		return nil
	}
	if name, ok := strings.CutSuffix(rest, "/push"); ok {
		return s.push(w, r, name)
	}
	return notImplemented(r)
}

// push sends one tag, or without one all of a repository; with a platform only what
// is for that.
func (s *server) push(w http.ResponseWriter, r *http.Request, ref string) error {
	if tag := r.URL.Query().Get("tag"); tag != "" {
		ref += ":" + tag
	}
	platform, err := onePlatform(r.URL.Query())
	if err != nil {
		return err
	}
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	return progressing(w, func(out Progress) error { return s.Backend.ImagePush(r.Context(), ref, platform, auth, out) })
}

// login asks a registry whether it takes credentials, which the client keeps.
func (s *server) login(w http.ResponseWriter, r *http.Request) error {
	var auth registry.AuthConfig
	if err := readJSON(r, &auth, false); err != nil {
		return err
	}
	if err := s.Backend.RegistryLogin(r.Context(), &auth); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, registry.AuthResponse{Status: "Login Succeeded"})
}

func (s *server) imageRemove(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if q.Has("platforms") {
		return errdefs.ErrNotImplemented.WithMessage("davit does not remove single platforms of an image yet")
	}
	deleted, err := s.Backend.ImageRemove(r.Context(), r.PathValue("rest"), flag(q, "force"), flag(q, "noprune"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, deleted)
}

func (s *server) imageList(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	args, err := filters(q)
	if err != nil {
		return err
	}
	list, err := s.Backend.ImageList(r.Context(), ImageListOptions{All: flag(q, "all"), SharedSize: flag(q, "shared-size"), Digests: flag(q, "digests"), Filters: args})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, legacyImages(r, list))
}

// imageCreate pulls, or imports where fromSrc is given.
func (s *server) imageCreate(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if src := q.Get("fromSrc"); src != "" {
		o := ImageImportOptions{Repo: q.Get("repo"), Tag: q.Get("tag"), Message: q.Get("message"), Platform: q.Get("platform"), Changes: q["changes"]}
		if src != "-" {
			o.Source = src
		}
		return progressing(w, func(out Progress) error { return s.Backend.ImageImport(r.Context(), o, r.Body, out) })
	}
	ref, tag := q.Get("fromImage"), q.Get("tag")
	if ref == "" {
		return invalid("fromImage or fromSrc is needed")
	}
	switch {
	case strings.Contains(tag, ":"): // a digest
		ref += "@" + tag
	case tag != "":
		ref += ":" + tag
	}
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	return progressing(w, func(out Progress) error {
		return s.Backend.ImagePull(r.Context(), ref, q.Get("platform"), auth, out)
	})
}

// commit makes an image of a container.
func (s *server) commit(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	name := q.Get("container")
	if name == "" {
		return invalid("container is needed")
	}
	o := CommitOptions{
		Repo: q.Get("repo"), Tag: q.Get("tag"), Author: q.Get("author"), Comment: q.Get("comment"), Changes: q["changes"],
		Pause: q.Get("pause") == "" || flag(q, "pause"),
	}
	if err := readJSON(r, &o.Config, true); err != nil {
		return err
	}
	id, err := s.Backend.ContainerCommit(r.Context(), name, o)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.CommitResponse{ID: id})
}

func registryAuth(r *http.Request) (*registry.AuthConfig, error) {
	header := r.Header.Get(registry.AuthHeader)
	if header == "" {
		return nil, nil
	}
	auth, err := authconfig.Decode(header)
	if err != nil {
		return nil, invalid("header %s: %v", registry.AuthHeader, err)
	}
	return auth, nil
}

func (s *server) imagesPrune(w http.ResponseWriter, r *http.Request) error {
	args, err := filters(r.URL.Query())
	if err != nil {
		return err
	}
	report, err := s.Backend.ImagesPrune(r.Context(), args)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

// imageLoad has no progress to be quiet about: each image is one line.
func (s *server) imageLoad(w http.ResponseWriter, r *http.Request) error {
	platform, err := onePlatform(r.URL.Query())
	if err != nil {
		return err
	}
	return progressing(w, func(out Progress) error { return s.Backend.ImageLoad(r.Context(), r.Body, platform, out) })
}

// onePlatform reads the platform of API 1.48, which is JSON; nil for none.
func onePlatform(q url.Values) (*ocispec.Platform, error) {
	switch given := q["platform"]; {
	case len(given) == 0 || len(given) == 1 && given[0] == "":
		return nil, nil
	case len(given) > 1:
		return nil, invalid("more than one platform is not supported")
	}
	var p ocispec.Platform
	if err := json.Unmarshal([]byte(q.Get("platform")), &p); err != nil {
		return nil, invalid("failed to parse platform: %v", err)
	}
	if p.OS == "" || p.Architecture == "" {
		return nil, invalid("both OS and Architecture must be provided")
	}
	return &p, nil
}

func (s *server) imagesSave(w http.ResponseWriter, r *http.Request) error {
	names := r.URL.Query()["names"]
	if len(names) == 0 {
		return invalid("no image names given")
	}
	return s.save(w, r, names)
}

// save finds all images before the answer begins, so that an unknown one has its
// status.
func (s *server) save(w http.ResponseWriter, r *http.Request, names []string) error {
	platform, err := onePlatform(r.URL.Query())
	if err != nil {
		return err
	}
	write, err := s.Backend.ImageSave(r.Context(), names, platform)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	return write(w)
}
