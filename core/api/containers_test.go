package api

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/davit-engine/davit/core/filter"
)

// created is what the backend was asked to create.
type created struct {
	name, platform string
	req            container.CreateRequest
}

func creating(into *created) fake {
	return fake{create: func(name, platform string, req container.CreateRequest) (container.CreateResponse, error) {
		*into = created{name, platform, req}
		return container.CreateResponse{ID: "abc"}, nil
	}}
}

func TestCreateHandsOverNamePlatformAndConfig(t *testing.T) {
	var got created
	w := ask(t, creating(&got), http.MethodPost, "/v1.44/containers/create?name=web&platform=linux%2Farm64", `{
		"Image": "alpine", "Cmd": ["echo", "a < b"], "Env": ["A=1"], "Labels": {"k": "v"},
		"HostConfig": {"Memory": 8388608, "Privileged": true, "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
		"NetworkingConfig": {"EndpointsConfig": {"front": {"Aliases": ["www"]}}},
		"OfAVersionToCome": {"x": 1}
	}`)
	if body := answered[map[string]any](t, w, http.StatusCreated); body["Id"] != "abc" {
		t.Errorf("answer %v", body)
	} else if warnings, ok := body["Warnings"].([]any); !ok || len(warnings) != 0 {
		t.Errorf("Warnings are %v: clients want a list", body["Warnings"])
	}
	if got.name != "web" || got.platform != "linux/arm64" {
		t.Errorf("name %q, platform %q", got.name, got.platform)
	}
	want := &container.Config{Image: "alpine", Cmd: []string{"echo", "a < b"}, Env: []string{"A=1"}, Labels: map[string]string{"k": "v"}}
	if diff := cmp.Diff(want, got.req.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if host := got.req.HostConfig; host == nil || host.Memory != 8<<20 || !host.Privileged || len(host.PortBindings) != 1 {
		t.Errorf("host config %+v", host)
	}
	if aliases := got.req.NetworkingConfig.EndpointsConfig["front"].Aliases; !cmp.Equal(aliases, []string{"www"}) {
		t.Errorf("aliases %q", aliases)
	}
}

func TestAnErrorOfCreateReachesTheClient(t *testing.T) {
	b := fake{create: func(string, string, container.CreateRequest) (container.CreateResponse, error) {
		return container.CreateResponse{}, errdefs.ErrNotFound.WithMessage("No such image: alpine:latest")
	}}
	refused(t, ask(t, b, http.MethodPost, "/containers/create", `{"Image":"alpine"}`), http.StatusNotFound, "No such image: alpine:latest")
}

func TestABadBodyIsRefused(t *testing.T) {
	const empty = "config cannot be empty in order to create a container"
	for name, c := range map[string]struct{ body, kind, message string }{
		"nothing":        {"", "application/json", "invalid JSON: got EOF while reading request body"},
		"only blanks":    {" \n", "application/json", "invalid JSON: got EOF while reading request body"},
		"cut off":        {`{"Image": "al`, "application/json", "invalid JSON: unexpected EOF"},
		"no JSON":        {"Image=alpine", "application/json", "invalid JSON: invalid character 'I' looking for beginning of value"},
		"more than one":  {`{"Image":"a"} {"Image":"b"}`, "application/json", "unexpected content after JSON"},
		"another type":   {`{"Image":"a"}`, "text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"},
		"a type of none": {`{"Image":"a"}`, "///", "unsupported Content-Type header (///): must be 'application/json'"},
		"null":           {"null", "application/json", empty},
		"no config":      {`{"HostConfig":{}}`, "application/json", empty},
		"nothing to run": {`{"Env":["A=1"]}`, "application/json", empty},
		"a bad MAC":      {`{"Image":"a","MacAddress":"zz"}`, "application/json", `invalid MAC address "zz"`},
		"beyond 8 MiB":   {`{"Image":"` + strings.Repeat("a", maxBody) + `"}`, "application/json", "invalid JSON: unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			var got created
			h := handlerOf(creating(&got))
			refused(t, send(t, h, "/containers/create", c.body, c.kind), http.StatusBadRequest, c.message)
			if got.req.Config != nil {
				t.Errorf("the backend was asked for %+v", got.req.Config)
			}
		})
	}
}

func TestAWrongTypeInABodyNamesItsField(t *testing.T) {
	for body, field := range map[string]string{
		`{"Image": 1}`: "Image", `{"Image":"a","HostConfig":{"Memory":"lots"}}`: "Memory", `["a"]`: "array",
	} {
		var got created
		w := ask(t, creating(&got), http.MethodPost, "/containers/create", body)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), field) || !strings.Contains(w.Body.String(), "invalid JSON: ") {
			t.Errorf("%s is answered %d %s", body, w.Code, w.Body)
		}
	}
}

func TestABodyIsOneObjectAndNoMore(t *testing.T) {
	for _, rest := range []string{"}", "]", "} and more"} {
		var got created
		refused(t, ask(t, creating(&got), http.MethodPost, "/containers/create", `{"Image":"a"}`+rest), http.StatusBadRequest, "unexpected content after JSON")
	}
}

func TestABodyNeedsNoContentType(t *testing.T) {
	var got created
	for _, kind := range []string{"", "application/json; charset=utf-8", "Application/JSON"} {
		if w := send(t, handlerOf(creating(&got)), "/containers/create", `{"Image":"a"}`, kind); w.Code != http.StatusCreated {
			t.Errorf("of type %q: %d %s", kind, w.Code, w.Body)
		}
	}
}

func TestTheOldMACAddressMovesToItsEndpoint(t *testing.T) {
	const mac = "02:42:ac:11:00:02"
	for name, c := range map[string]struct{ body, network, want string }{
		"the default network": {`{"Image":"a","MacAddress":"` + mac + `"}`, "bridge", mac},
		"default by name":     {`{"Image":"a","MacAddress":"` + mac + `","HostConfig":{"NetworkMode":"default"}}`, "bridge", mac},
		"a network":           {`{"Image":"a","MacAddress":"` + mac + `","HostConfig":{"NetworkMode":"front"}}`, "front", mac},
		"an endpoint":         {`{"Image":"a","MacAddress":"` + mac + `","HostConfig":{"NetworkMode":"front"},"NetworkingConfig":{"EndpointsConfig":{"front":null}}}`, "front", mac},
		"its own wins":        {`{"Image":"a","MacAddress":"` + mac + `","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"02:42:ac:11:00:09"}}}}`, "bridge", "02:42:ac:11:00:09"},
	} {
		t.Run(name, func(t *testing.T) {
			var got created
			if w := ask(t, creating(&got), http.MethodPost, "/v1.43/containers/create", c.body); w.Code != http.StatusCreated {
				t.Fatalf("status %d; body %s", w.Code, w.Body)
			}
			endpoint := got.req.NetworkingConfig.EndpointsConfig[c.network]
			if endpoint == nil || endpoint.MacAddress.String() != c.want {
				t.Errorf("endpoint %+v", endpoint)
			}
		})
	}
}

func TestListDecodesItsFilters(t *testing.T) {
	for query, want := range map[string]ContainerListOptions{
		"":                             {},
		"all=1&size=true&limit=3":      {All: true, Size: true, Limit: 3},
		"all=0&size=False&limit=-1":    {},
		"all=yes":                      {All: true},
		`filters={"label":["a=b"]}`:    {Filters: filter.Args{"label": {"a=b"}}},
		`filters={"id":{"x":true}}`:    {Filters: filter.Args{"id": {"x"}}},
		"since=a&before=b":             {Filters: filter.Args{"since": {"a"}, "before": {"b"}}},
		`since=a&filters={"id":["x"]}`: {Filters: filter.Args{"since": {"a"}, "id": {"x"}}},
	} {
		t.Run(query, func(t *testing.T) {
			var got ContainerListOptions
			b := fake{list: func(o ContainerListOptions) ([]container.Summary, error) {
				got = o
				return []container.Summary{{ID: "abc", Image: "<none>"}}, nil
			}}
			w := ask(t, b, http.MethodGet, "/containers/json?"+query, "")
			if list := answered[[]container.Summary](t, w, http.StatusOK); len(list) != 1 || list[0].ID != "abc" {
				t.Errorf("answer %+v", list)
			}
			// Clients of other languages compare texts: what HTML would need is not escaped.
			if !strings.Contains(w.Body.String(), `"<none>"`) {
				t.Errorf("body %s", w.Body)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
		})
	}
}

func TestListRefusesWhatItCannotRead(t *testing.T) {
	refused(t, ask(t, fake{}, http.MethodGet, "/containers/json?limit=few", ""), http.StatusBadRequest, `invalid value "few" for limit: not a number`)
	w := ask(t, fake{}, http.MethodGet, "/containers/json?filters=label", "")
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "invalid filter") {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
}

func TestNothingToDoIsNotModified(t *testing.T) {
	for _, changed := range []bool{true, false} {
		want := map[bool]int{true: http.StatusNoContent, false: http.StatusNotModified}[changed]
		b := fake{
			start: func(string) (bool, error) { return changed, nil },
			stop:  func(string, StopOptions) (bool, error) { return changed, nil },
		}
		for _, operation := range []string{"start", "stop"} {
			w := ask(t, b, http.MethodPost, "/containers/web/"+operation, "")
			if w.Code != want || w.Body.Len() != 0 {
				t.Errorf("%s with change %v: %d %q", operation, changed, w.Code, w.Body)
			}
		}
	}
}

func TestStopReadsSignalAndTimeout(t *testing.T) {
	ten, forever := 10, -1
	for query, want := range map[string]StopOptions{
		"": {}, "t=10&signal=SIGINT": {Signal: "SIGINT", Timeout: &ten}, "t=-1": {Timeout: &forever},
	} {
		var got StopOptions
		b := fake{stop: func(_ string, o StopOptions) (bool, error) { got = o; return true, nil }}
		ask(t, b, http.MethodPost, "/containers/web/stop?"+query, "")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", query, diff)
		}
	}
	refused(t, ask(t, fake{}, http.MethodPost, "/containers/web/stop?t=soon", ""), http.StatusBadRequest, `invalid value "soon" for t: not a number`)
}

func TestATerminalsSizeHasBounds(t *testing.T) {
	for _, path := range []string{"/containers/web/resize", "/exec/abc/resize"} {
		for query, message := range map[string]string{
			"h=-1&w=80":    "terminal size 80x-1 is out of range",
			"h=24&w=65536": "terminal size 65536x24 is out of range",
			"h=x&w=80":     `invalid value "x" for h: not a number`,
			"h=24&w=x":     `invalid value "x" for w: not a number`,
		} {
			refused(t, ask(t, fake{}, http.MethodPost, path+"?"+query, ""), http.StatusBadRequest, message)
		}
	}
}

// A client starts the container when it has the header: it must not have to wait
// for the end of what it has not started.
func TestWaitSendsItsHeaderBeforeTheContainerEnds(t *testing.T) {
	ended := make(chan struct{})
	condition := make(chan container.WaitCondition, 1)
	server := listen(t, fake{wait: func(_ string, c container.WaitCondition) (func(context.Context) (container.WaitResponse, error), error) {
		condition <- c
		return func(ctx context.Context) (container.WaitResponse, error) {
			select {
			case <-ended:
				return container.WaitResponse{StatusCode: 42}, nil
			case <-ctx.Done():
				return container.WaitResponse{}, ctx.Err()
			}
		}, nil
	}})
	response, err := http.Post(server.URL+"/v1.41/containers/web/wait?condition=next-exit", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/json" {
		t.Errorf("status %d, header %v", response.StatusCode, response.Header)
	}
	if c := <-condition; c != container.WaitConditionNextExit {
		t.Errorf("condition %q", c)
	}
	close(ended)
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	if err != nil || line != `{"StatusCode":42}`+"\n" {
		t.Errorf("answer %q, %v", line, err)
	}
}

func TestWaitForNoContainerIsNotFound(t *testing.T) {
	b := fake{wait: func(string, container.WaitCondition) (func(context.Context) (container.WaitResponse, error), error) {
		return nil, errdefs.ErrNotFound.WithMessage("No such container: web")
	}}
	refused(t, ask(t, b, http.MethodPost, "/containers/web/wait", ""), http.StatusNotFound, "No such container: web")
}

func TestInspectShowsTheDefaultNetworkWhereOldClientsLook(t *testing.T) {
	b := fake{inspect: func(name string, size bool) (container.InspectResponse, error) {
		settings := &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{
			"bridge": {EndpointID: "e1", Gateway: netip.MustParseAddr("172.17.0.1"), IPAddress: netip.MustParseAddr("172.17.0.2"), IPPrefixLen: 16},
			"front":  {EndpointID: "e2"},
		}}
		return container.InspectResponse{ID: "abc", Name: "/" + name, NetworkSettings: settings}, nil
	}}
	body := answered[map[string]json.RawMessage](t, ask(t, b, http.MethodGet, "/containers/web/json", ""), http.StatusOK)
	if string(body["Name"]) != `"/web"` {
		t.Errorf("name %s", body["Name"])
	}
	var settings map[string]any
	if err := json.Unmarshal(body["NetworkSettings"], &settings); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"EndpointID": "e1", "Gateway": "172.17.0.1", "IPAddress": "172.17.0.2", "IPPrefixLen": 16.0, "Bridge": "", "HairpinMode": false} {
		if settings[key] != want {
			t.Errorf("%s is %v, want %v", key, settings[key], want)
		}
	}
	if networks, _ := settings["Networks"].(map[string]any); len(networks) != 2 {
		t.Errorf("networks %v", settings["Networks"])
	}
}

func TestInspectWithoutANetworkHasTheOldFieldsEmpty(t *testing.T) {
	b := fake{inspect: func(string, bool) (container.InspectResponse, error) {
		return container.InspectResponse{ID: "abc", NetworkSettings: &container.NetworkSettings{}}, nil
	}}
	body := answered[struct{ NetworkSettings map[string]any }](t, ask(t, b, http.MethodGet, "/containers/web/json", ""), http.StatusOK)
	if address, ok := body.NetworkSettings["IPAddress"]; !ok || address != "" {
		t.Errorf("IPAddress is %v", address)
	}
}
