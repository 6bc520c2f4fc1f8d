// Package api serves the Docker Engine API: one handler decodes a request, makes
// one call to the backend and encodes its answer. What davit does not do yet
// answers 501 with its name.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
)

// Versions of the Docker Engine API that are spoken.
const (
	maxVersion = "1.51"
	minVersion = "1.40"
)

// Options are what a server is made of.
type Options struct {
	Backend Backend
	Log     *slog.Logger
	Version string // of davit, for the Server header
	// Experimental serves what Docker calls so.
	Experimental bool
}

type server struct {
	Options
	mux *http.ServeMux
}

// New makes the API's handler.
func New(o Options) http.Handler {
	s := &server{Options: o, mux: http.NewServeMux()}
	s.systemRoutes()
	s.containerRoutes()
	s.streamRoutes()
	s.imageRoutes()
	s.networkRoutes()
	s.volumeRoutes()
	s.checkpointRoutes()
	s.missingRoutes()
	return s
}

// handler answers a request or says why not; an error becomes a JSON message
// with the status of its kind.
type handler func(w http.ResponseWriter, r *http.Request) error

// handle registers a handler for a method and a path without version.
func (s *server) handle(pattern string, h handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.fail(w, r, err)
		}
	})
}

var versioned = regexp.MustCompile(`^/v([0-9]+\.[0-9]+)(/.*)$`)

type versionKey struct{}

// ServeHTTP takes the version off the path and never lets a panic end the
// engine.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Api-Version", maxVersion)
	head.Set("Docker-Experimental", strconv.FormatBool(s.Experimental))
	head.Set("Ostype", "linux")
	head.Set("Server", "davit/"+s.Version+" (linux)")
	tracked := &response{ResponseWriter: w}
	defer func() {
		if p := recover(); p == http.ErrAbortHandler { //nolint:errorlint // the very value net/http documents
			panic(p)
		} else if p != nil {
			s.Log.Error("panic in an API handler", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			if !tracked.begun {
				writeError(tracked, http.StatusInternalServerError, "internal error: see the engine's log")
			}
		}
	}()
	version := maxVersion
	if parts := versioned.FindStringSubmatch(r.URL.Path); parts != nil {
		version = parts[1]
		if less(version, minVersion) {
			writeError(tracked, http.StatusBadRequest, fmt.Sprintf("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", version, minVersion))
			return
		}
		if less(maxVersion, version) {
			writeError(tracked, http.StatusBadRequest, fmt.Sprintf("client version %s is too new. Maximum supported API version is %s", version, maxVersion))
			return
		}
		r.URL.Path = parts[2]
		r.URL.RawPath = ""
	}
	s.mux.ServeHTTP(tracked, r.WithContext(context.WithValue(r.Context(), versionKey{}, version)))
}

// before says whether the client speaks an API older than version.
func before(r *http.Request, version string) bool {
	spoken, _ := r.Context().Value(versionKey{}).(string)
	return less(spoken, version)
}

// less compares two versions "major.minor".
func less(a, b string) bool {
	am, an, _ := strings.Cut(a, ".")
	bm, bn, _ := strings.Cut(b, ".")
	if am != bm {
		return atoi(am) < atoi(bm)
	}
	return atoi(an) < atoi(bn)
}

func atoi(s string) int { n, _ := strconv.Atoi(s); return n }

// response remembers whether the answer has begun: after that an error cannot
// change the status any more.
type response struct {
	http.ResponseWriter
	begun bool
}

func (r *response) WriteHeader(status int) {
	r.begun = true
	r.ResponseWriter.WriteHeader(status)
}

func (r *response) Write(p []byte) (int, error) {
	r.begun = true
	return r.ResponseWriter.Write(p)
}

// Flush sends what is buffered.
func (r *response) Flush() {
	r.begun = true
	if f, ok := r.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// fail answers an error.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	if status >= http.StatusInternalServerError && !errors.Is(err, context.Canceled) {
		s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	if tracked, ok := w.(*response); ok && tracked.begun {
		// Too late to say so: the connection breaks, so that a part is not taken for
		// the whole.
		panic(http.ErrAbortHandler)
	}
	writeError(w, status, err.Error())
}
