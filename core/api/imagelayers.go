package api

import (
	"net/http"
	"strings"
)

// imageTree is davit's own: what the layers of an image change.
func (s *server) imageTree(w http.ResponseWriter, r *http.Request) error {
	name, ok := strings.CutSuffix(r.PathValue("rest"), "/tree")
	if !ok {
		return notFound()
	}
	tree, err := s.Backend.ImageTree(r.Context(), name, flag(r.URL.Query(), "files"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, tree)
}

// imageDiff is davit's own: in what two images differ.
func (s *server) imageDiff(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if q.Get("from") == "" || q.Get("to") == "" {
		return invalid("from and to are needed")
	}
	difference, err := s.Backend.ImageDiff(r.Context(), q.Get("from"), q.Get("to"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, difference)
}
