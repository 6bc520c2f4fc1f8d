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
