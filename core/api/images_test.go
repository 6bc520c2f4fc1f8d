package api

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestAPullReportsItsProgress(t *testing.T) {
	b := fake{pull: func(_, _ string, _ *registry.AuthConfig, out Progress) error {
		if err := out(jsonstream.Message{ID: "abc", Status: "Downloading", Progress: &jsonstream.Progress{Current: 1, Total: 2}}); err != nil {
			return err
		}
		return out(jsonstream.Message{Status: "Status: Downloaded newer image for <alpine>"})
	}}
	w := ask(t, b, http.MethodPost, "/images/create?fromImage=alpine", "")
	want := `{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"abc"}` + "\n" +
		`{"status":"Status: Downloaded newer image for <alpine>"}` + "\n"
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" || w.Body.String() != want {
		t.Errorf("answer %d %v\n%s", w.Code, w.Header(), w.Body)
	}
}

// The client of a long pull has to see each line when it is written.
func TestProgressArrivesWhileThePullGoesOn(t *testing.T) {
	seen := make(chan struct{})
	server := listen(t, fake{pull: func(_, _ string, _ *registry.AuthConfig, out Progress) error {
		if err := out(jsonstream.Message{Status: "first"}); err != nil {
			return err
		}
		<-seen
		return out(jsonstream.Message{Status: "second"})
	}})
	response, err := http.Post(server.URL+"/images/create?fromImage=alpine", "", nil)
	if err != nil {
		close(seen)
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	decoder := json.NewDecoder(response.Body)
	var m jsonstream.Message
	if err := decoder.Decode(&m); err != nil || m.Status != "first" {
		t.Errorf("first line %+v, %v", m, err)
	}
	close(seen)
	if err := decoder.Decode(&m); err != nil || m.Status != "second" {
		t.Errorf("second line %+v, %v", m, err)
	}
}

func TestAnErrorAfterProgressIsALineOfIt(t *testing.T) {
	b := fake{pull: func(_, _ string, _ *registry.AuthConfig, out Progress) error {
		if err := out(jsonstream.Message{Status: "Pulling from library/alpine"}); err != nil {
			return err
		}
		return errdefs.ErrUnavailable.WithMessage("the registry hung up")
	}}
	w := ask(t, b, http.MethodPost, "/images/create?fromImage=alpine", "")
	// errorDetail is what new clients read, error what old ones do.
	want := `{"status":"Pulling from library/alpine"}` + "\n" +
		`{"errorDetail":{"code":503,"message":"the registry hung up"},"error":"the registry hung up"}` + "\n"
	if w.Code != http.StatusOK || w.Body.String() != want {
		t.Errorf("answer %d\n%s", w.Code, w.Body)
	}
}

func TestAnErrorBeforeProgressHasItsStatus(t *testing.T) {
	b := fake{pull: func(string, string, *registry.AuthConfig, Progress) error {
		return errdefs.ErrNotFound.WithMessage("manifest for nosuch:latest not found")
	}}
	refused(t, ask(t, b, http.MethodPost, "/images/create?fromImage=nosuch", ""), http.StatusNotFound, "manifest for nosuch:latest not found")
}

func TestAPullNamesWhatItWants(t *testing.T) {
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for query, want := range map[string]string{
		"fromImage=alpine":                              "alpine ",
		"fromImage=alpine&tag=3.20":                     "alpine:3.20 ",
		"fromImage=alpine&tag=" + digest:                "alpine@" + digest + " ",
		"fromImage=alpine&platform=linux/arm64":         "alpine linux/arm64",
		"fromImage=registry.local:5000/team/app&tag=v1": "registry.local:5000/team/app:v1 ",
	} {
		var got string
		b := fake{pull: func(ref, platform string, _ *registry.AuthConfig, _ Progress) error {
			got = ref + " " + platform
			return nil
		}}
		if w := ask(t, b, http.MethodPost, "/images/create?"+query, ""); w.Code != http.StatusOK || got != want {
			t.Errorf("%s is answered %d and pulls %q, want %q", query, w.Code, got, want)
		}
	}
	refused(t, ask(t, fake{}, http.MethodPost, "/images/create", ""), http.StatusBadRequest, "fromImage or fromSrc is needed")
}

func TestAPullHandsOverTheCredentials(t *testing.T) {
	want := registry.AuthConfig{Username: "me", Password: "a secret", ServerAddress: "registry.local"}
	encoded, err := authconfig.Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		header string
		want   *registry.AuthConfig
		status int
	}{
		"none": {"", nil, http.StatusOK}, "some": {encoded, &want, http.StatusOK}, "no base64": {"%%%", nil, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			var got *registry.AuthConfig
			h := handlerOf(fake{pull: func(_, _ string, auth *registry.AuthConfig, _ Progress) error { got = auth; return nil }})
			r := httptest.NewRequest(http.MethodPost, "/images/create?fromImage=alpine", nil)
			if c.header != "" {
				r.Header.Set("X-Registry-Auth", c.header)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status {
				t.Errorf("answer %d %s", w.Code, w.Body)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("credentials (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnImportReadsTheBody(t *testing.T) {
	var options ImageImportOptions
	var content string
	b := fake{imports: func(o ImageImportOptions, in io.Reader, out Progress) error {
		body, err := io.ReadAll(in)
		options, content = o, string(body)
		return errors.Join(err, out(jsonstream.Message{Status: "sha256:abc"}))
	}}
	w := ask(t, b, http.MethodPost, "/images/create?fromSrc=-&repo=app&tag=v1&message=hi&platform=linux/amd64&changes=CMD+x&changes=ENV+A%3D1", "a root filesystem")
	if w.Code != http.StatusOK || w.Body.String() != `{"status":"sha256:abc"}`+"\n" || content != "a root filesystem" {
		t.Errorf("answer %d %q, content %q", w.Code, w.Body, content)
	}
	want := ImageImportOptions{Repo: "app", Tag: "v1", Message: "hi", Platform: "linux/amd64", Changes: []string{"CMD x", "ENV A=1"}}
	if diff := cmp.Diff(want, options); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	ask(t, b, http.MethodPost, "/images/create?fromSrc=http://x/y.tar", "")
	if diff := cmp.Diff(ImageImportOptions{Source: "http://x/y.tar"}, options); diff != "" {
		t.Errorf("options of a URL (-want +got):\n%s", diff)
	}
}

func TestNamesOfImagesMayHaveSlashes(t *testing.T) {
	for path, want := range map[string]string{
		"/images/alpine/json":                                        "alpine",
		"/images/registry.local:5000/team/app:v1/json":               "registry.local:5000/team/app:v1",
		"/v1.44/images/registry.local%2Fteam%2Fapp/json":             "registry.local/team/app",
		"/images/json/json":                                          "json",
		"/images/alpine@sha256:" + strings.Repeat("a", 64) + "/json": "alpine@sha256:" + strings.Repeat("a", 64),
	} {
		b := fake{image: func(name string) (image.InspectResponse, error) { return image.InspectResponse{ID: name}, nil }}
		if got := answered[image.InspectResponse](t, ask(t, b, http.MethodGet, path, ""), http.StatusOK); got.ID != want {
			t.Errorf("%s asks for %q, want %q", path, got.ID, want)
		}
	}
}

// One that is missing must not be found out in the middle of an archive.
func TestSaveLooksForAllImagesFirst(t *testing.T) {
	b := fake{
		save: func(names []string, platform *ocispec.Platform) (func(io.Writer) error, error) {
			if slices.Contains(names, "nosuch") {
				return nil, errdefs.ErrNotFound.WithMessage("No such image: nosuch:latest")
			}
			return func(out io.Writer) error {
				_, err := fmt.Fprint(out, "archive of ", names, platform)
				return err
			}, nil
		},
	}
	for path, want := range map[string]string{
		"/images/get?names=a&names=b": "archive of [a b] <nil>", "/images/team/app/get": "archive of [team/app] <nil>",
		"/images/a/get?platform=" + url.QueryEscape(`{"os":"linux","architecture":"arm64"}`): "archive of [a] &{arm64 linux  [] }",
	} {
		w := ask(t, b, http.MethodGet, path, "")
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/x-tar" || w.Body.String() != want {
			t.Errorf("%s is answered %d %v %q", path, w.Code, w.Header(), w.Body)
		}
	}
	for query, want := range map[string]string{
		"platform=linux": "failed to parse platform: invalid character 'l' looking for beginning of value", "platform={}": "both OS and Architecture must be provided",
		"platform={}&platform={}": "more than one platform is not supported",
	} {
		refused(t, ask(t, b, http.MethodGet, "/images/get?names=a&"+query, ""), http.StatusBadRequest, want)
		refused(t, ask(t, b, http.MethodPost, "/images/load?"+query, ""), http.StatusBadRequest, want)
	}
	refused(t, ask(t, b, http.MethodGet, "/images/get?names=a&names=nosuch", ""), http.StatusNotFound, "No such image: nosuch:latest")
	refused(t, ask(t, b, http.MethodGet, "/images/get", ""), http.StatusBadRequest, "no image names given")
}

func TestPush(t *testing.T) {
	var got string
	b := fake{push: func(ref string, auth *registry.AuthConfig, out Progress) error {
		got = ref + " " + auth.Username
		if err := out(jsonstream.Message{Status: "The push refers to repository"}); err != nil {
			return err
		}
		return errdefs.ErrUnauthenticated.WithMessage("unauthorized: authentication required")
	}}
	header := base64.URLEncoding.EncodeToString([]byte(`{"username":"somebody"}`))
	for path, want := range map[string]string{
		"/images/a/push": "a somebody",
		"/images/r.local:5000/team/app/push?tag=v1":                                                        "r.local:5000/team/app:v1 somebody",
		"/images/a/push?platform=" + url.QueryEscape(`{"os":"linux","architecture":"arm","variant":"v7"}`): "a for linux/arm/v7 somebody",
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, nil)
		r.Header.Set(registry.AuthHeader, header)
		w := httptest.NewRecorder()
		handlerOf(b).ServeHTTP(w, r)
		if got != want || !strings.Contains(w.Body.String(), `"message":"unauthorized: authentication required"`) {
			t.Errorf("%s pushed %q, want %q, and answered %s", path, got, want, w.Body)
		}
	}
	refused(t, ask(t, b, http.MethodPost, "/images/a/push?platform={}", ""), http.StatusBadRequest, "both OS and Architecture must be provided")
}

func TestLogin(t *testing.T) {
	w := ask(t, fake{}, http.MethodPost, "/auth", `{"username":"a","password":"right"}`)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Login Succeeded") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	refused(t, ask(t, fake{}, http.MethodPost, "/auth", `{"password":"wrong"}`), http.StatusUnauthorized, "unauthorized: incorrect username or password")
	refused(t, ask(t, fake{}, http.MethodPost, "/auth", `{`), http.StatusBadRequest, "invalid JSON: unexpected EOF")
}

func TestACommitSaysWhatItIsAskedFor(t *testing.T) {
	for request, c := range map[string]struct {
		body string
		want CommitOptions
	}{
		"/commit?container=web": {"", CommitOptions{Pause: true}},
		"/commit?container=web&repo=app&tag=v1&author=me&comment=hi&pause=0&changes=CMD+x&changes=ENV+A%3D1": {"null", CommitOptions{
			Repo: "app", Tag: "v1", Author: "me", Comment: "hi", Changes: []string{"CMD x", "ENV A=1"},
		}},
		"/commit?container=web&pause=true": {`{"Cmd":["y"],"ExposedPorts":{"80/tcp":{}}}`, CommitOptions{
			Pause: true, Config: &container.Config{Cmd: []string{"y"}, ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}}},
		}},
	} {
		var got CommitOptions
		b := fake{commit: func(name string, o CommitOptions) (string, error) {
			if got = o; name != "web" {
				t.Errorf("commits %q", name)
			}
			return "sha256:abc", nil
		}}
		w := ask(t, b, http.MethodPost, request, c.body)
		if w.Code != http.StatusCreated || w.Body.String() != `{"Id":"sha256:abc"}`+"\n" {
			t.Errorf("%s is answered %d %s", request, w.Code, w.Body)
		}
		if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b network.Port) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", request, diff)
		}
	}
	refused(t, ask(t, fake{}, http.MethodPost, "/commit", ""), http.StatusBadRequest, "container is needed")
	refused(t, ask(t, fake{}, http.MethodPost, "/commit?container=web", "{"), http.StatusBadRequest, "invalid JSON: unexpected EOF")
}

// Clients of older versions read fields that newer ones do not know any more.
func TestImagesHaveTheFieldsOfTheirVersion(t *testing.T) {
	b := fake{
		image: func(string) (image.InspectResponse, error) {
			return image.InspectResponse{ID: "sha256:abc", Size: 5, Config: &dockerspec.DockerOCIImageConfig{}, Descriptor: &ocispec.Descriptor{}}, nil
		},
		images: func() ([]image.Summary, error) {
			return []image.Summary{{ID: "sha256:abc", Size: 5, Containers: 3}}, nil
		},
	}
	for version, want := range map[string]struct{ has, lacks []string }{
		"1.41": {[]string{"Parent", "VirtualSize", "Container", "ContainerConfig", "DockerVersion", "Created", "GraphDriver"}, []string{"Descriptor"}},
		"1.44": {[]string{"Parent", "ContainerConfig"}, []string{"VirtualSize", "Descriptor", "Created"}},
		"1.45": {[]string{"Parent"}, []string{"ContainerConfig", "VirtualSize", "Descriptor"}},
		"1.48": {[]string{"Parent", "Descriptor"}, []string{"ContainerConfig"}},
		"1.51": {[]string{"Descriptor"}, []string{"Parent", "DockerVersion", "ContainerConfig", "VirtualSize"}},
	} {
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(ask(t, b, http.MethodGet, "/v"+version+"/images/abc/json", "").Body.Bytes(), &fields); err != nil {
			t.Fatal(err)
		}
		for _, name := range want.has {
			if _, ok := fields[name]; !ok {
				t.Errorf("%s lacks %s", version, name)
			}
		}
		for _, name := range want.lacks {
			if _, ok := fields[name]; ok {
				t.Errorf("%s has %s", version, name)
			}
		}
		if _, ok := fields["Config"]; !ok || strings.Contains(string(fields["Config"]), `"Hostname":""`) != (version != "1.51") {
			t.Errorf("%s has the configuration %s", version, fields["Config"])
		}
		list := ask(t, b, http.MethodGet, "/v"+version+"/images/json", "").Body.String()
		for text, want := range map[string]bool{`"Containers":-1`: true, `"VirtualSize":5`: version == "1.41", `["<none>:<none>"]`: version == "1.41"} {
			if strings.Contains(list, text) != want {
				t.Errorf("%s lists %s; %s is there: %v", version, list, text, !want)
			}
		}
	}
}

// To take more than was asked for would lose it.
func TestOnePlatformIsNotRemovedWithAllOthers(t *testing.T) {
	refused(t, ask(t, fake{}, http.MethodDelete, "/images/a?platforms={}", ""), http.StatusNotImplemented, "davit does not remove single platforms of an image yet")
}
