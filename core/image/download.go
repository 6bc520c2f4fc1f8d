package image

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
)

// maxRefusal bounds what is shown of a server's refusal.
const maxRefusal = 4 << 10

// download opens what is at a URL, which is HTTP's if it does not say. The server's
// refusal is an error of its kind.
func download(ctx context.Context, source string, out *progress) (io.ReadCloser, error) {
	address := source
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage(err.Error())
	}
	if request.URL.Scheme != "http" && request.URL.Scheme != "https" || request.URL.Host == "" {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("cannot import from %q: it is neither - nor an HTTP address", source))
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, errdefs.ErrUnavailable.WithMessage(err.Error()) // it has the URL
	}
	if response.StatusCode < http.StatusBadRequest {
		out.say("", "Downloading from "+address)
		return struct {
			io.Reader
			io.Closer
		}{out.meter("", "Importing", response.ContentLength, response.Body), response.Body}, nil
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxRefusal)) // the status says it as well
	text := fmt.Sprintf("failed to GET %s with status %s: %s", address, response.Status, strings.TrimSpace(string(body)))
	switch response.StatusCode {
	case http.StatusNotFound:
		return nil, errdefs.ErrNotFound.WithMessage(text)
	case http.StatusBadRequest:
		return nil, errdefs.ErrInvalidArgument.WithMessage(text)
	case http.StatusUnauthorized:
		return nil, errdefs.ErrUnauthenticated.WithMessage(text)
	case http.StatusForbidden:
		return nil, errdefs.ErrPermissionDenied.WithMessage(text)
	}
	return nil, errdefs.ErrUnavailable.WithMessage(text)
}
