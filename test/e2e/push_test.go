package e2e

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// closedRegistry wants a password, and notes what is asked of it.
type closedRegistry struct {
	address string
	mu      sync.Mutex
	asked   []string
}

func newClosedRegistry(t *testing.T) *closedRegistry {
	t.Helper()
	c := &closedRegistry{}
	blobs := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "somebody" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
			return
		}
		c.mu.Lock()
		c.asked = append(c.asked, r.Method+" "+r.URL.String())
		c.mu.Unlock()
		// The library's registry shows every repository the blobs of all.
		if r.Method == http.MethodHead && strings.HasPrefix(r.URL.Path, "/v2/team/other/blobs/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		blobs.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	c.address = strings.TrimPrefix(server.URL, "http://")
	return c
}

// count is how many requests there were with a beginning and a part.
func (c *closedRegistry) count(begin, part string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, request := range c.asked {
		if strings.HasPrefix(request, begin) && strings.Contains(request, part) {
			n++
		}
	}
	return n
}

func (c *closedRegistry) image(t *testing.T, ref string) v1.Image {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(parsed, remote.WithAuth(&authn.Basic{Username: "somebody", Password: "secret"}))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestLoginPushAndPull(t *testing.T) {
	both(t, func(c *client) {
		closed := newClosedRegistry(c.T)
		c.env = []string{"DOCKER_CONFIG=" + c.TempDir()}
		ref := closed.address + "/team/app:v1"
		c.ok("import", "--change", "LABEL who="+c.prefix, writeBusybox(c.T), ref)
		c.Cleanup(func() { c.run("rmi", "-f", ref) })

		c.fails(1, "unauthorized: authentication required", "push", ref)
		c.with("wrong").fails(1, "unauthorized: authentication required", "login", "-u", "somebody", "--password-stdin", closed.address)
		c.contains(c.with("secret\n").ok("login", "-u", "somebody", "--password-stdin", closed.address), "Login Succeeded")

		out := c.ok("push", ref)
		c.contains(out, "The push refers to repository ["+closed.address+"/team/app]")
		c.contains(out, "v1: digest: sha256:")
		digest, err := closed.image(c.T, ref).Digest()
		if err != nil {
			c.Fatal(err)
		}
		c.contains(out, digest.String())
		c.equal(c.ok("inspect", "-f", "{{index .RepoDigests 0}}", ref), closed.address+"/team/app@"+digest.String())

		// What is there is not sent again, and what another repository has is mounted.
		sent := closed.count("PATCH", "") + closed.count("PUT", "/blobs/uploads/")
		c.contains(c.ok("push", ref), "Layer already exists")
		if now := closed.count("PATCH", "") + closed.count("PUT", "/blobs/uploads/"); now != sent {
			c.Errorf("%d uploads for an image that is there", now-sent)
		}
		other := closed.address + "/team/other:v1"
		c.ok("tag", ref, other)
		c.Cleanup(func() { c.run("rmi", "-f", other) })
		c.ok("push", "-q", other)
		if closed.count("POST", "mount=sha256") == 0 {
			c.Error("no blob was mounted from the other repository")
		}

		c.ok("rmi", "-f", ref, other)
		c.contains(c.ok("pull", ref), digest.String())
		c.equal(c.ok("run", "--rm", ref, "echo", "came back"), "came back")

		c.ok("logout", closed.address)
		c.ok("rmi", "-f", ref)
		c.fails(1, "pull access denied", "pull", ref)
	})
}

func TestPushAllTagsToARealRegistry(t *testing.T) {
	both(t, func(c *client) {
		address := realRegistry(c.T)
		one, two := address+"/team/box:one", address+"/team/box:two"
		c.ok("import", "--change", "LABEL who="+c.prefix, writeBusybox(c.T), one)
		c.ok("tag", one, two)
		c.Cleanup(func() { c.run("rmi", "-f", one, two) })
		out := c.ok("push", "-a", address+"/team/box")
		c.contains(out, "one: digest: sha256:")
		c.contains(out, "two: digest: sha256:")
		c.ok("rmi", "-f", one, two)
		c.contains(c.ok("pull", two), "Downloaded newer image")
		c.equal(c.ok("run", "--rm", two, "echo", "back"), "back")

		c.fails(1, "An image does not exist locally with the tag", "push", address+"/team/nothing:v1")
		c.fails(1, "invalid reference format", "push", "Not/A:Name:x")
		c.ok("tag", two, "127.0.0.1:1/nobody/home:v1")
		c.Cleanup(func() { c.run("rmi", "127.0.0.1:1/nobody/home:v1") })
		c.fails(1, "refused", "push", "127.0.0.1:1/nobody/home:v1")
	})
}

// TestPushOfAnIndex: one of which all platforms are here is pushed as it is, and
// otherwise the platform that is.
func TestPushOfAnIndex(t *testing.T) {
	t.Parallel()
	c := newClient(t, "davit", engine)
	address := realRegistry(t)
	from, to := address+"/from:v1", address+"/to:v1"
	own, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	config, err := own.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", "amd64"
	if own, err = mutate.ConfigFile(own, config); err != nil {
		t.Fatal(err)
	}
	foreign, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: own, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: foreign, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}})
	parsed, err := name.ParseReference(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(parsed, index); err != nil {
		t.Fatal(err)
	}
	c.ok("pull", from)
	c.ok("tag", from, to)
	t.Cleanup(func() { c.run("rmi", "-f", from, to) })
	want, err := own.Digest()
	if err != nil {
		t.Fatal(err)
	}
	c.contains(c.ok("push", to), "v1: digest: "+want.String())
	if parsed, err = name.ParseReference(to); err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(parsed)
	if err != nil {
		t.Fatal(err)
	}
	if digest, err := got.Digest(); err != nil || digest != want {
		t.Errorf("the registry has %v, %v, want %v", digest, err, want)
	}
}
