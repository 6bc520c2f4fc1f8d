package api

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/filter"
)

// fake answers with what a test sets. What is not set is a nil function or a nil
// Backend: calling it panics, which the server turns into a 500 that no test
// expects.
type fake struct {
	Backend

	create  func(name, platform string, req container.CreateRequest) (container.CreateResponse, error)
	start   func(name string) (bool, error)
	stop    func(name string, o StopOptions) (bool, error)
	inspect func(name string, size bool) (container.InspectResponse, error)
	list    func(o ContainerListOptions) ([]container.Summary, error)
	wait    func(name string, condition container.WaitCondition) (func(context.Context) (container.WaitResponse, error), error)
	stats   func(name string) (container.StatsResponse, error)
	logs    func(name string, o LogsOptions) (LogStream, error)
	attach  func(name string, o AttachOptions) (Session, error)
	exec    func(id string, req container.ExecStartRequest) (Session, error)
	stat    func(name, path string) (container.PathStat, error)
	archive func(name, path string) (io.ReadCloser, container.PathStat, error)
	extract func(name, path string, o ExtractOptions, content io.Reader) error
	pull    func(ref, platform string, auth *registry.AuthConfig, out Progress) error
	push    func(ref string, auth *registry.AuthConfig, out Progress) error
	imports func(o ImageImportOptions, in io.Reader, out Progress) error
	images  func() ([]image.Summary, error)
	image   func(name string) (image.InspectResponse, error)
	commit  func(name string, o CommitOptions) (string, error)
	load    func(in io.Reader, platform *ocispec.Platform, out Progress) error
	save    func(names []string, platform *ocispec.Platform) (func(io.Writer) error, error)
	events  func(ctx context.Context, since, until time.Time, f filter.Args, fn func(events.Message) error) error
}

func (f fake) ContainerCreate(_ context.Context, name, platform string, req container.CreateRequest) (container.CreateResponse, error) {
	return f.create(name, platform, req)
}

func (f fake) ContainerStart(_ context.Context, name string, _ StartOptions) (bool, error) {
	return f.start(name)
}

func (f fake) ContainerStop(_ context.Context, name string, o StopOptions) (bool, error) {
	return f.stop(name, o)
}

func (f fake) ContainerInspect(_ context.Context, name string, size bool) (container.InspectResponse, error) {
	return f.inspect(name, size)
}

func (f fake) ContainerList(_ context.Context, o ContainerListOptions) ([]container.Summary, error) {
	return f.list(o)
}

func (f fake) ContainerWait(_ context.Context, name string, condition container.WaitCondition) (func(context.Context) (container.WaitResponse, error), error) {
	return f.wait(name, condition)
}

func (f fake) ContainerStats(_ context.Context, name string) (container.StatsResponse, error) {
	return f.stats(name)
}

func (f fake) ContainerLogs(_ context.Context, name string, o LogsOptions) (LogStream, error) {
	return f.logs(name, o)
}

func (f fake) ContainerAttach(_ context.Context, name string, o AttachOptions) (Session, error) {
	return f.attach(name, o)
}

func (f fake) ExecStart(_ context.Context, id string, req container.ExecStartRequest) (Session, error) {
	return f.exec(id, req)
}

func (f fake) ContainerStatPath(_ context.Context, name, path string) (container.PathStat, error) {
	return f.stat(name, path)
}

func (f fake) ContainerArchive(_ context.Context, name, path string) (io.ReadCloser, container.PathStat, error) {
	return f.archive(name, path)
}

func (f fake) ContainerExtract(_ context.Context, name, path string, o ExtractOptions, content io.Reader) error {
	return f.extract(name, path, o, content)
}

func (f fake) ImagePush(_ context.Context, ref string, platform *ocispec.Platform, auth *registry.AuthConfig, out Progress) error {
	if platform != nil {
		ref += " for " + platforms.Format(*platform)
	}
	return f.push(ref, auth, out)
}

func (f fake) RegistryLogin(_ context.Context, auth *registry.AuthConfig) error {
	if auth.Password != "right" {
		return errdefs.ErrUnauthenticated.WithMessage("unauthorized: incorrect username or password")
	}
	return nil
}

func (f fake) ImagePull(_ context.Context, ref, platform string, auth *registry.AuthConfig, out Progress) error {
	return f.pull(ref, platform, auth, out)
}

func (f fake) ImageList(context.Context, ImageListOptions) ([]image.Summary, error) {
	return f.images()
}

func (f fake) ContainerCommit(_ context.Context, name string, o CommitOptions) (string, error) {
	return f.commit(name, o)
}

func (f fake) ImageImport(_ context.Context, o ImageImportOptions, in io.Reader, out Progress) error {
	return f.imports(o, in, out)
}

func (f fake) ImageInspect(_ context.Context, name string, _ *ocispec.Platform) (image.InspectResponse, error) {
	return f.image(name)
}

func (f fake) ImageSave(_ context.Context, names []string, platform *ocispec.Platform) (func(io.Writer) error, error) {
	return f.save(names, platform)
}

func (f fake) ImageLoad(_ context.Context, in io.Reader, platform *ocispec.Platform, out Progress) error {
	return f.load(in, platform, out)
}

func (f fake) Events(ctx context.Context, since, until time.Time, args filter.Args, fn func(events.Message) error) error {
	return f.events(ctx, since, until, args, fn)
}

func handlerOf(b Backend) http.Handler {
	return New(Options{Backend: b, Log: slog.New(slog.DiscardHandler), Version: "1.2.3"})
}

// listen serves a backend on a real connection, for what streams or is hijacked.
func listen(t *testing.T, b Backend) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handlerOf(b))
	t.Cleanup(server.Close)
	return server
}

// ask makes one request without a connection. A body is sent as JSON.
func ask(t *testing.T, b Backend, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, content)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	handlerOf(b).ServeHTTP(w, r)
	return w
}

// refused fails unless the answer is an error in Docker's form.
func refused(t *testing.T, w *httptest.ResponseRecorder, status int, message string) {
	t.Helper()
	if w.Code != status {
		t.Errorf("status %d, want %d; body %s", w.Code, status, w.Body)
	}
	if kind := w.Header().Get("Content-Type"); kind != "application/json" {
		t.Errorf("an error of type %q", kind)
	}
	var body map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("the error %q is no JSON object of texts: %v", w.Body, err)
	}
	if len(body) != 1 || body["message"] != message {
		t.Errorf("error %q, want the message %q", body, message)
	}
}

// answered decodes an answer of the wanted status.
func answered[T any](t *testing.T, w *httptest.ResponseRecorder, status int) T {
	t.Helper()
	var body T
	if w.Code != status {
		t.Fatalf("status %d, want %d; body %s", w.Code, status, w.Body)
	}
	if kind := w.Header().Get("Content-Type"); kind != "application/json" {
		t.Errorf("content type %q", kind)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("body %q: %v", w.Body, err)
	}
	return body
}

// send posts a body of a content type of the test's own.
func send(t *testing.T, h http.Handler, target, body, kind string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
