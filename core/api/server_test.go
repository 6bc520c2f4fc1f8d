package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

func TestVersionsAreTakenFromThePath(t *testing.T) {
	tooOld := "client version %s is too old. Minimum supported API version is 1.40, please upgrade your client to a newer version"
	tooNew := "client version %s is too new. Maximum supported API version is 1.51"
	for path, want := range map[string]struct {
		status  int
		message string
	}{
		"/_ping":       {status: http.StatusOK},
		"/v1.40/_ping": {status: http.StatusOK},
		"/v1.41/_ping": {status: http.StatusOK},
		"/v1.51/_ping": {status: http.StatusOK},
		"/v1.39/_ping": {http.StatusBadRequest, fmt.Sprintf(tooOld, "1.39")},
		// 1.9 is older than 1.40, and 1.100 newer: the parts are numbers.
		"/v1.9/_ping":   {http.StatusBadRequest, fmt.Sprintf(tooOld, "1.9")},
		"/v0.99/_ping":  {http.StatusBadRequest, fmt.Sprintf(tooOld, "0.99")},
		"/v1.52/_ping":  {http.StatusBadRequest, fmt.Sprintf(tooNew, "1.52")},
		"/v1.100/_ping": {http.StatusBadRequest, fmt.Sprintf(tooNew, "1.100")},
		"/v2.0/_ping":   {http.StatusBadRequest, fmt.Sprintf(tooNew, "2.0")},
		"/v99999999999999999999.1/_ping": {
			http.StatusBadRequest, fmt.Sprintf(tooNew, "99999999999999999999.1"),
		},
		// The version is checked before the route.
		"/v1.99/nosuch": {http.StatusBadRequest, fmt.Sprintf(tooNew, "1.99")},
		"/v1/_ping":     {http.StatusNotFound, "page not found"},
		"/vx.y/_ping":   {http.StatusNotFound, "page not found"},
		"/v1.41":        {http.StatusNotFound, "page not found"},
	} {
		t.Run(path, func(t *testing.T) {
			w := ask(t, fake{}, http.MethodGet, path, "")
			if want.message != "" {
				refused(t, w, want.status, want.message)
			} else if w.Code != want.status {
				t.Errorf("status %d, want %d; body %s", w.Code, want.status, w.Body)
			}
			// A client that was refused learns from this what to speak instead.
			if got := w.Header().Get("Api-Version"); got != "1.51" {
				t.Errorf("Api-Version is %q", got)
			}
		})
	}
}

func TestPingTellsWhatTheEngineSpeaks(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		t.Run(method, func(t *testing.T) {
			w := ask(t, fake{}, method, "/_ping", "")
			if w.Code != http.StatusOK {
				t.Fatalf("status %d", w.Code)
			}
			for name, want := range map[string]string{
				"Api-Version": "1.51", "Ostype": "linux", "Docker-Experimental": "false", "Server": "davit/1.2.3 (linux)",
				"Builder-Version": "1", "Swarm": "inactive", "Content-Type": "text/plain; charset=utf-8",
				"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache",
			} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			body := map[string]string{http.MethodGet: "OK", http.MethodHead: ""}[method]
			if w.Body.String() != body {
				t.Errorf("body %q, want %q", w.Body, body)
			}
		})
	}
}

func TestDockersOwnClientAgreesOnAVersion(t *testing.T) {
	server := listen(t, fake{start: func(string) (bool, error) { return true, nil }})
	docker, err := client.New(client.WithHost("tcp://" + server.Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = docker.Close() }()
	ping, err := docker.Ping(context.Background(), client.PingOptions{NegotiateAPIVersion: true})
	if err != nil {
		t.Fatal(err)
	}
	if ping.APIVersion != "1.51" || ping.OSType != "linux" || ping.Experimental {
		t.Errorf("the client read %+v", ping)
	}
	if got := docker.ClientVersion(); got != "1.51" {
		t.Errorf("the client speaks %s", got)
	}
	if _, err := docker.ContainerStart(context.Background(), "web", client.ContainerStartOptions{}); err != nil {
		t.Error(err)
	}
}

func TestTheKindOfAnErrorIsItsStatus(t *testing.T) {
	for _, c := range []struct {
		kind   error
		status int
	}{
		{errdefs.ErrInvalidArgument, http.StatusBadRequest},
		{errdefs.ErrNotFound, http.StatusNotFound},
		{errdefs.ErrConflict, http.StatusConflict},
		{errdefs.ErrAlreadyExists, http.StatusConflict},
		{errdefs.ErrFailedPrecondition, http.StatusConflict},
		{errdefs.ErrUnauthenticated, http.StatusUnauthorized},
		{errdefs.ErrPermissionDenied, http.StatusForbidden},
		{errdefs.ErrNotImplemented, http.StatusNotImplemented},
		{errdefs.ErrUnavailable, http.StatusServiceUnavailable},
		{context.DeadlineExceeded, http.StatusServiceUnavailable},
		{errdefs.ErrResourceExhausted, http.StatusInsufficientStorage},
		{errdefs.ErrInternal, http.StatusInternalServerError},
		{errors.New("of no kind"), http.StatusInternalServerError},
	} {
		t.Run(c.kind.Error(), func(t *testing.T) {
			err := fmt.Errorf("starting container <web> & more: %w", c.kind)
			w := ask(t, fake{start: func(string) (bool, error) { return false, err }}, http.MethodPost, "/containers/web/start", "")
			refused(t, w, c.status, err.Error())
		})
	}
}

func TestOnlyTheEnginesOwnFaultsAreLogged(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		logged bool
	}{
		"a wrong request":       {errdefs.ErrNotFound.WithMessage("No such container: web"), false},
		"a fault of the engine": {errors.New("the disk is on fire"), true},
		"a client that left":    {fmt.Errorf("starting: %w", context.Canceled), false},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			h := New(Options{Backend: fake{start: func(string) (bool, error) { return false, c.err }}, Log: slog.New(slog.NewTextHandler(&log, nil))})
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/containers/web/start", nil))
			if logged := strings.Contains(log.String(), c.err.Error()); logged != c.logged {
				t.Errorf("logged is %v, want %v; log: %s", logged, c.logged, &log)
			}
		})
	}
}

func TestAPanicIsAnErrorOfOneRequest(t *testing.T) {
	var log bytes.Buffer
	h := New(Options{Backend: fake{start: func(string) (bool, error) { panic("oh no") }}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1.41/containers/web/start", nil))
	// The client is not shown the inside of the engine, its log is.
	refused(t, w, http.StatusInternalServerError, "internal error: see the engine's log")
	if !strings.Contains(log.String(), "oh no") || !strings.Contains(log.String(), "server_test.go") {
		t.Errorf("the log does not say what happened where: %s", &log)
	}
}

func TestAnUnknownRouteIsNoPage(t *testing.T) {
	for _, request := range []string{
		"GET /", "GET /nosuch", "GET /v1.41/nosuch", "POST /containers/web/nosuch", "GET /containers/web/start/more",
		"PUT /containers/json", "DELETE /info", "PATCH /_ping",
	} {
		t.Run(request, func(t *testing.T) {
			method, path, _ := strings.Cut(request, " ")
			refused(t, ask(t, fake{}, method, path, ""), http.StatusNotFound, "page not found")
		})
	}
}

// A client that asks for the state of a checkpoint must not get a fresh program.
func TestACheckpointIsNotPassedOver(t *testing.T) {
	refused(t, ask(t, fake{}, "POST", "/containers/web/start?checkpoint=one", ""), http.StatusBadRequest, "checkpoint is only supported in experimental mode")
	for _, request := range []string{"GET /containers/web/checkpoints", "POST /containers/web/checkpoints", "DELETE /containers/web/checkpoints/one"} {
		method, path, _ := strings.Cut(request, " ")
		refused(t, ask(t, fake{}, method, path, ""), http.StatusNotImplemented, "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.")
	}
}

func TestWhatIsMissingSaysSoByName(t *testing.T) {
	for _, request := range []string{
		"POST /build", "POST /build/prune", "POST /session",
		"GET /containers/web/attach/ws", "GET /swarm", "POST /swarm/init", "GET /nodes", "GET /services/web",
		"GET /tasks", "GET /secrets", "POST /configs/create", "GET /plugins", "GET /plugins/x/json", "GET /images/alpine/nosuch",
	} {
		t.Run(request, func(t *testing.T) {
			method, path, _ := strings.Cut(request, " ")
			want := "davit does not implement " + request + " yet"
			refused(t, ask(t, fake{}, method, path, ""), http.StatusNotImplemented, want)
			// The name is that of the endpoint, without the version that was spoken.
			refused(t, ask(t, fake{}, method, "/v1.44"+path, ""), http.StatusNotImplemented, want)
		})
	}
}
