package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// platformImage is an image of one layer for a platform.
func platformImage(t *testing.T, architecture string) v1.Image {
	t.Helper()
	body := read(t, archiveOf(t, map[string]string{"architecture": architecture}))
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer([]byte(body), types.DockerUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// pushPlatforms puts an index of two platforms into a registry.
func pushPlatforms(t *testing.T, ref string) v1.ImageIndex {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, types.DockerManifestList)
	for _, architecture := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: platformImage(t, architecture), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}}})
	}
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(parsed, index); err != nil {
		t.Fatal(err)
	}
	return index
}

func TestManifestInspect(t *testing.T) {
	t.Parallel()
	c, docker := newClient(t, "davit", engine), newClient(t, "docker", engine)
	docker.env = []string{"DOCKER_CLI_EXPERIMENTAL=enabled", "HOME=" + t.TempDir()}
	address := realRegistry(t)
	one, many := address+"/team/one:1", address+"/team/many:1"
	push(t, one, platformImage(t, "s390x"))
	index := pushPlatforms(t, many)
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{one, many, address + "/team/many@" + digest.String()} {
		for _, verbose := range []string{"", "-v"} {
			args := strings.Fields("manifest inspect --insecure " + verbose + " " + ref)
			var want, got any
			if err := json.Unmarshal([]byte(docker.ok(args...)), &want); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(c.ok(args...)), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(shared(want), shared(got)); diff != "" {
				t.Errorf("%q (-docker +davit):\n%s", args, diff)
			}
		}
	}
	c.contains(c.ok("manifest", "inspect", many, address+"/team/many@"+digestOf(t, platformImage(t, "arm64"))), `"schemaVersion": 2`)
	c.fails(1, "is not a manifest of", "manifest", "inspect", many, one)
	c.fails(1, "manifest for "+address+"/team/one:2 not found", "manifest", "inspect", address+"/team/one:2")
	c.fails(1, "invalid reference format", "manifest", "inspect", "A:B")

	// What the Engine API says of it.
	status, body := ask(t, engine, http.MethodGet, "/v1.41/distribution/"+many+"/json", "")
	var found struct {
		Descriptor struct{ Digest, MediaType string }
		Platforms  []struct{ Architecture, OS string }
	}
	if err := json.Unmarshal([]byte(body), &found); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s %v", status, body, err)
	}
	if got := fmt.Sprint(found); got != fmt.Sprintf("{{%s %s} [{amd64 linux} {arm64 linux}]}", digest, types.DockerManifestList) {
		t.Errorf("the registry has %s", got)
	}
	if _, body = ask(t, engine, http.MethodGet, "/distribution/"+one+"/json", ""); !strings.Contains(body, `"Platforms":[{"architecture":"s390x","os":"linux"}]`) {
		t.Errorf("the registry has %s", body)
	}
	if status, body = ask(t, engine, http.MethodGet, "/distribution/"+address+"/no/such/json", ""); status != http.StatusNotFound {
		t.Errorf("what is not there is answered %d %s", status, body)
	}
}

// shared takes away what Docker's client writes in one way or another, by its
// version: a name in a list, and what it does not know of a descriptor.
func shared(v any) any {
	switch v := v.(type) {
	case []any:
		for _, entry := range v {
			shared(entry)
		}
	case map[string]any:
		delete(v, "Ref")
		delete(v, "artifactType")
		for _, value := range v {
			shared(value)
		}
	}
	return v
}

func digestOf(t *testing.T, img v1.Image) string {
	t.Helper()
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

func TestSearch(t *testing.T) {
	both(t, func(c *client) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/search" {
				http.NotFound(w, r)
				return
			}
			_, _ = fmt.Fprintf(w, `{"query":%q,"num_results":2,"results":[{"name":"many/%s","description":"","star_count":50,"is_official":true},{"name":"few/%s","description":"a description that is rather long, and goes on","star_count":3}]}`,
				r.URL.Query().Get("q"), r.URL.Query().Get("n"), r.URL.Query().Get("q"))
		}))
		defer server.Close()
		host := strings.TrimPrefix(server.URL, "http://")
		list := func(args ...string) string {
			return c.ok(append(append([]string{"search", "--format", "{{.Name}}|{{.StarCount}}|{{.IsOfficial}}"}, args...), host+"/term")...)
		}
		c.equal(list(), "many/25|50|[OK]\nfew/term|3|")
		c.equal(list("--limit", "7", "--filter", "stars=10"), "many/7|50|[OK]")
		c.equal(list("--filter", "is-official=false"), "few/term|3|")
		c.contains(c.ok("search", host+"/term"), "a description that is rather long, and goes …")
		c.contains(c.ok("search", "--no-trunc", host+"/term"), "a description that is rather long, and goes on")
		c.fails(1, "limit 101 is outside the range of [1, 100]", "search", "--limit", "101", host+"/term")
		c.fails(1, "invalid filter 'color'", "search", "--filter", "color=red", host+"/term")
		c.fails(1, "invalid filter 'stars=some'", "search", "--filter", "stars=some", host+"/term")
		c.fails(1, "refused", "search", "127.0.0.1:1/term")
		c.fails(1, "cannot be searched: it does not have version 1 of the registries' API (404 Not Found)", "search", realRegistry(c.T)+"/term")
	})
}
