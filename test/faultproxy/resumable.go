package faultproxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// Resumable adds to a registry in this process that it says how much it has of an
// upload, as the OCI distribution specification wants. The registry must keep what
// came of a body that broke off.
func Resumable(registry http.Handler) http.Handler {
	return &resumable{Handler: registry, has: map[string]int64{}}
}

type resumable struct {
	http.Handler
	mu  sync.Mutex
	has map[string]int64 // by the upload's path
}

// ServeHTTP implements http.Handler.
func (r *resumable) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if !strings.Contains(request.URL.Path, "/blobs/uploads/") {
		r.Handler.ServeHTTP(w, request)
		return
	}
	switch request.Method {
	case http.MethodGet:
		r.mu.Lock()
		has := r.has[request.URL.Path]
		r.mu.Unlock()
		w.Header().Set("Location", request.URL.Path)
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, has-1)))
		w.WriteHeader(http.StatusNoContent)
		return
	case http.MethodPatch:
		request.Body = &counted{request.Body, r, request.URL.Path}
	}
	r.Handler.ServeHTTP(w, request)
}

type counted struct {
	io.ReadCloser
	*resumable
	path string
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.has[c.path] += int64(n)
	return n, err
}
