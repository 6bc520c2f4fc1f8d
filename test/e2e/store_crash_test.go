package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"go.etcd.io/bbolt"

	"github.com/davit-engine/davit/test/private"
)

// TestTheStoreSurvivesEveryKill kills the core at random moments of all that changes
// images. The store opens, what is listed can be run and saved, the operation succeeds
// when it is repeated, and when all is removed nothing is left.
func TestTheStoreSurvivesEveryKill(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{})
	c := newClient(t, "davit", e)
	address := realRegistry(t)
	app, archive := address+"/team/app:v1", filepath.Join(t.TempDir(), "app.tar")
	// An image of three layers that share busybox.
	for i := range 2 {
		from := []string{"busybox", app}[i]
		c.ok("run", "--name", "maker", "--network", "none", from, "sh", "-c", fmt.Sprintf("head -c 3000000 /dev/urandom > /file%d", i))
		c.ok("commit", "maker", app)
		c.ok("rm", "maker")
	}
	c.ok("push", app)
	c.ok("save", "-o", archive, app)
	c.ok("rmi", app)
	c.ok("image", "prune", "-af") // busybox, too: it comes back without its dangling sibling
	importAgain(t, e)
	// What keeps busybox while others are pruned, and changes that can be committed.
	c.background("holder", "--network", "none", "busybox", "sh", "-c", "head -c 3000000 /dev/urandom > /changed; sleep 600")
	holder := c.own("holder")
	before := traces(t, e)
	nothing := func() {}
	pull := func() { c.ok("pull", app) }
	for _, op := range []struct {
		name    string
		prepare func()
		args    []string
		listed  string // an image that is there when it has succeeded
	}{
		{"pull", nothing, []string{"pull", app}, app},
		{"load", nothing, []string{"load", "-i", archive}, app},
		{"commit", nothing, []string{"commit", holder, "changed:1"}, "changed:1"},
		{"tag", pull, []string{"tag", app, "other:1"}, "other:1"},
		{"rmi", pull, []string{"rmi", "-f", app}, ""},
		{"image prune", pull, []string{"image", "prune", "-af"}, ""},
		{"system prune", pull, []string{"system", "prune", "-af"}, ""},
	} {
		took := time.Duration(0) // of the operation without a kill
		for round := range crashRounds(t) + 1 {
			op.prepare()
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			command := e.Command(ctx, "davit", op.args...)
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			killedAt := time.Duration(0)
			if round > 0 {
				killedAt = time.Duration(rand.Int64N(int64(took) + 1))
				time.Sleep(killedAt)
				if err := e.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			err := command.Wait()
			cancel()
			if round == 0 {
				took = time.Since(begin)
			} else {
				startAgain(t, e)
			}
			t.Logf("%s: killed after %s of %s: %v", op.name, killedAt, took, err)
			c.everyImageWorks()
			if op.listed == "" {
				c.run(op.args...) // it may have been done
			} else {
				c.ok(op.args...)
				c.equal(c.ok("run", "--rm", "--network", "none", op.listed, "echo", "works"), "works")
			}
			c.equal(c.ok("inspect", "-f", "{{.State.Status}}", holder), "running")
			c.everyImageWorks()
			c.ok("image", "prune", "-af")
			eventually(t, op.name+": a store as before", func() error {
				if after := traces(t, e); after != before {
					return fmt.Errorf("was\n%s\nis\n%s", before, after)
				}
				return nil
			})
			if t.Failed() {
				return
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := e.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if list := leasesOf(t, e); len(list) > 0 {
		t.Errorf("leases are left: %v", list)
	}
	startAgain(t, e)
}

// crashRounds is how often each operation is killed.
func crashRounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv("DAVIT_TEST_CRASHES")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// everyImageWorks runs and saves all images that are listed.
func (c *client) everyImageWorks() {
	c.Helper()
	saved := filepath.Join(c.TempDir(), "saved.tar")
	for _, id := range strings.Fields(c.ok("images", "-aq", "--no-trunc")) {
		c.equal(c.ok("run", "--rm", "--network", "none", id, "echo", "works"), "works")
		c.ok("save", "-o", saved, id)
	}
}

// importAgain brings busybox back.
func importAgain(t *testing.T, e *private.Engine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := importBusybox(ctx, e); err != nil {
		t.Fatal(err)
	}
}

// traces are all files of images: blobs, parts of blobs and layers, and what is being
// deleted of them.
func traces(t *testing.T, e *private.Engine) string {
	t.Helper()
	list := []string{storedBlobs(t, e)}
	for _, dir := range []string{"s", "trash"} {
		list = append(list, fmt.Sprintf("%s: %d", dir, len(entries(t, filepath.Join(e.Root, "drivers/storage-overlay", dir)))))
	}
	return strings.Join(list, "\n")
}

// leasesOf reads the leases of an engine that is stopped.
func leasesOf(t *testing.T, e *private.Engine) (ids []string) {
	t.Helper()
	bolt, err := bbolt.Open(filepath.Join(e.Root, "images/metadata.db"), 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	list, err := metadata.NewLeaseManager(metadata.NewDB(bolt, nil, nil)).List(namespaces.WithNamespace(t.Context(), "davit"))
	if err := errors.Join(err, bolt.Close()); err != nil {
		t.Fatal(err)
	}
	for _, lease := range list {
		ids = append(ids, lease.ID)
	}
	return ids
}
