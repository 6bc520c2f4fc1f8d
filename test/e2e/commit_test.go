package e2e

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// exported is a container's filesystem, one line for each file, without what every
// container gets and the time of the directories that is in.
func (c *client) exported(container string) (list []string) {
	c.Helper()
	r := c.run("export", container)
	if r.code != 0 {
		c.Fatalf("export: %s", r.err)
	}
	in := tar.NewReader(strings.NewReader(r.out))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			c.Fatal(err)
		}
		if slices.Contains([]string{"dev/", "proc/", "sys/", "etc/hostname", "etc/hosts", "etc/resolv.conf"}, h.Name) {
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, in); err != nil {
			c.Fatal(err)
		}
		modified := h.ModTime.UTC().String()
		if h.Name == "etc/" {
			modified = ""
		}
		list = append(list, fmt.Sprintf("%c %s %o %d:%d %s %s %d,%d %v %x", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid, h.Linkname, modified, h.Devmajor, h.Devminor, h.PAXRecords, sum.Sum(nil)))
	}
}

// changes are done to every kind of file that a layer has to hold.
const changes = `set -e
echo new >/added; ln /added /linked; ln -s added /pointer; mkfifo /tmp/fifo; mknod /tmp/null c 1 3
chmod 4711 /added; chown 65534:50 /tmp/fifo
rm /etc/group; echo again >/tmp/file; chmod 700 /root; rmdir /home; echo file >/home
rm -r /var; mkdir -p /var/new; touch /var/new/file
rm /data/from-image; mkdir /data/from-image; touch /data/from-image/inside
mkdir /full; touch /full/a /full/b`

func TestCommit(t *testing.T) {
	both(t, func(c *client) {
		image, second := c.own("image")+":1", c.own("second")
		c.Cleanup(func() { c.run("rmi", "-f", image, second) })
		c.background("box", "-e", "A=1", "-v", "/volume", "busybox", "sh", "-c", changes+"; echo done; sleep 600")
		eventually(c.T, "the changes", func() error {
			if out := c.ok("logs", c.own("box")); out != "done" {
				return errors.New(out)
			}
			return nil
		})
		id := c.ok("commit", "-a", "Me <me@example.org>", "-m", "a message", "-c", `CMD ["cat", "/added"]`, "-c", "ENV B=2 C=\"3 4\"", "--change", "LABEL x=y", c.own("box"), image)
		c.equal(c.ok("inspect", "-f", "{{.State.Status}}", c.own("box")), "running")
		c.equal(c.ok("image", "inspect", "-f", "{{.Id}}", image), id)
		c.equal(c.ok("image", "inspect", "-f", "{{.Author}}|{{.Comment}}|{{.Config.Labels.x}}|{{json .Config.Cmd}}|{{len .RootFS.Layers}}", image), `Me <me@example.org>|a message|y|["cat","/added"]|2`)
		c.contains(c.ok("image", "inspect", "-f", "{{json .Config.Env}}", image), `["B=2","C=3 4","A=1"`)
		c.contains(c.ok("history", "--no-trunc", image), "sh -c set -e")
		c.equal(c.ok("run", "--rm", image), "new")
		c.equal(c.ok("run", "--rm", image, "sh", "-c", "ls /var /data/from-image; cat /home; ls /etc/group 2>/dev/null; stat -c %h /linked; echo $B $A"), "/data/from-image:\ninside\n\n/var:\nnew\nfile\n2\n2 1")
		// All of it is in the image, as the container has it.
		c.ok("create", "--name", c.own("copy"), image)
		c.Cleanup(func() { c.run("rm", "-fv", c.own("copy")) })
		original, copied := c.exported(c.own("box")), c.exported(c.own("copy"))
		if diff := difference(original, copied); diff != "" {
			c.Errorf("the image is not the container:\n%s", diff)
		}
		// The same files are the same layer, whether the container runs, is paused or
		// has ended.
		layers := c.ok("image", "inspect", "-f", "{{json .RootFS.Layers}}", image)
		for _, prepare := range []string{"pause", "unpause", "kill"} {
			c.ok(prepare, c.own("box"))
			before := c.ok("inspect", "-f", "{{.State.Status}}", c.own("box"))
			c.ok("commit", "--pause=false", c.own("box"), second)
			c.equal(c.ok("image", "inspect", "-f", "{{json .RootFS.Layers}}", second), layers)
			c.equal(c.ok("inspect", "-f", "{{.State.Status}}", c.own("box")), before)
		}
		// An image of an image.
		c.ok("run", "--name", c.own("next"), image, "rm", "/full/a")
		c.Cleanup(func() { c.run("rm", "-fv", c.own("next")) })
		c.ok("commit", c.own("next"), second)
		c.equal(c.ok("run", "--rm", second, "ls", "/full"), "b")
	})
}

func TestCommitOfNothing(t *testing.T) {
	both(t, func(c *client) {
		c.ok("create", "--name", c.own("box"), "busybox")
		c.Cleanup(func() { c.run("rm", "-f", c.own("box")) })
		id := c.ok("commit", "-m", "nothing", c.own("box"))
		c.Cleanup(func() { c.run("rmi", id) })
		layers := "{{json .RootFS.Layers}}"
		c.equal(c.ok("image", "inspect", "-f", layers, id), c.ok("image", "inspect", "-f", layers, "busybox"))
		c.equal(c.ok("image", "inspect", "-f", "{{.RepoTags}}", id), "[]")
		c.contains(c.ok("images", "-q", "--no-trunc", "--filter", "dangling=true"), id)
		c.equal(strings.Split(c.ok("history", "--format", "{{.Size}} {{.Comment}}", id), "\n")[0], "0B nothing")
		c.fails(1, "No such container: "+c.own("nobody"), "commit", c.own("nobody"))
		c.fails(1, "FROM is not a valid change command", "commit", "-c", "FROM x", c.own("box"), "a/b")
		c.fails(1, "invalid reference format", "commit", c.own("box"), "a:b:c")
		c.ok("rm", c.own("box"))
		c.ok("run", "--name", c.own("box"), "busybox", "touch", "/.wh.tmp")
		c.fails(1, "/.wh.tmp: in a layer the name means a deletion", "commit", c.own("box"))
	})
}

// A core that is killed while it commits leaves the container neither paused nor
// changed, and no image.
func TestACommitThatIsKilled(t *testing.T) {
	t.Parallel()
	e := alone(t)
	c := newClient(t, "davit", e)
	c.ok("import", writeBusybox(t), "busybox")
	c.ok("run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c", "dd if=/dev/urandom of=/large bs=1M count=150 2>/dev/null; echo done; sleep 600")
	eventually(t, "the file", func() error {
		if out := c.ok("logs", "box"); out != "done" {
			return errors.New("not yet")
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	commit := e.Command(ctx, "davit", "commit", "box", "half")
	if err := commit.Start(); err != nil {
		t.Fatal(err)
	}
	state := func() string { return c.ok("inspect", "-f", "{{.State.Status}}", "box") }
	eventually(t, "the pause", func() error {
		if s := state(); s != "paused" {
			return errors.New(s)
		}
		return nil
	})
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := commit.Wait(); err == nil {
		t.Error("the commit has succeeded: this proves nothing")
	}
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c.equal(state(), "running")
	c.equal(c.ok("images", "--format", "{{.Repository}}"), "busybox")
	// One that a user paused stays so.
	c.ok("pause", "box")
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c.equal(state(), "paused")
	c.ok("unpause", "box")
}

// difference shows the lines of two lists that the other does not have.
func difference(a, b []string) string {
	var out strings.Builder
	for _, line := range a {
		if !slices.Contains(b, line) {
			fmt.Fprintln(&out, "-", line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			fmt.Fprintln(&out, "+", line)
		}
	}
	return out.String()
}
