package e2e

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestImportFromEverywhere(t *testing.T) {
	both(t, func(c *client) {
		archive := archiveOf(c.T, map[string]string{"file": c.prefix})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/root.tar":
				http.ServeFile(w, r, archive)
			case "/cut.tar":
				w.Header().Set("Content-Length", "1000000")
				_, _ = w.Write([]byte(read(c.T, archive)))
			case "/secret.tar":
				http.Error(w, "not for you", http.StatusForbidden)
			default:
				http.NotFound(w, r)
			}
		}))
		defer server.Close()
		image := c.own("image") + ":1"
		c.Cleanup(func() { c.run("rmi", "-f", image) })
		out := c.ok("import", "--change", `CMD ["x"]`, "--change", "LABEL a=b", server.URL+"/root.tar", image)
		c.contains(out, "Downloading from "+server.URL+"/root.tar")
		c.equal(c.ok("image", "inspect", "-f", `{{.Comment}}|{{json .Config.Cmd}}|{{.Config.Labels.a}}|{{.Os}}/{{.Architecture}}`, image),
			"Imported from "+server.URL+`/root.tar|["x"]|b|linux/`+runtime.GOARCH)
		layers := c.ok("image", "inspect", "-f", "{{json .RootFS}}", image)
		c.ok("import", "-m", "a message", archive, image)
		c.equal(c.ok("image", "inspect", "-f", "{{json .RootFS}} {{.Comment}}", image), layers+" a message")
		c.with(read(c.T, archive)).ok("import", "--platform", "linux/arm64", "-", image)
		c.equal(c.ok("image", "inspect", "-f", "{{json .RootFS}} {{.Architecture}} {{.Comment}}", image), layers+" arm64 Imported from -")
		before := c.ok("image", "inspect", "-f", "{{.Id}}", image)
		c.fails(1, "failed to GET "+server.URL+"/nosuch.tar with status 404 Not Found: 404 page not found", "import", server.URL+"/nosuch.tar", image)
		c.fails(1, "with status 403 Forbidden: not for you", "import", server.URL+"/secret.tar", image)
		c.fails(1, "unexpected EOF", "import", server.URL+"/cut.tar", image)
		c.fails(1, "refused", "import", "http://127.0.0.1:1/root.tar", image)
		c.fails(1, "no such file", "import", "/no/such.tar", image)
		c.fails(1, "FROM is not a valid change command", "import", "--change", "FROM x", archive, image)
		c.with("").fails(1, "", "import", "--platform", "a/b/c/d", archive, image)
		c.equal(c.ok("image", "inspect", "-f", "{{.Id}}", image), before)
	})
}

// What is exported and imported is exported again as the same bytes.
func TestExportsAreExact(t *testing.T) {
	both(t, func(c *client) {
		image := c.own("image")
		c.Cleanup(func() { c.run("rmi", "-f", image) })
		c.ok("run", "--name", c.own("box"), "busybox", "sh", "-c", changes)
		c.Cleanup(func() { c.run("rm", "-f", c.own("box"), c.own("copy")) })
		dir := c.TempDir()
		first, again, second := filepath.Join(dir, "first"), filepath.Join(dir, "again"), filepath.Join(dir, "second")
		c.ok("export", "-o", first, c.own("box"))
		write(c.T, again, c.run("export", c.own("box")).out)
		c.ok("import", first, image)
		c.ok("create", "--name", c.own("copy"), image, "x")
		c.ok("export", "-o", second, c.own("copy"))
		for _, other := range []string{again, second} {
			if read(c.T, first) != read(c.T, other) {
				c.Errorf("%s is another archive", other)
			}
		}
		if info, err := os.Stat(first); err != nil || info.Size() < 1<<20 {
			c.Errorf("the archive is %+v, %v", info, err)
		}
		// One that runs: its processes' files, not its volumes'.
		c.background("running", "-v", "/volume", "busybox", "sh", "-c", "echo x >/volume/file; echo y >/file; sleep 600")
		eventually(c.T, "the file", func() error {
			if r := c.run("exec", c.own("running"), "cat", "/file"); r.out != "y\n" {
				return os.ErrNotExist
			}
			return nil
		})
		list := strings.Join(c.exported(c.own("running")), "\n")
		c.contains(list, "0 file 644")
		c.contains(list, "5 volume/ 755")
		if strings.Contains(list, "volume/file") {
			c.Error("a volume's file is exported")
		}
	})
}
