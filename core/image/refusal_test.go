package image

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	mobyregistry "github.com/moby/moby/api/types/registry"

	"github.com/davit-engine/davit/core/registry"
)

func TestWordsOfALimit(t *testing.T) {
	refused := &transport.Error{StatusCode: http.StatusTooManyRequests, Errors: []transport.Diagnostic{{Code: "TOOMANYREQUESTS", Message: "slow down"}}}
	for _, c := range []struct {
		host      string
		anonymous bool
		limit     registry.Limit
		want      string
	}{
		{"docker.io", true, registry.Limit{After: 90*time.Second + 1, Requests: 100, In: 6 * time.Hour}, "toomanyrequests: slow down (docker.io limits requests, to 100 in 6h0m0s: try again in 1m30s; with 'docker login' the limit may be higher)"},
		{"registry.example", true, registry.Limit{}, "toomanyrequests: slow down (registry.example limits requests: try again later; with 'docker login registry.example' the limit may be higher)"},
		{"registry.example", false, registry.Limit{After: time.Second}, "toomanyrequests: slow down (registry.example limits requests: try again in 1s)"},
	} {
		if got := tooMany(c.host, c.anonymous, refused, c.limit); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
	named, err := reference.ParseNormalizedNamed("debian")
	if err != nil {
		t.Fatal(err)
	}
	once := unanswered(named, true, fmt.Errorf("fetching: %w", refused))
	if twice := unanswered(named, true, once); !errdefs.IsInternal(once) || twice.Error() != once.Error() {
		t.Errorf("said %v, and then %v", once, twice)
	}
	if isAnonymous(&mobyregistry.AuthConfig{IdentityToken: "x"}) || !isAnonymous(&mobyregistry.AuthConfig{ServerAddress: "x"}) || !isAnonymous(nil) {
		t.Error("who is anonymous")
	}
}
