package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/moby/moby/api/types/volume"

	"github.com/davit-engine/davit/core/filter"
)

// pruning says what it was asked to prune.
type pruning struct {
	fake
	asked *filter.Args
}

func (p pruning) VolumesPrune(_ context.Context, f filter.Args) (volume.PruneReport, error) {
	*p.asked = f
	return volume.PruneReport{}, nil
}

// Before 1.42 a prune meant named volumes, too.
func TestOldClientsPruneAllVolumes(t *testing.T) {
	for path, want := range map[string]string{
		"/v1.41/volumes/prune": "map[all:[true]]", "/v1.42/volumes/prune": "map[]", "/volumes/prune": "map[]",
		"/v1.41/volumes/prune?filters=" + url.QueryEscape(`{"label":["a=b"]}`): "map[all:[true] label:[a=b]]",
		"/v1.45/volumes/prune?filters=" + url.QueryEscape(`{"all":["1"]}`):     "map[all:[1]]",
	} {
		var asked filter.Args
		if w := ask(t, pruning{asked: &asked}, http.MethodPost, path, ""); w.Code != http.StatusOK || fmt.Sprint(map[string][]string(asked)) != want {
			t.Errorf("%s: %d, filters %v, want %s", path, w.Code, asked, want)
		}
	}
}

func TestOnlyClusterVolumesAreUpdated(t *testing.T) {
	refused(t, ask(t, fake{}, http.MethodPut, "/volumes/data?version=1", `{}`), http.StatusServiceUnavailable, "volume update only valid for cluster volumes, but swarm is unavailable")
}

// own answers what it was asked.
type own struct{ fake }

func (own) VolumeClone(_ context.Context, source, name string, labels map[string]string, force bool) (volume.Volume, error) {
	return volume.Volume{Name: fmt.Sprint("clone ", source, name, labels, force)}, nil
}

func (own) VolumeRename(_ context.Context, name, newName string) (volume.Volume, error) {
	return volume.Volume{Name: "rename " + name + newName}, nil
}

func (own) VolumeResize(_ context.Context, name string, size int64) (volume.Volume, error) {
	return volume.Volume{Name: fmt.Sprint("resize ", name, size)}, nil
}

func TestDavitsOwnEndpointsOfVolumes(t *testing.T) {
	for _, c := range []struct {
		path, body, want string
		status           int
	}{
		{"clone", `{"Name":"b","Labels":{"c":"d"},"Force":true}`, "clone abmap[c:d] true", http.StatusCreated},
		{"rename", `{"Name":"b"}`, "rename ab", http.StatusOK},
		{"resize", `{"Size":7}`, "resize a7", http.StatusOK},
		{"resize", `{"Size":0}`, "resize a0", http.StatusOK},
	} {
		if got := answered[volume.Volume](t, ask(t, own{}, http.MethodPost, "/davit/volumes/a/"+c.path, c.body), c.status); got.Name != c.want {
			t.Errorf("%s: %q, want %q", c.path, got.Name, c.want)
		}
	}
	refused(t, ask(t, own{}, http.MethodPost, "/davit/volumes/a/resize", `{}`), http.StatusBadRequest, "Size is required: bytes, 0 for no limit")
	refused(t, ask(t, own{}, http.MethodPost, "/davit/volumes/a/clone", ""), http.StatusBadRequest, "invalid JSON: got EOF while reading request body")
}
