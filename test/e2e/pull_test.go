package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/davit-engine/davit/test/faultproxy"
	"github.com/davit-engine/davit/test/private"
)

// impatient is the configuration of engines that give up soon.
const impatient = "[images]\nmax_download_attempts = 2\nregistry_timeout = \"1s\"\n"

// faulty is Debian's registry behind a proxy that spoils what it says.
func faulty(t *testing.T) *faultproxy.Proxy {
	t.Helper()
	p := faultproxy.Before(realRegistry(t))
	t.Cleanup(p.Close)
	return p
}

// archived is an image with a file per layer, for this host's platform.
func archived(t *testing.T, contents ...string) v1.Image {
	t.Helper()
	img := empty.Image
	for i, content := range contents {
		body := read(t, archiveOf(t, map[string]string{fmt.Sprintf("file%d", i): content}))
		var err error
		if img, err = mutate.AppendLayers(img, static.NewLayer([]byte(body), types.DockerUncompressedLayer)); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// noise is text that no two calls have in common.
func noise(t *testing.T, size int64) string {
	t.Helper()
	layer, err := random.Layer(size, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Repeat(digest.Hex, int(size)/len(digest.Hex)+1)
}

// pushIndex puts an index and its images into a registry.
func pushIndex(t *testing.T, ref string, index v1.ImageIndex) {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(parsed, index); err != nil {
		t.Fatal(err)
	}
}

// pullStatus is what the API answers to a request for a pull.
func pullStatus(t *testing.T, e *private.Engine, ref string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://davit/images/create?fromImage="+ref, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := e.HTTP().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode
}

// TestFaultsOfRegistries: each has its own words and status, with both clients, and
// leaves nothing.
func TestFaultsOfRegistries(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{Tables: impatient})
	p := faulty(t)
	img := archived(t, "content")
	ref := p.Address + "/team/app:v1"
	push(t, ref, img)
	blob := "/blobs/" + layerDigest(t, img)
	before := storedBlobs(t, e)
	index := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:` + strings.Repeat("0", 64) + `","size":2,"platform":{"os":"linux","architecture":"amd64"}}]}`
	manifest := func(layer, config string) string {
		return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"` + config + `","digest":"sha256:` + strings.Repeat("1", 64) + `","size":2},
			"layers":[{"mediaType":"` + layer + `","digest":"sha256:` + strings.Repeat("2", 64) + `","size":2}]}`
	}
	is := func(kind string) http.Header { return http.Header{"Content-Type": {kind}} }
	const ociManifest, ociConfig, ociLayer = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar"
	for _, c := range []struct {
		what   string
		fault  faultproxy.Fault
		status int
		want   string
	}{
		{"401", faultproxy.Fault{Path: "/manifests/", Status: 401, Body: `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`}, 404, "pull access denied for " + p.Address + "/team/app, repository does not exist or may require 'docker login': unauthorized: authentication required"},
		{"403", faultproxy.Fault{Path: "/manifests/", Status: 403, Body: `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`}, 404, "pull access denied for " + p.Address + "/team/app, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"},
		{"404", faultproxy.Fault{Path: "/manifests/", Status: 404, Body: `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`}, 404, "manifest for " + ref + " not found: manifest unknown: manifest unknown"},
		{"429", faultproxy.Fault{Path: "/manifests/", Status: 429, Header: http.Header{"Retry-After": {"120"}, "Ratelimit-Limit": {"100;w=21600"}}, Body: `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`}, 500,
			"toomanyrequests: You have reached your pull rate limit. (" + p.Address + " limits requests, to 100 in 6h0m0s: try again in 2m0s; with 'docker login " + p.Address + "' the limit may be higher)"},
		{"429 without a word", faultproxy.Fault{Path: "/manifests/", Status: 429}, 500, "toomanyrequests: "},
		{"500", faultproxy.Fault{Path: "/manifests/", Status: 500, Body: "oops"}, 503, "unexpected status code 500 Internal Server Error: oops"},
		{"503", faultproxy.Fault{Path: "/manifests/", Status: 503}, 503, "503 Service Unavailable"},
		{"a silent registry", faultproxy.Fault{Path: "/v2/", Hang: true}, 503, "no answer within 1s: the registry is silent"},
		{"schema 1", faultproxy.Fault{Path: "/manifests/", Status: 200, Header: is("application/vnd.docker.distribution.manifest.v1+prettyjws"), Body: `{"schemaVersion":1}`}, 400, "schema 1 support is disabled by default and will be removed in an upcoming release. Suggest the author of " + ref},
		{"an index of itself", faultproxy.Fault{Path: "/manifests/", Status: 200, Header: is("application/vnd.oci.image.index.v1+json"), Body: index}, 501, "an index within an index is not supported"},
		{"no manifest", faultproxy.Fault{Path: "/manifests/", Status: 200, Header: is("text/html"), Body: "{}"}, 400, `unsupported manifest media type "text/html"`},
		{"a manifest without end", faultproxy.Fault{Path: "/manifests/", Status: 200, Header: is(ociManifest), Body: strings.Repeat(" ", 5<<20)}, 400, "has more than 4194304 bytes"},
		{"a foreign layer", faultproxy.Fault{Path: "/manifests/", Status: 200, Header: is(ociManifest), Body: manifest("application/vnd.oci.image.layer.nondistributable.v1.tar", ociConfig)}, 400, "is a foreign layer"},
		{"a layer of another kind", faultproxy.Fault{Path: "/manifests/", Status: 200, Header: is(ociManifest), Body: manifest("text/plain", ociConfig)}, 400, "unsupported media type text/plain of layer"},
		{"an artifact", faultproxy.Fault{Path: "/manifests/", Status: 200, Header: is(ociManifest), Body: manifest(ociLayer, "application/vnd.cncf.helm.config.v1+json")}, 400, "is not an image: unsupported media type application/vnd.cncf.helm.config.v1+json"},
		{"a huge configuration", faultproxy.Fault{Path: "/manifests/", Status: 200, Header: is(ociManifest), Body: strings.Replace(manifest(ociLayer, ociConfig), `"size":2`, `"size":5000000`, 1)}, 400, "has 5000000 bytes, at most 4194304 are read"},

		{"a layer of other bytes", faultproxy.Fault{Path: blob, Rewrite: func(b []byte) []byte { b[9] ^= 1; return b }}, 200, "filesystem layer verification failed for digest " + layerDigest(t, img)},
		{"a layer of other length", faultproxy.Fault{Path: blob, Rewrite: func(b []byte) []byte { return append(b, 0) }}, 200, "filesystem layer verification failed for digest " + layerDigest(t, img)},
		{"a layer that is not there", faultproxy.Fault{Path: blob, Status: 404, Body: `{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}`}, 200, "blob unknown to registry"},
		{"a layer that breaks off", faultproxy.Fault{Path: blob, Cut: 100}, 200, "unexpected EOF"},
		{"a layer that stalls", faultproxy.Fault{Path: blob, Cut: 100, Stall: true}, 200, "the registry is silent"},
	} {
		t.Run(c.what, func(t *testing.T) {
			p.Set(c.fault)
			for _, client := range []string{"docker", "davit"} {
				newClient(t, client, e).fails(1, c.want, "pull", ref)
			}
			if c.status != 200 {
				if got := pullStatus(t, e, ref); got != c.status {
					t.Errorf("status %d, want %d", got, c.status)
				}
			}
		})
	}
	c := newClient(t, "davit", e)
	c.equal(c.ok("images", "-q", p.Address+"/team/app"), "")
	c.ok("image", "prune", "-f")
	c.equal(storedBlobs(t, e), before)
	// Once the registry is well again nothing of all this is in the way.
	p.Set()
	p.Set(faultproxy.Fault{Path: "/manifests/", Status: 429, Header: http.Header{"Retry-After": {"2"}}, Times: 2})
	c.contains(c.ok("pull", ref), "Downloaded newer image for "+ref)

	// A push is limited as well.
	p.Set(faultproxy.Fault{Method: http.MethodPut, Path: "/manifests/", Status: 429, Header: http.Header{"Retry-After": {"300"}}})
	c.fails(1, "limits requests: try again in 5m0s; with 'docker login "+p.Address+"' the limit may be higher", "push", ref)
}

// TestAPullGoesOn after broken connections, Ctrl-C of the client and SIGKILL of the
// engine; each time from where it was.
func TestAPullGoesOn(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{Tables: "[images]\nmax_download_attempts = 2\n"})
	p := faulty(t)
	for _, client := range []string{"docker", "davit"} {
		c := newClient(t, client, e)
		img := archived(t, noise(t, 4<<20))
		ref := p.Address + "/team/" + client + ":v1"
		push(t, ref, img)
		blob := "/blobs/" + layerDigest(t, img)
		p.Forget()

		p.Set(faultproxy.Fault{Path: blob, Cut: 1 << 20, Times: 1})
		out := c.ok("pull", ref)
		c.contains(out, ": Retrying in 1 second\n")
		c.contains(out, "Downloaded newer image")
		if asked := p.Asked("GET", blob); len(asked) != 2 || !strings.HasPrefix(asked[1].Range, "bytes=1048576-") {
			t.Errorf("after a broken connection: %+v", asked)
		}
		c.ok("rmi", ref)

		p.Forget()
		p.Set(faultproxy.Fault{Path: blob, Cut: 2 << 20, Stall: true, Times: 1})
		stop := c.pulling(ref)
		eventually(t, "two mebibytes", func() error { return atLeast(ingested(e), 2<<20) })
		stop(syscall.SIGINT)
		p.Set(faultproxy.Fault{Path: blob, Cut: 1 << 20, Stall: true, Times: 1})
		stop = c.pulling(ref)
		eventually(t, "the next mebibyte", func() error { return atLeast(ingested(e), 3<<20) })
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		stop(syscall.SIGKILL)
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		if err := e.Start(ctx); err != nil {
			t.Fatal(err)
		}
		c.contains(c.ok("pull", ref), "Downloaded newer image")
		asked := p.Asked("GET", blob)
		if len(asked) != 3 || !strings.HasPrefix(asked[1].Range, "bytes=") || !strings.HasPrefix(asked[2].Range, "bytes=") {
			t.Errorf("after Ctrl-C and SIGKILL: %+v", asked)
		}
		c.ok("rmi", ref)
	}
}

// ingested is how many bytes an engine has of blobs that are not whole.
func ingested(e *private.Engine) (sum int64) {
	parts, _ := filepath.Glob(filepath.Join(e.Root, "images/content/ingest/*/data"))
	for _, part := range parts {
		if info, err := os.Stat(part); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

func atLeast(got, want int64) error {
	if got < want {
		return fmt.Errorf("%d bytes, want %d", got, want)
	}
	return nil
}

// pulling starts a pull; stop ends the client with a signal.
func (c *client) pulling(ref string) (stop func(syscall.Signal)) {
	c.Helper()
	return c.starting("pull", ref)
}

// starting starts a command; stop ends the client with a signal.
func (c *client) starting(args ...string) (stop func(syscall.Signal)) {
	c.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	cmd := c.engine.Command(ctx, c.name, args...)
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	return func(signal syscall.Signal) {
		c.Helper()
		defer cancel()
		_ = cmd.Process.Signal(signal)
		_ = cmd.Wait()
	}
}

// TestPullsShareDownloads: two clients want an image, one leaves, and each blob is
// sent once.
func TestPullsShareDownloads(t *testing.T) {
	t.Parallel()
	p := faulty(t)
	img := archived(t, noise(t, 2<<20))
	ref := p.Address + "/team/app:v1"
	push(t, ref, img)
	blob := "/blobs/" + layerDigest(t, img)
	p.Forget()
	p.Set(faultproxy.Fault{Path: blob, Rate: 1 << 20})
	first, second := newClient(t, "docker", engine), newClient(t, "davit", engine)
	t.Cleanup(func() { second.run("rmi", ref) })
	stop := first.pulling(ref)
	eventually(t, "the download", func() error { return atLeast(p.Sent("GET", blob), 1) })
	done := make(chan result, 1)
	go func() { done <- second.run("pull", ref) }()
	eventually(t, "the second pull", func() error { return atLeast(int64(len(p.Asked("GET", "/manifests/"))), 2) })
	eventually(t, "the middle", func() error { return atLeast(p.Sent("GET", blob), 1<<20) })
	stop(syscall.SIGINT)
	r := <-done
	second.contains(r.out, "Downloaded newer image")
	if asked := p.Asked("GET", blob); len(asked) != 1 {
		t.Errorf("the layer was sent %d times: %+v", len(asked), asked)
	}
	// Nobody left: the download ends.
	second.ok("rmi", ref)
	p.Forget()
	p.Set(faultproxy.Fault{Path: blob, Cut: 1 << 19, Stall: true})
	stop = second.pulling(ref)
	eventually(t, "the download", func() error { return atLeast(ingested(engine), 1<<19) })
	stop(syscall.SIGINT)
	p.Set()
	second.ok("pull", ref)
	if asked := p.Asked("GET", blob); len(asked) != 2 || asked[1].Range == "" {
		t.Errorf("after all had left: %+v", asked)
	}
}

func TestPullAllTags(t *testing.T) {
	both(t, func(c *client) {
		address := realRegistry(c.T)
		repository := address + "/team/" + c.name
		for _, tag := range []string{"one", "two"} {
			push(c.T, repository+":"+tag, archived(c.T, c.prefix+tag))
		}
		c.Cleanup(func() { c.run("rmi", repository+":one", repository+":two") })
		out := c.ok("pull", "-a", repository)
		for _, want := range []string{"one: Pulling from team/" + c.name, "two: Pulling from team/" + c.name, "Status: Downloaded newer image for " + repository, "\n" + repository} {
			c.contains(out, want)
		}
		tags := strings.Fields(c.ok("images", "--format", "{{.Tag}}", repository))
		slices.Sort(tags)
		c.equal(strings.Join(tags, " "), "one two")
		c.fails(1, "tag can't be used with --all-tags/-a", "pull", "-a", repository+":one")
		c.fails(1, "repository name not known to registry", "pull", "-a", address+"/team/nothing")
		c.contains(c.run("pull", repository).out, "Using default tag: latest")
		c.equal(c.ok("pull", "-q", repository+":one"), repository+":one")
	})
}

func TestPullForAPlatform(t *testing.T) {
	both(t, func(c *client) {
		address := realRegistry(c.T)
		image := func(architecture, variant string) mutate.IndexAddendum {
			img := archived(c.T, c.prefix+architecture+variant)
			config, err := img.ConfigFile()
			if err != nil {
				c.Fatal(err)
			}
			config = config.DeepCopy()
			config.OS, config.Architecture, config.Variant = "linux", architecture, variant
			if img, err = mutate.ConfigFile(img, config); err != nil {
				c.Fatal(err)
			}
			return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture, Variant: variant}}}
		}
		pushIndex(c.T, address+"/team/app:v1", mutate.AppendManifests(empty.Index, image("arm", "v5"), image("arm", "v6"), image("s390x", "")))
		ref := address + "/team/app:v1"
		c.Cleanup(func() { c.run("rmi", "-f", ref) })
		of := func() string { return c.ok("image", "inspect", "-f", "{{.Architecture}}{{.Variant}}", ref) }
		for platform, want := range map[string]string{"linux/arm/v7": "armv6", "linux/arm/v5": "armv5", "linux/s390x": "s390x"} {
			c.ok("pull", "--platform", platform, ref)
			c.equal(of(), want)
			c.ok("rmi", "-f", ref)
		}
		c.fails(1, "no matching manifest for linux/riscv64 in the manifest list entries", "pull", "--platform", "linux/riscv64", ref)
		// Two are here under one name, and one of them goes on.
		c.ok("pull", "--platform", "linux/arm/v6", ref)
		c.ok("pull", "--platform", "linux/s390x", ref)
		other := address + "/team/other:v1"
		c.ok("tag", ref, other)
		c.Cleanup(func() { c.run("rmi", "-f", other) })
		for _, platform := range []string{"linux/s390x", "linux/arm/v6"} {
			want := c.ok("push", "--platform", platform, other)
			parsed, err := name.ParseReference(other)
			if err != nil {
				c.Fatal(err)
			}
			img, err := remote.Image(parsed)
			if err != nil {
				c.Fatal(err)
			}
			config, err := img.ConfigFile()
			digest, _ := img.Digest()
			if err != nil || config.Platform().String() != platform || !strings.Contains(want, digest.String()) {
				c.Errorf("the registry has %v, %v, want %s; push said %s", config, err, platform, want)
			}
		}
		c.fails(1, "was found but does not provide the specified platform (linux/riscv64)", "push", "--platform", "linux/riscv64", other)
		single := address + "/team/single:v1"
		push(c.T, single, image("s390x", "").Add.(v1.Image))
		c.Cleanup(func() { c.run("rmi", "-f", single) })
		c.contains(c.ok("pull", "--platform", "linux/arm64", single), "WARNING: image with reference "+single+" was found but its platform (linux/s390x) does not match the specified platform (linux/arm64)")
	})
}

// TestStoresThatTakeNothing: a full disk and one that cannot be written are named, and
// what was brought is not left.
func TestStoresThatTakeNothing(t *testing.T) {
	t.Parallel()
	ref := realRegistry(t) + "/team/app:v1"
	push(t, ref, archived(t, noise(t, 8<<20)))
	for what, c := range map[string]struct{ args, want string }{
		"full":      {"-t tmpfs -o size=4m none", "no space left on device"},
		"read-only": {"-t tmpfs -o ro none", "read-only file system"},
	} {
		t.Run(what, func(t *testing.T) {
			e := ownEngine(t, private.Options{})
			client := newClient(t, "davit", e)
			before := storedBlobs(t, e)
			place := filepath.Join(e.Root, "images/content/ingest")
			args := append(strings.Fields(c.args), place)
			if what == "full" {
				// Blobs are renamed into their place: both are on the small disk.
				place = filepath.Join(e.Root, "images/content")
				args = append(strings.Fields(c.args), place)
			}
			if out, err := exec.CommandContext(t.Context(), "mount", args...).CombinedOutput(); err != nil {
				t.Fatalf("mount %v: %v\n%s", args, err, out)
			}
			if what == "full" {
				if err := os.MkdirAll(filepath.Join(place, "ingest"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			unmount := sync.OnceValue(func() error { return exec.Command("umount", place).Run() })
			t.Cleanup(func() { _ = unmount() })
			client.fails(1, c.want, "pull", ref)
			if what == "full" {
				if left, err := os.ReadDir(filepath.Join(place, "ingest")); err != nil || len(left) > 0 {
					t.Errorf("a part of the blob is left: %v, %v", left, err)
				}
			}
			if err := unmount(); err != nil {
				t.Fatal(err)
			}
			client.ok("image", "prune", "-f")
			client.equal(storedBlobs(t, e), before)
			client.contains(client.ok("pull", ref), "Downloaded newer image")
		})
	}
}

// TestProgressOfAPull for people and for programs.
func TestProgressOfAPull(t *testing.T) {
	t.Parallel()
	c := newClient(t, "davit", engine)
	ref := realRegistry(t) + "/team/app:v1"
	push(t, ref, archived(t, noise(t, 2<<20)))
	t.Cleanup(func() { c.run("rmi", ref) })
	var last jsonstream.Message
	sizes := false
	for line := range strings.Lines(c.ok("pull", "--progress", "json", ref)) {
		last = jsonstream.Message{}
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		sizes = sizes || last.Status == "Downloading" && last.Progress != nil && last.Progress.Total > 2<<20 && last.Progress.Current == last.Progress.Total
	}
	c.equal(last.Status, "Status: Downloaded newer image for "+ref)
	if !sizes {
		t.Error("no message tells that all bytes are here")
	}
	c.ok("rmi", ref)
	c.contains(c.ok("pull", "--progress", "tty", ref), "Total: 1/1 layers")
	c.ok("rmi", ref)
	c.contains(c.ok("pull", "--progress", "plain", ref), ": Download complete\n")
	c.fails(1, "is none of auto, json, plain, tty", "pull", "--progress", "loud", ref)
}

// TestMirrorsAndBlockedRegistries as the configuration says, and as info tells.
func TestMirrorsAndBlockedRegistries(t *testing.T) {
	t.Parallel()
	mirror := realRegistry(t)
	push(t, mirror+"/hub/library/app:v1", archived(t, noise(t, 100)))
	e := ownEngine(t, private.Options{Tables: impatient + fmt.Sprintf(`
[registries."docker.io"]
mirrors = ["127.0.0.1:1", "http://%s/hub"]
[registries."blocked.example"]
blocked = true
`, mirror)})
	for _, client := range []string{"docker", "davit"} {
		c := newClient(t, client, e)
		c.contains(c.ok("pull", "app:v1"), "Downloaded newer image for app:v1")
		c.ok("rmi", "app:v1")
		c.fails(1, "registry blocked.example is blocked by the configuration", "pull", "blocked.example/app")
		c.fails(1, "registry blocked.example is blocked by the configuration", "login", "-u", "a", "-p", "b", "blocked.example")
		c.fails(125, "registry blocked.example is blocked by the configuration", "run", "--rm", "blocked.example/app")
	}
	if _, err := exec.LookPath("docker"); err == nil {
		out := newClient(t, "docker", e).ok("info")
		for _, want := range []string{"Insecure Registries:\n  ::1/128\n  127.0.0.0/8", "Registry Mirrors:\n  https://127.0.0.1:1/\n  http://" + mirror + "/hub/"} {
			if !strings.Contains(out, want) && !strings.Contains(out, strings.Replace(want, "::1/128\n  127.0.0.0/8", "127.0.0.0/8\n  ::1/128", 1)) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
	}
}
