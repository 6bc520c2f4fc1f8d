package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/test/private"
)

// realRegistry runs Debian's docker-registry on loopback.
func realRegistry(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	config := filepath.Join(dir, "config.yml")
	write(t, config, fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", dir, address))
	cmd := exec.CommandContext(t.Context(), "docker-registry", "serve", config)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("docker-registry: %v: run test/setup.sh test", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(t, "the registry", func() error {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return fmt.Errorf("%w: %s", err, said.String())
		}
		return conn.Close()
	})
	return address
}

// push puts an image into a registry.
func push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(parsed, img); err != nil {
		t.Fatal(err)
	}
}

// saved is an image of the engine as others read it.
func (c *client) saved(image string) v1.Image {
	c.Helper()
	file := filepath.Join(c.TempDir(), "image.tar")
	c.ok("save", "-o", file, image)
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		c.Fatal(err)
	}
	return img
}

func TestPullFromARealRegistry(t *testing.T) {
	both(t, func(c *client) {
		address := realRegistry(c.T)
		ref := address + "/team/box:v1"
		own := c.own("pushed")
		c.ok("import", "--change", "LABEL who="+c.prefix, writeBusybox(c.T), own)
		c.Cleanup(func() { c.run("rmi", own) })
		push(c.T, ref, c.saved(own))
		c.Cleanup(func() { c.run("rmi", "-f", ref) })
		out := c.ok("pull", ref)
		c.contains(out, "Downloaded newer image for "+ref)
		c.contains(out, "Digest: sha256:")
		c.contains(c.ok("pull", ref), "Image is up to date for "+ref)
		c.equal(c.ok("run", "--rm", ref, "echo", "pulled"), "pulled")
		digest := c.ok("inspect", "--type", "image", "-f", "{{index .RepoDigests 0}}", ref)
		c.contains(digest, address+"/team/box@sha256:")
		c.equal(c.ok("run", "--rm", digest, "echo", "by digest"), "by digest")
		// run pulls by itself what is missing.
		c.ok("rmi", "-f", ref)
		r := c.run("run", "--rm", ref, "echo", "again")
		c.equal(r.out, "again\n")
		c.contains(r.err, "Unable to find image '"+ref+"' locally")
		c.fails(1, "manifest for "+address+"/team/box:v2 not found", "pull", address+"/team/box:v2")
		c.fails(1, "not found", "pull", address+"/team/nothing:v1")
		c.fails(125, "refused", "run", "--rm", "127.0.0.1:1/nobody/home", "true")
	})
}

func TestTagsSaveAndLoad(t *testing.T) {
	both(t, func(c *client) {
		one, two := c.own("one")+":1", c.own("two")+":2"
		c.Cleanup(func() { c.run("rmi", one, two) })
		c.ok("import", "--change", "LABEL who="+c.prefix, "--message", "for "+c.prefix, archiveOf(c.T, map[string]string{"file": c.prefix}), one)
		c.ok("tag", one, two)
		id := c.ok("inspect", "-f", "{{.Id}}", one)
		c.equal(c.ok("inspect", "-f", "{{.Id}}", two), id)
		c.equal(c.ok("images", "-q", "--no-trunc", one), id)
		c.contains(c.ok("history", "--no-trunc", one), "for "+c.prefix)
		file := filepath.Join(c.TempDir(), "images.tar")
		c.ok("save", "-o", file, one, two)
		c.contains(c.ok("rmi", one), "Untagged: "+one)
		c.contains(c.ok("rmi", two), "Deleted: "+id)
		c.fails(1, "No such image", "image", "inspect", one)
		out := c.ok("load", "-i", file)
		c.contains(out, "Loaded image: "+one)
		c.contains(out, "Loaded image: "+two)
		c.equal(c.ok("inspect", "-f", "{{.Id}}", two), id)
		c.equal(c.with(read(c.T, file)).ok("load", "-q"), out)
		// A device stays one.
		device := filepath.Join(c.TempDir(), "null")
		if err := unix.Mknod(device, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
			c.Fatal(err)
		}
		if r := c.run("save", "-o", device, one); r.code == 0 {
			c.Errorf("saved to a device: %s%s", r.out, r.err)
		}
		if info, err := os.Lstat(device); err != nil || info.Mode()&os.ModeCharDevice == 0 {
			c.Errorf("the device is %v now, %v", info, err)
		}
	})
}

func TestAnImageInUseStays(t *testing.T) {
	both(t, func(c *client) {
		image := c.own("image") + ":1"
		push := archiveOf(c.T, nil)
		c.ok("import", "--change", `CMD ["sleep", "600"]`, push, image)
		c.Cleanup(func() { c.run("rmi", "-f", image) })
		c.ok("create", "--name", c.own("box"), image)
		c.Cleanup(func() { c.run("rm", "-f", c.own("box")) })
		c.fails(1, "conflict: unable to remove repository reference", "rmi", image)
		c.ok("rm", c.own("box"))
		c.ok("rmi", image)
	})
}

// TestDamagedImages gives the engine what a broken or hostile registry would.
func TestDamagedImages(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{Tables: "[images]\nmax_download_attempts = 2\n"})
	c := newClient(t, "davit", e)
	layer := func(body string) v1.Layer { return static.NewLayer([]byte(body), types.DockerUncompressedLayer) }
	image := func(layers ...v1.Layer) v1.Image {
		img, err := mutate.AppendLayers(empty.Image, layers...)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	good := read(t, archiveOf(t, map[string]string{"file": strings.Repeat("content\n", 1000)}))
	blobs := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	damage := func(http.ResponseWriter, *http.Request) bool { return false }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !damage(w, r) {
			blobs.ServeHTTP(w, r)
		}
	}))
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/bad/image:1"
	before := c.ok("images", "-q")
	layersBefore, blobsBefore := storageLayers(t, e), storedBlobs(t, e)

	t.Run("not an archive", func(t *testing.T) {
		push(t, ref, image(layer(strings.Repeat("this is no tar archive", 100))))
		c.fails(1, "corrupt layer", "pull", ref)
	})
	t.Run("cut archive", func(t *testing.T) {
		push(t, ref, image(layer(good[:len(good)/2])))
		c.fails(1, "corrupt layer", "pull", ref)
	})
	t.Run("other bytes than the digest says", func(t *testing.T) {
		img := image(layer(good))
		push(t, ref, img)
		digest := layerDigest(t, img)
		damage = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest) {
				return false
			}
			_, _ = w.Write(bytes.Repeat([]byte("x"), len(good)))
			return true
		}
		c.fails(1, digest, "pull", ref)
	})
	t.Run("cut connection", func(t *testing.T) {
		img := image(layer(good))
		push(t, ref, img)
		digest := layerDigest(t, img)
		damage = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(good)))
			_, _ = w.Write([]byte(good[:len(good)/2]))
			panic(http.ErrAbortHandler)
		}
		c.fails(1, digest, "pull", ref)
	})
	t.Run("a wrong diff ID", func(t *testing.T) {
		damage = func(http.ResponseWriter, *http.Request) bool { return false }
		img := image(layer(good))
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		config = config.DeepCopy()
		config.RootFS.DiffIDs[0] = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
		wrong, err := mutate.ConfigFile(img, config)
		if err != nil {
			t.Fatal(err)
		}
		push(t, ref, wrong)
		c.fails(1, "diff ID", "pull", ref)
	})
	t.Run("paths that lead out", func(t *testing.T) {
		outside := filepath.Join(t.TempDir(), "planted")
		push(t, ref, image(layer(read(t, escapingArchive(t, outside)))))
		c.ok("pull", ref)
		if _, err := os.Lstat(outside); err == nil {
			t.Error("a layer wrote outside its root")
		}
		c.ok("rmi", ref)
	})
	c.equal(c.ok("images", "-q"), before)
	if after := storageLayers(t, e); after != layersBefore {
		t.Errorf("%d layers in the storage driver, before %d", after, layersBefore)
	}
	c.ok("image", "prune", "-f")
	c.equal(storedBlobs(t, e), blobsBefore)
	c.with("no archive at all").fails(1, "", "load")
	c.with("no archive at all").fails(1, "corrupt", "import", "-", "x")
}

// writeBusybox is the archive that the image busybox is made of.
func writeBusybox(t *testing.T) string {
	t.Helper()
	body, err := busyboxTar(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "busybox.tar")
	write(t, path, string(body))
	return path
}

func layerDigest(t *testing.T, img v1.Image) string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// storageLayers counts the layers of images in the storage driver, and what is being
// unpacked.
func storageLayers(t *testing.T, e *private.Engine) int {
	t.Helper()
	layers, err := filepath.Glob(filepath.Join(e.Root, "drivers/storage-overlay/s/*/fs"))
	if err != nil || len(layers) == 0 {
		t.Fatalf("no layers, though busybox is here: %v", err)
	}
	return len(layers)
}

// storedBlobs lists what is in the content store, parts of blobs too.
func storedBlobs(t *testing.T, e *private.Engine) string {
	t.Helper()
	var list []string
	for _, dir := range []string{"blobs/sha256", "ingest"} {
		entries, err := os.ReadDir(filepath.Join(e.Root, "images", "content", dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, entry := range entries {
			list = append(list, dir+"/"+entry.Name())
		}
	}
	return strings.Join(list, "\n")
}
