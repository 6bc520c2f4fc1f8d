package api

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/core/plugin"
)

// A client that listens must know that it does before anything has happened.
func TestEventsBeginBeforeTheFirst(t *testing.T) {
	emit := make(chan events.Message)
	server := listen(t, fake{events: func(ctx context.Context, _, _ time.Time, _ filter.Args, fn func(events.Message) error) error {
		select {
		case m := <-emit:
			return fn(m)
		case <-ctx.Done():
			return ctx.Err()
		}
	}})
	response, err := http.Get(server.URL + "/v1.41/events")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/json" {
		t.Errorf("answer %d %v", response.StatusCode, response.Header)
	}
	emit <- events.Message{Type: "container", Action: "start", Actor: events.Actor{ID: "abc", Attributes: map[string]string{"image": "alpine"}}, TimeNano: 1}
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	want := `{"status":"start","id":"abc","from":"alpine","Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"image":"alpine"}},"timeNano":1}` + "\n"
	if line != want {
		t.Errorf("event\n%swant\n%s", line, want)
	}
}

func TestOldFieldsOfEventsAreThoseOfContainersAndImages(t *testing.T) {
	for kind, old := range map[events.Type]bool{"container": true, "image": true, "network": false, "volume": false} {
		b := fake{events: func(_ context.Context, _, _ time.Time, _ filter.Args, fn func(events.Message) error) error {
			return fn(events.Message{Type: kind, Action: "x", Actor: events.Actor{ID: "abc"}})
		}}
		w := ask(t, b, http.MethodGet, "/events", "")
		if strings.Contains(w.Body.String(), `"id":"abc"`) != old {
			t.Errorf("event of a %s: %s", kind, w.Body)
		}
	}
}

func TestEventsDecodeTimesAndFilters(t *testing.T) {
	type request struct {
		Since, Until time.Time
		Filters      filter.Args
	}
	var got request
	b := fake{events: func(_ context.Context, since, until time.Time, f filter.Args, _ func(events.Message) error) error {
		got = request{since, until, f}
		return nil
	}}
	ask(t, b, http.MethodGet, `/events?since=1.5&until=2&filters={"type":["container"],"label":["a=b"]}`, "")
	want := request{time.Unix(1, 500_000_000), time.Unix(2, 0), filter.Args{"type": {"container"}, "label": {"a=b"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	for _, query := range []string{"since=soon", "until=soon", "filters=x", `filters={"nosuch":["x"]}`} {
		if w := ask(t, fake{}, http.MethodGet, "/events?"+query, ""); w.Code != http.StatusBadRequest {
			t.Errorf("%s is answered %d %s", query, w.Code, w.Body)
		}
	}
}

// operations answers the rest of the interface.
type operations struct {
	fake
	t *testing.T
}

func (o operations) SystemDiskUsage(context.Context, ...system.DiskUsageObject) (system.DiskUsage, error) {
	return system.DiskUsage{
		ImageUsage:  &image.DiskUsage{TotalSize: 7, Items: []image.Summary{{ID: "i"}}},
		VolumeUsage: &volume.DiskUsage{Items: []volume.Volume{{Name: "v"}}},
	}, nil
}

func (o operations) UpgradePlugin(_ context.Context, name string, u plugin.UpgradeOptions) (plugin.Upgrade, error) {
	switch name {
	case "current":
		return plugin.Upgrade{}, errdefs.ErrNotModified.WithMessage("is current")
	case "busy":
		return plugin.Upgrade{}, errdefs.ErrUnavailable.WithMessage("is busy")
	}
	return plugin.Upgrade{Name: name, To: plugin.Version{Version: fmt.Sprint(u.Force)}, Paused: u.Drain}, nil
}

func (o operations) DriverPlugins(context.Context) ([]plugin.Status, error) {
	return []plugin.Status{{Name: "storage-overlay", Driver: "overlay"}, {Name: "volume-local", Driver: "local"}}, nil
}

func (o operations) NetworkConnect(_ context.Context, name string, req network.ConnectRequest) error {
	if name != "front" || req.Container != "web" || req.EndpointConfig == nil {
		o.t.Errorf("connecting %+v to %s", req, name)
	}
	return nil
}

func (o operations) NetworkRemove(context.Context, string) error { return nil }

func (o operations) NetworkCreate(_ context.Context, req network.CreateRequest) (network.CreateResponse, error) {
	return network.CreateResponse{ID: req.Name}, nil
}

func (o operations) VolumeCreate(_ context.Context, req volume.CreateRequest) (volume.Volume, error) {
	return volume.Volume{Name: req.Name}, nil
}

func (o operations) VolumeRemove(_ context.Context, name string, force bool) error {
	if name != "data" || !force {
		o.t.Errorf("removing %s with force %v", name, force)
	}
	return nil
}

func (o operations) ImageTag(_ context.Context, name, ref string) error {
	if name != "team/app" || ref != "registry.local/app:v1" {
		o.t.Errorf("tagging %s as %s", name, ref)
	}
	return nil
}

func (o operations) ContainerRename(_ context.Context, name, to string) error {
	if name != "web" || to != "www" {
		o.t.Errorf("renaming %s to %s", name, to)
	}
	return nil
}

func (o operations) ContainerRemove(_ context.Context, _ string, options ContainerRemoveOptions) error {
	if options != (ContainerRemoveOptions{Volumes: true, Links: true, Force: true}) {
		o.t.Errorf("removing with %+v", options)
	}
	return nil
}

func TestOperationsAnswerDockersStatuses(t *testing.T) {
	for _, c := range []struct {
		request, body string
		status        int
		want          string
	}{
		{"POST /networks/create", `{"Name":"front"}`, http.StatusCreated, `{"Id":"front","Warning":""}` + "\n"},
		{"POST /networks/front/connect", `{"Container":"web","EndpointConfig":{}}`, http.StatusOK, ""},
		{"DELETE /networks/front", "", http.StatusNoContent, ""},
		{"DELETE /volumes/data?force=1", "", http.StatusNoContent, ""},
		{"POST /images/team/app/tag?repo=registry.local/app&tag=v1", "", http.StatusCreated, ""},
		{"POST /containers/web/rename?name=www", "", http.StatusNoContent, ""},
		{"DELETE /containers/web?v=1&link=1&force=1", "", http.StatusNoContent, ""},
	} {
		t.Run(c.request, func(t *testing.T) {
			method, target, _ := strings.Cut(c.request, " ")
			w := ask(t, operations{t: t}, method, target, c.body)
			if w.Code != c.status || w.Body.String() != c.want {
				t.Errorf("answer %d %q, want %d %q", w.Code, w.Body, c.status, c.want)
			}
		})
	}
}

// Docker makes a volume with a random name then.
func TestAVolumeNeedsNoBody(t *testing.T) {
	if w := ask(t, operations{t: t}, http.MethodPost, "/volumes/create", ""); w.Code != http.StatusCreated {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
}

func TestDiskUsageHasTheOldForm(t *testing.T) {
	type usage struct {
		LayersSize                              int64
		Images, Containers, Volumes, BuildCache []map[string]any
	}
	for query, want := range map[string][3]int{"": {1, 0, 1}, "?type=image": {1, 0, 0}, "?type=volume&type=container": {0, 0, 1}} {
		got := answered[usage](t, ask(t, operations{t: t}, http.MethodGet, "/system/df"+query, ""), http.StatusOK)
		if (len(got.Images) != want[0]) || len(got.Containers) != want[1] || len(got.Volumes) != want[2] || got.Containers == nil || got.BuildCache == nil {
			t.Errorf("%q: %+v", query, got)
		}
		if got.LayersSize != int64(7*want[0]) {
			t.Errorf("%q: layers of %d bytes", query, got.LayersSize)
		}
	}
}

func TestDiskUsageOfAnUnknownType(t *testing.T) {
	refused(t, ask(t, operations{t: t}, http.MethodGet, "/system/df?type=image&type=soup", ""), http.StatusBadRequest, "unknown object type: soup")
}

func TestADriverPluginHasTwoNames(t *testing.T) {
	if list := answered[[]plugin.Status](t, ask(t, operations{t: t}, http.MethodGet, "/davit/plugins", ""), http.StatusOK); len(list) != 2 {
		t.Errorf("plugins %+v", list)
	}
	for _, name := range []string{"volume-local", "local"} {
		if got := answered[plugin.Status](t, ask(t, operations{t: t}, http.MethodGet, "/davit/plugins/"+name, ""), http.StatusOK); got.Name != "volume-local" {
			t.Errorf("%s is %+v", name, got)
		}
	}
	refused(t, ask(t, operations{t: t}, http.MethodGet, "/davit/plugins/nosuch", ""), http.StatusNotFound, "No such driver plugin: nosuch")
}

func TestUpgradeOfAPlugin(t *testing.T) {
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"x/upgrade":                      {http.StatusOK, `{"Name":"x","From":{"Version":"","SHA256":"","PID":0},"To":{"Version":"false","SHA256":"","PID":0},"Paused":0}`},
		"x/upgrade?force=1&timeout=1.5":  {http.StatusOK, `"To":{"Version":"true","SHA256":"","PID":0},"Paused":1500000000}`},
		"current/upgrade":                {http.StatusNotModified, ""},
		"busy/upgrade":                   {http.StatusServiceUnavailable, "is busy"},
		"x/upgrade?timeout=soon":         {http.StatusBadRequest, `timeout \"soon\" is not a number of seconds`},
		"x/upgrade?timeout=-1":           {http.StatusBadRequest, "is not a number"},
		"x/upgrade?timeout=NaN":          {http.StatusBadRequest, "is not a number"},
		"x/upgrade?timeout=100000000000": {http.StatusBadRequest, "is not a number"},
	} {
		w := ask(t, operations{t: t}, http.MethodPost, "/davit/plugins/"+path, "")
		if w.Code != want.status || !strings.Contains(w.Body.String(), want.body) {
			t.Errorf("%s: %d %s, want %d %s", path, w.Code, w.Body, want.status, want.body)
		}
	}
}
