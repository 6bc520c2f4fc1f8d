package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/davit-engine/davit/core/event"
	"github.com/davit-engine/davit/core/filter"
)

// maxBody bounds JSON bodies.
const maxBody = 8 << 20

// statusOf is the one place where kinds of errors become HTTP statuses.
func statusOf(err error) int {
	switch {
	case errdefs.IsInvalidArgument(err):
		return http.StatusBadRequest
	case errdefs.IsNotFound(err):
		return http.StatusNotFound
	case errdefs.IsConflict(err), errdefs.IsAlreadyExists(err), errdefs.IsFailedPrecondition(err):
		return http.StatusConflict
	case errdefs.IsUnauthorized(err):
		return http.StatusUnauthorized
	case errdefs.IsPermissionDenied(err):
		return http.StatusForbidden
	case errdefs.IsNotImplemented(err):
		return http.StatusNotImplemented
	case errdefs.IsUnavailable(err), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable
	case errdefs.IsResourceExhausted(err):
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}

func writeError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}

// writeJSON answers with a status and a value.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err = w.Write(body)
	return err
}

// encode is JSON without escaping what HTML would need.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// readJSON decodes a request's body, which has to be one JSON object. An empty
// body leaves v as it is where that is allowed.
func readJSON(r *http.Request, v any, emptyAllowed bool) error {
	if r.Body == nil || r.ContentLength == 0 {
		if emptyAllowed {
			return nil
		}
		return invalid("invalid JSON: got EOF while reading request body")
	}
	if kind := r.Header.Get("Content-Type"); kind != "" {
		if media, _, err := mime.ParseMediaType(kind); err != nil || media != "application/json" {
			return invalid("unsupported Content-Type header (%s): must be 'application/json'", kind)
		}
	}
	decoder := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	if err := decoder.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			if emptyAllowed {
				return nil
			}
			return invalid("invalid JSON: got EOF while reading request body")
		}
		return invalid("invalid JSON: %v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return invalid("unexpected content after JSON")
	}
	return nil
}

// flag reads a boolean query value by Docker's rule: anything but these is true.
func flag(q url.Values, name string) bool {
	switch strings.ToLower(strings.TrimSpace(q.Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// number reads an integer query value.
func number(q url.Values, name string, def int) (int, error) {
	s := q.Get(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, invalid("invalid value %q for %s: not a number", s, name)
	}
	return n, nil
}

// moment reads a time query value.
func moment(q url.Values, name string) (time.Time, error) {
	s := q.Get(name)
	if s == "" || s == "0" {
		return time.Time{}, nil
	}
	t, err := event.ParseTime(s)
	if err != nil {
		return t, invalid("invalid value %q for %s: %v", s, name, err)
	}
	return t, nil
}

func filters(q url.Values) (filter.Args, error) { return filter.Parse(q.Get("filters")) }

// stream answers JSON messages as they come. The status is 200 as soon as the
// first is sent; an error before that has its own status, a later one is a
// message.
type stream struct {
	w http.ResponseWriter
}

func (s stream) send(v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	if s.w.Header().Get("Content-Type") == "" {
		s.w.Header().Set("Content-Type", "application/json")
	}
	if _, err := s.w.Write(body); err != nil {
		return err
	}
	if f, ok := s.w.(http.Flusher); ok {
		f.Flush()
	}
	return nil
}

func (s stream) progress(m jsonstream.Message) error { return s.send(legacyMessage{m, errorText(m)}) }

// legacyMessage adds the "error" text beside "errorDetail" that clients before
// API 1.52 read.
type legacyMessage struct {
	jsonstream.Message
	Error string `json:"error,omitempty"`
}

func errorText(m jsonstream.Message) string {
	if m.Error != nil {
		return m.Error.Message
	}
	return ""
}

// progressing runs a long operation that reports its progress.
func progressing(w http.ResponseWriter, do func(Progress) error) error {
	out := stream{w}
	err := do(out.progress)
	if err == nil {
		return nil
	}
	if tracked, ok := w.(*response); ok && tracked.begun {
		return out.progress(jsonstream.Message{Error: &jsonstream.Error{Code: statusOf(err), Message: err.Error()}})
	}
	return err
}
