package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// exchanged makes an image of two layers, with two names, and answers its ID and an
// archive of it.
func (c *client) exchanged() (id, first, second, file string) {
	c.Helper()
	first, second, file = c.own("first")+":1", c.own("second")+":2", filepath.Join(c.TempDir(), "saved.tar")
	c.Cleanup(func() { c.run("rmi", "-f", first, second) })
	c.ok("run", "--name", c.own("made"), "busybox", "sh", "-c", "echo "+c.prefix+" >/file; rm /data/from-image; mkdir /empty; ln /file /linked")
	c.ok("commit", "-c", `CMD ["cat", "/file"]`, c.own("made"), first)
	c.ok("rm", c.own("made"))
	c.ok("tag", first, second)
	c.ok("save", "-o", file, first, second)
	return c.ok("image", "inspect", "-f", "{{.Id}}", first), first, second, file
}

// back loads what another tool wrote in the place of the image, and runs it.
func (c *client) back(id, file string, names ...string) {
	c.Helper()
	c.ok("rmi", "-f", id)
	c.loads(id, file, names...)
}

func (c *client) loads(id, file string, names ...string) {
	c.Helper()
	out := c.ok("load", "-i", file)
	for _, name := range names {
		c.contains(out, "Loaded image: "+name)
		c.equal(c.ok("image", "inspect", "-f", "{{.Id}}", name), id)
	}
	c.equal(c.ok("run", "--rm", id, "sh", "-c", "cat /linked; ls /data /empty"), c.prefix+"\n/data:\n\n/empty:")
}

func TestExchangeWithSkopeo(t *testing.T) {
	t.Parallel()
	c := newClient(t, "davit", engine)
	skopeo := tool(t, "skopeo")
	id, first, second, file := c.exchanged()
	for _, name := range []string{first, second} {
		var found struct{ Layers []string }
		if err := json.Unmarshal([]byte(skopeo("inspect", "docker-archive:"+file+":"+name)), &found); err != nil || len(found.Layers) != 2 {
			t.Errorf("skopeo finds %+v, %v", found, err)
		}
	}
	for _, format := range []string{"docker-archive", "oci-archive"} {
		out := filepath.Join(t.TempDir(), "copied.tar")
		skopeo("--insecure-policy", "copy", "docker-archive:"+file+":"+first, format+":"+out+":"+first)
		if format == "docker-archive" {
			c.back(id, out, first)
		} else {
			// The other format's configuration may be another.
			c.ok("rmi", "-f", id)
			c.contains(c.ok("load", "-i", out), "Loaded image: "+first)
			c.equal(c.ok("run", "--rm", first), c.prefix)
		}
	}
	// The OCI part of one archive, by its tag.
	c.ok("save", "-o", file, first)
	skopeo("--insecure-policy", "copy", "oci-archive:"+file+":1", "dir:"+filepath.Join(t.TempDir(), "dir"))
}

func TestExchangeWithPodmanAndBuildah(t *testing.T) {
	t.Parallel()
	for name, verbs := range map[string]struct {
		load  func(run func(...string) string, file, image string)
		write func(run func(...string) string, image, format, file string)
	}{
		"podman": {
			func(run func(...string) string, file, _ string) {
				run("load", "-q", "-i", file)
			},
			func(run func(...string) string, image, format, file string) {
				run("save", "-q", "--format", format, "-o", file, image)
			},
		},
		"buildah": {
			func(run func(...string) string, file, image string) {
				run("pull", "-q", "docker-archive:"+file+":"+image)
			},
			func(run func(...string) string, image, format, file string) {
				run("push", "-q", image, format+":"+file+":"+image)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, "davit", engine)
			tool(t, name)
			program := tool(t, "env")
			dir, err := os.MkdirTemp("", "images-") // podman wants short names
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			})
			if err := os.MkdirAll(dir+"/.config/containers", 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, dir+"/.config/containers/policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
			run := func(args ...string) string {
				t.Helper()
				return program(append([]string{"HOME=" + dir, name, "--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs"}, args...)...)
			}
			id, first, _, file := c.exchanged()
			verbs.load(run, file, first)
			c.equal(run("images", "-q", "--no-trunc", first), id)
			for _, format := range []string{"docker-archive", "oci-archive"} {
				out := filepath.Join(t.TempDir(), "saved.tar")
				verbs.write(run, first, format, out)
				c.ok("rmi", "-f", id)
				loaded := c.ok("load", "-i", out)
				name, found := strings.CutPrefix(strings.Split(loaded, "\n")[0], "Loaded image: ")
				if !found {
					t.Fatalf("loaded %q", loaded)
				}
				c.equal(c.ok("run", "--rm", name, "sh", "-c", "cat /linked; ls /data /empty"), c.prefix+"\n/data:\n\n/empty:")
				if format == "docker-archive" {
					c.equal(c.ok("image", "inspect", "-f", "{{.Id}}", name), id)
				}
				c.ok("rmi", "-f", c.ok("image", "inspect", "-f", "{{.Id}}", name))
				c.ok("load", "-i", file)
			}
		})
	}
}

func TestExchangeWithUmoci(t *testing.T) {
	t.Parallel()
	c := newClient(t, "davit", engine)
	umoci := tool(t, "umoci")
	_, first, _, file := c.exchanged()
	c.ok("save", "-o", file, first)
	layout, out := filepath.Join(t.TempDir(), "layout"), filepath.Join(t.TempDir(), "packed.tar")
	if err := os.Mkdir(layout, 0o755); err != nil {
		t.Fatal(err)
	}
	pack := tool(t, "tar")
	pack("-xf", file, "-C", layout)
	bundle := filepath.Join(t.TempDir(), "bundle")
	umoci("unpack", "--image", layout+":1", bundle)
	c.equal(read(t, bundle+"/rootfs/linked"), c.prefix+"\n")
	if _, err := os.Stat(bundle + "/rootfs/data/from-image"); err == nil {
		t.Error("umoci finds a file that was deleted")
	}
	write(t, bundle+"/rootfs/added", "by umoci\n")
	umoci("repack", "--image", layout+":2", bundle)
	umoci("config", "--image", layout+":2", "--tag", "3", "--config.label", "who=umoci")
	umoci("rm", "--image", layout+":1")
	umoci("rm", "--image", layout+":2")
	pack("-cf", out, "-C", layout, ".")
	c.contains(c.ok("load", "-i", out), "Loaded image: "+first) // the name that it still has in the layout
	c.equal(c.ok("run", "--rm", first, "cat", "/linked", "/added"), c.prefix+"\nby umoci")
	c.equal(c.ok("image", "inspect", "-f", "{{.Config.Labels.who}} {{len .RootFS.Layers}}", first), "umoci 3")
}

// TestExchangeWithDocker moves images to Debian's dockerd and back.
func TestExchangeWithDocker(t *testing.T) {
	t.Parallel()
	c := newClient(t, "davit", engine)
	docker, _ := dockerDaemon(t)
	id, first, second, file := c.exchanged()
	loaded := docker("load", "-i", file)
	for _, name := range []string{first, second} {
		c.contains(loaded, "Loaded image: "+name)
		c.equal(docker("image", "inspect", "-f", "{{.Id}}", name), id)
	}
	c.equal(docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", first), c.ok("image", "inspect", "-f", "{{json .RootFS.Layers}}", first))
	out := filepath.Join(t.TempDir(), "docker.tar")
	docker("save", "-o", out, first, second)
	c.back(id, out, first, second)
	// Without a name.
	docker("save", "-o", out, id)
	c.ok("rmi", "-f", id)
	c.contains(c.ok("load", "-i", out), "Loaded image ID: "+id)
	// A root filesystem.
	c.ok("create", "--name", c.own("exported"), id)
	c.Cleanup(func() { c.run("rm", "-f", c.own("exported")) })
	c.ok("export", "-o", out, c.own("exported"))
	docker("import", out, c.own("imported"))
	back := filepath.Join(t.TempDir(), "created.tar")
	docker("create", "--name", "box", c.own("imported"), "x")
	docker("export", "-o", back, "box")
	c.Cleanup(func() { c.run("rmi", c.own("imported")) })
	c.ok("import", back, c.own("imported"))
	c.equal(c.ok("run", "--rm", c.own("imported"), "cat", "/linked"), c.prefix)
}

func TestSaveAndLoadAsDocker(t *testing.T) {
	both(t, func(c *client) {
		id, first, second, file := c.exchanged()
		other := first[:strings.LastIndexByte(first, ':')] + ":other"
		c.ok("tag", "busybox", other)
		c.Cleanup(func() { c.run("rmi", other) })
		// A name without a tag is all of the repository's; the same images are the same
		// bytes.
		all := filepath.Join(c.TempDir(), "all.tar")
		c.ok("save", "-o", all, c.own("first"))
		c.equal(c.ok("save", c.own("first")), strings.TrimSpace(read(c.T, all)))
		c.ok("rmi", other)
		c.ok("rmi", "-f", id)
		loaded := c.ok("load", "-i", all)
		c.contains(loaded, "Loaded image: "+first)
		c.contains(loaded, "Loaded image: "+other)
		c.equal(c.ok("image", "inspect", "-f", "{{.Id}}", first), id)
		// By ID, short ID and digest: without a name.
		for _, ref := range []string{id, id[7:19], strings.TrimPrefix(id, "sha256:")} {
			c.ok("save", "-o", all, ref)
			c.ok("rmi", "-f", id)
			c.equal(c.ok("load", "-i", all), "Loaded image ID: "+id)
			c.equal(c.ok("image", "inspect", "-f", "{{.RepoTags}}", id), "[]")
		}
		// Compressed, from a file and from a pipe.
		for _, program := range []string{"gzip", "bzip2", "xz", "zstd"} {
			compress := tool(c.T, program)
			c.ok("rmi", "-f", id)
			c.contains(c.with(compress("-c", file)).ok("load"), "Loaded image: "+first)
			c.equal(c.ok("image", "inspect", "-f", "{{.Id}}", second), id)
		}
		c.fails(1, "No such image", "save", "-o", all, first, c.own("nobody"))
		c.fails(1, "No such image", "save", "-o", all, "sha256:"+strings.Repeat("0", 64))
	})
}

// TestABadArchiveLeavesNothing loads what must not be taken, and looks for what is
// left of it.
func TestABadArchiveLeavesNothing(t *testing.T) {
	t.Parallel()
	e := alone(t)
	c := newClient(t, "davit", e)
	c.ok("import", archiveOf(t, map[string]string{"file": strings.Repeat("x", 100000)}), "good:1")
	good := filepath.Join(t.TempDir(), "good.tar")
	c.ok("save", "-o", good, "good:1")
	c.ok("rmi", "good:1")
	dir := t.TempDir()
	pack := tool(t, "tar")
	pack("-xf", good, "-C", dir)
	var manifest []struct{ Config, Layers any }
	if err := json.Unmarshal([]byte(read(t, dir+"/manifest.json")), &manifest); err != nil {
		t.Fatal(err)
	}
	layer := fmt.Sprint(manifest[0].Layers.([]any)[0])
	changed := func(change func(dir string)) string {
		dir := t.TempDir()
		pack("-xf", good, "-C", dir)
		change(dir)
		out := filepath.Join(t.TempDir(), "bad.tar")
		pack("-cf", out, "-C", dir, ".")
		return read(t, out)
	}
	body := read(t, good)
	for name, bad := range map[string]struct{ archive, want string }{
		"cut":     {body[:len(body)/2], "unexpected EOF"},
		"nothing": {"no archive of anything", "archive"},
		"a missing layer": {changed(func(dir string) {
			if err := os.Remove(filepath.Join(dir, layer)); err != nil {
				t.Fatal(err)
			}
		}), "the archive lacks blob"},
		"a damaged layer": {changed(func(dir string) { write(t, filepath.Join(dir, layer), "other") }), "is damaged"},
		"no layer of Docker's": {changed(func(dir string) {
			if err := errors.Join(os.Remove(filepath.Join(dir, layer)), os.Remove(filepath.Join(dir, "index.json"))); err != nil {
				t.Fatal(err)
			}
		}), "the archive lacks the layer"},
		"another layer than the configuration says": {changed(func(dir string) {
			write(t, filepath.Join(dir, "manifest.json"), strings.Replace(read(t, dir+"/manifest.json"), layer, "other", 1))
			write(t, filepath.Join(dir, "other"), read(t, archiveOf(t, map[string]string{"other": "file"})))
			if err := os.Remove(filepath.Join(dir, "index.json")); err != nil {
				t.Fatal(err)
			}
		}), "is not what its diff ID"},
		"an absurd manifest": {changed(func(dir string) { write(t, filepath.Join(dir, "index.json"), strings.Repeat(" ", 9<<20)) }), "index.json has 9437184 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := ask(t, e, http.MethodPost, "/images/load", bad.archive)
			if status != http.StatusBadRequest || !strings.Contains(answer, bad.want) {
				t.Errorf("answered %d %s, want 400 and %q", status, answer, bad.want)
			}
		})
	}
	c.equal(c.ok("images", "-aq"), "")
	var left []string
	for _, below := range []string{"images/content/blobs", "images/content/ingest"} {
		_ = filepath.WalkDir(filepath.Join(e.Root, below), func(path string, entry os.DirEntry, _ error) error {
			if entry != nil && !entry.IsDir() {
				left = append(left, path)
			}
			return nil
		})
	}
	if len(left) > 0 {
		t.Errorf("left: %s", strings.Join(left, "\n"))
	}
}
