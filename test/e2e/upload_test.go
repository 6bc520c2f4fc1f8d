package e2e

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/davit-engine/davit/test/faultproxy"
	"github.com/davit-engine/davit/test/private"
)

// resumable is a registry that says how much it has of an upload, behind a proxy.
func resumable(t *testing.T) *faultproxy.Proxy {
	t.Helper()
	p := faultproxy.New(faultproxy.Resumable(registry.New(registry.Logger(log.New(io.Discard, "", 0)))))
	t.Cleanup(p.Close)
	return p
}

// TestAPushIsTriedAgain when the connection breaks, or the registry has much to do.
func TestAPushIsTriedAgain(t *testing.T) {
	both(t, func(c *client) {
		p := faulty(c.T)
		for what, fault := range map[string]faultproxy.Fault{
			"cut":    {Method: http.MethodPatch, Path: "/blobs/uploads/", Close: true, Times: 1},
			"busy":   {Method: http.MethodPatch, Path: "/blobs/uploads/", Status: 503, Times: 1},
			"commit": {Method: http.MethodPut, Path: "/manifests/", Status: 502, Times: 1},
		} {
			ref := p.Address + "/team/" + what + ":v1"
			c.ok("import", archiveOf(c.T, map[string]string{"file": noise(c.T, 1<<20)}), ref)
			c.Cleanup(func() { c.run("rmi", "-f", ref) })
			p.Set(fault)
			p.Forget()
			c.contains(c.ok("push", ref), "v1: digest: sha256:")
			if n := len(p.Asked(fault.Method, fault.Path)); n < 2 {
				c.Errorf("%s: %d requests", what, n)
			}
			c.ok("rmi", ref)
			c.ok("pull", ref)
		}
	})
}

// TestAPushGoesOn where the registry says that it was: only the rest is sent.
func TestAPushGoesOn(t *testing.T) {
	both(t, func(c *client) {
		p := resumable(c.T)
		ref := p.Address + "/team/app:v1"
		c.ok("import", archiveOf(c.T, map[string]string{"file": noise(c.T, 4<<20)}), ref)
		c.Cleanup(func() { c.run("rmi", "-f", ref) })
		// The configuration is smaller.
		p.Set(faultproxy.Fault{Method: http.MethodPatch, Path: "/blobs/uploads/", CutSent: 1 << 20, Times: 2})
		out := c.ok("push", ref)
		c.contains(out, ": Retrying in 1 second\n")
		c.contains(out, "v1: digest: sha256:")
		var ranges []string
		var received int64
		for _, r := range p.Asked(http.MethodPatch, "/blobs/uploads/") {
			received += r.Received
			if text := r.Header.Get("Content-Range"); text != "" {
				ranges = append(ranges, text)
			}
		}
		if len(ranges) == 0 || !strings.HasPrefix(ranges[0], "1048576-") {
			c.Errorf("what was sent again: %v", ranges)
		}
		if received > 4<<20+64<<10 {
			c.Errorf("%d bytes were sent of four mebibytes", received)
		}
		c.ok("rmi", ref)
		c.ok("pull", ref)
	})
}

// TestPushesThatEnd: a registry that says nothing is given up, and Ctrl-C stops a push
// in the engine.
func TestPushesThatEnd(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{Tables: impatient})
	p := faulty(t)
	ref := p.Address + "/team/app:v1"
	newClient(t, "davit", e).ok("tag", "busybox", ref)
	for name, method := range map[string]string{"docker": http.MethodPost, "davit": http.MethodPatch} {
		c := newClient(t, name, e)
		p.Set(faultproxy.Fault{Method: method, Path: "/blobs/uploads/", Hang: true})
		r := c.run("push", ref)
		c.equal(fmt.Sprint(r.code), "1")
		c.contains(r.err, "registry "+p.Address+": ")
		c.contains(r.err, "no answer within 1s: the registry is silent")
	}
	patient := newClient(t, "davit", engine)
	ref = p.Address + "/team/other:v1"
	patient.ok("tag", "busybox", ref)
	t.Cleanup(func() { patient.run("rmi", ref) })
	for _, name := range []string{"docker", "davit"} {
		p.Set(faultproxy.Fault{Method: http.MethodPatch, Path: "/blobs/uploads/", Hang: true})
		p.Forget()
		stop := newClient(t, name, engine).starting("push", ref)
		eventually(t, "the upload", func() error { return atLeast(int64(len(p.Asked(http.MethodPatch, "/blobs/uploads/"))), 1) })
		stop(syscall.SIGINT)
		eventually(t, "the end of the upload", func() error { return atLeast(int64(len(p.Asked(http.MethodDelete, "/blobs/uploads/"))), 1) })
	}
	p.Set()
	patient.contains(patient.ok("push", ref), "v1: digest: sha256:")
}

// TestAPushKeepsWhatItSends: an image that is removed in the middle of its push comes
// to the registry whole, and stays removed.
func TestAPushKeepsWhatItSends(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{})
	p := faulty(t)
	c := newClient(t, "davit", e)
	before := storedBlobs(t, e)
	ref := p.Address + "/team/app:v1"
	c.ok("import", archiveOf(t, map[string]string{"file": noise(t, 1<<20)}), ref)
	held := make(chan struct{})
	p.Set(faultproxy.Fault{Method: http.MethodPost, Path: "/blobs/uploads/", Until: held})
	done := make(chan result, 1)
	go func() { done <- c.run("push", ref) }()
	eventually(t, "the upload", func() error { return atLeast(int64(len(p.Asked(http.MethodPost, "/blobs/uploads/"))), 1) })
	c.ok("rmi", "-f", ref)
	c.ok("image", "prune", "-f")
	close(held)
	r := <-done
	if r.code != 0 {
		t.Fatalf("push ends with %d: %s", r.code, r.err)
	}
	c.contains(r.out, "v1: digest: sha256:")
	c.equal(c.ok("images", "-q", ref), "")
	c.ok("image", "prune", "-f")
	c.equal(storedBlobs(t, e), before)
	c.contains(c.ok("pull", ref), "Downloaded newer image")
}
