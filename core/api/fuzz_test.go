package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// Whatever a client sends, it is its own fault: the answer is never a 5xx, which
// a panic would be, and an error is in Docker's form.
func FuzzContainerCreate(f *testing.F) {
	for _, seed := range []string{
		"", "null", "{}", "[]", `"`, "{\"Image\":\"\xff\"}", `{"Image":"alpine"}`, `{"Cmd":["a"]}`, `{"Cmd":"a"}`, `{"Image":"a"} x`,
		`{"Image":"a","MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"front"},"NetworkingConfig":{"EndpointsConfig":{"front":null}}}`,
		`{"Image":"a","MacAddress":"zz","NetworkingConfig":null}`,
		`{"Image":"a","ExposedPorts":{"80/tcp":{},"x":{},"70000/udp":{}},"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"::1","HostPort":"1-2"}],"":null}}}`,
		`{"Image":"a","HostConfig":{"Ulimits":[null],"Devices":[{}],"Mounts":[{"Type":"bind","BindOptions":null}],"Memory":1e400}}`,
		`{"Image":"a","HostConfig":{"RestartPolicy":{"Name":"always","MaximumRetryCount":-1},"LogConfig":{"Config":null},"Tmpfs":{"/x":""}}}`,
		`{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"a":{"IPAMConfig":{"IPv4Address":"1.2.3"},"GwPriority":9223372036854775807}}}}`,
		`{"image":"a","IMAGE":"b","Image":"c","Healthcheck":{"Interval":-1},"StopTimeout":1.5}`,
	} {
		f.Add([]byte(seed), "application/json")
	}
	f.Add([]byte(`{"Image":"a"}`), "text/plain; charset")
	f.Fuzz(func(t *testing.T, body []byte, kind string) {
		var asked *container.Config
		h := handlerOf(fake{create: func(_, _ string, req container.CreateRequest) (container.CreateResponse, error) {
			asked = req.Config
			// The engine keeps it as JSON.
			if _, err := json.Marshal(req); err != nil {
				t.Errorf("what was read cannot be written: %v", err)
			}
			return container.CreateResponse{ID: "abc"}, nil
		}})
		r := httptest.NewRequest(http.MethodPost, "/v1.41/containers/create", bytes.NewReader(body))
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch {
		case w.Code == http.StatusCreated && asked != nil:
		case w.Code >= 400 && w.Code < 500 && asked == nil:
			var message struct{ Message string }
			if err := json.Unmarshal(w.Body.Bytes(), &message); err != nil || message.Message == "" {
				t.Errorf("%q is refused with %q", body, w.Body)
			}
		default:
			t.Errorf("%q is answered %d %s, and the backend asked for %+v", body, w.Code, w.Body, asked)
		}
	})
}
