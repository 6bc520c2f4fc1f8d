package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-engine/davit/test/private"
)

// layersOf are the digests of an image's layers as they are stored.
func (c *client) layersOf(image string) (digests []string) {
	c.Helper()
	var tree struct{ Layers []struct{ Digest string } }
	if err := c.engine.Get(c.Context(), "/davit/images/"+image+"/tree", &tree); err != nil {
		c.Fatal(err)
	}
	for _, layer := range tree.Layers {
		digests = append(digests, layer.Digest)
	}
	return digests
}

// blobFile is where an engine has a blob.
func blobFile(e *private.Engine, digest string) string {
	return filepath.Join(e.Root, "images/content/blobs", strings.Replace(digest, ":", "/", 1))
}

// twoLayers puts an image on top of busybox into a registry, and is without it here.
func twoLayers(t *testing.T, c *client) (ref string) {
	t.Helper()
	ref = realRegistry(t) + "/team/app:v1"
	c.ok("run", "--name", "maker", "--network", "none", "busybox", "sh", "-c", "head -c 300000 /dev/urandom > /file; echo app > /which")
	c.ok("commit", "maker", ref)
	c.ok("rm", "maker")
	c.ok("push", ref)
	c.ok("rmi", ref)
	return ref
}

// Blobs and layers that somebody else removed or changed: images say that they are
// incomplete, run by themselves again where they can, and a pull brings what is missing.
func TestAStoreThatWasDamaged(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{})
	c, docker := newClient(t, "davit", e), newClient(t, "docker", e)
	ref := twoLayers(t, c)
	c.ok("pull", ref)
	layers := c.layersOf(ref)
	harm := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")

	t.Run("a blob", func(t *testing.T) {
		harm(os.Truncate(blobFile(e, layers[1]), 1000))
		c.equal(c.ok("run", "--rm", "--network", "none", ref, "cat", "/which"), "app") // it is unpacked
		for _, args := range [][]string{{"save", "-o", saved, ref}, {"push", ref}, {"image", "tree", ref}} {
			c.fails(1, "image "+ref+" is incomplete: blob "+layers[1]+" is damaged: 1000 of its", args...)
		}
		c.contains(docker.run("save", "-o", saved, ref).err, "pull or load it again")
		if status, answer := ask(t, e, http.MethodGet, "/images/"+ref+"/get", ""); status != http.StatusNotFound {
			t.Errorf("saving answers %d %s", status, answer)
		}
		out := c.ok("pull", ref)
		c.contains(out, layers[0][7:19]+": Already exists")
		c.contains(out, layers[1][7:19]+": Download complete")
		c.ok("save", "-o", saved, ref)
	})
	t.Run("layers and a blob, while there is no engine", func(t *testing.T) {
		// A container stands on the layers.
		c.ok("create", "--name", "stands", "--network", "none", ref, "cat", "/which", "/data/from-image")
		harm(e.Kill())
		harm(os.Remove(blobFile(e, layers[1])))
		records, err := filepath.Glob(filepath.Join(e.Root, "drivers/storage-overlay/s/*/snapshot.json"))
		harm(err)
		for _, record := range records {
			if strings.Contains(read(t, record), `"Name":"sha256:`) {
				harm(os.RemoveAll(filepath.Dir(record)))
			}
		}
		startAgain(t, e)
		c.contains(e.LogTail(), "images are incomplete: pull or load them again")
		c.contains(e.LogTail(), layers[1]+" is gone from the disk")
		c.equal(c.ok("run", "--rm", "--network", "none", "busybox", "echo", "works"), "works")
		c.fails(125, "is incomplete: blob "+layers[1], "run", "--rm", "--pull", "never", "--network", "none", ref, "true")
		// As with an image that is not here, run pulls.
		r := docker.run("run", "--rm", "--network", "none", ref, "cat", "/which")
		c.equal(fmt.Sprint(r.code, r.out), "0app\n")
		// The container stands on the layers that were made anew.
		c.equal(c.ok("start", "-a", "stands"), "app\nimage")
		c.ok("rm", "stands")
	})
	t.Run("check", func(t *testing.T) {
		c.contains(c.ok("system", "check"), ": 0 damaged")
		body := []byte(read(t, blobFile(e, layers[1])))
		body[100] ^= 1
		write(t, blobFile(e, layers[1]), string(body))
		c.fails(1, layers[1]+" is damaged: its content is not what its digest says; needed by "+ref, "system", "check")
		c.ok("image", "inspect", ref)
		r := c.run("system", "check", "--repair", "--format", "json")
		var found struct {
			Damaged []struct {
				Digest  string
				Removed bool
			}
		}
		if err := json.Unmarshal([]byte(r.out), &found); err != nil || r.code != 1 || len(found.Damaged) != 1 || found.Damaged[0].Digest != layers[1] || !found.Damaged[0].Removed {
			t.Errorf("%d %+v %v %s", r.code, found, err, r.err)
		}
		c.fails(1, "is incomplete", "save", "-o", saved, ref)
		c.ok("pull", ref)
		c.contains(c.ok("system", "check"), ": 0 damaged")
	})
}

// A database that is damaged is named when the engine starts, and is not touched. With
// none the blobs are kept: a pull fetches no layer.
func TestADamagedImageDatabase(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{})
	c := newClient(t, "davit", e)
	ref := twoLayers(t, c)
	c.ok("pull", ref)
	c.background("box", "--network", "none", ref, "sleep", "600")
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	database := filepath.Join(e.Root, "images/metadata.db")
	good := read(t, database)
	write(t, database, good[:len(good)/3])
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := e.Start(ctx); err == nil {
		t.Fatal("the engine is up")
	}
	for _, want := range []string{"the image database " + database + " is damaged (", "move it away"} {
		c.contains(e.LogTail(), want)
	}
	c.equal(read(t, database), good[:len(good)/3])
	if err := os.Rename(database, database+".damaged"); err != nil {
		t.Fatal(err)
	}
	startAgain(t, e)
	c.equal(c.ok("images", "-q"), "")
	c.equal(c.ok("exec", c.own("box"), "cat", "/which"), "app")
	out := c.ok("pull", ref)
	if strings.Contains(out, "Download complete") || strings.Count(out, "Already exists") != 2 {
		t.Errorf("blobs that were here were fetched:\n%s", out)
	}
	c.equal(c.ok("run", "--rm", "--network", "none", ref, "cat", "/which"), "app")
	importAgain(t, e)
}

// An engine whose images are on a file system that is mounted read-only uses them, and
// says why they cannot be changed.
func TestAReadOnlyImageStore(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{})
	c := newClient(t, "davit", e)
	ref := twoLayers(t, c)
	c.ok("pull", ref)
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	place := filepath.Join(e.Root, "images")
	mount := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "mount", args...).CombinedOutput(); err != nil {
			t.Fatalf("mount %v: %v\n%s", args, err, out)
		}
	}
	mount("--bind", place, place)
	mounted := true
	unmount := func() {
		if !mounted {
			return
		}
		if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "umount", place).CombinedOutput(); err != nil {
			t.Errorf("unmounting: %v\n%s", err, out)
		}
		mounted = false
	}
	t.Cleanup(unmount)
	mount("-o", "remount,bind,ro", place)
	startAgain(t, e)
	c.contains(e.LogTail(), "mounted read-only")
	c.contains(c.ok("images"), "team/app")
	c.equal(c.ok("run", "--rm", "--network", "none", ref, "cat", "/which"), "app")
	c.ok("save", "-o", filepath.Join(t.TempDir(), "saved.tar"), ref)
	c.ok("image", "tree", ref)
	c.ok("system", "df")
	c.ok("push", ref)
	c.contains(c.ok("system", "check"), ": 0 damaged")
	for _, args := range [][]string{{"pull", ref}, {"tag", ref, "other:1"}, {"rmi", ref}, {"image", "prune", "-af"}, {"import", archiveOf(t, nil), "x:1"}} {
		c.fails(1, "read-only file system", args...)
	}
	if status, answer := ask(t, e, http.MethodDelete, "/images/"+ref, ""); status != http.StatusInternalServerError {
		t.Errorf("removing answers %d %s", status, answer)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := e.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	unmount()
	startAgain(t, e)
	c.ok("rmi", ref)
}
