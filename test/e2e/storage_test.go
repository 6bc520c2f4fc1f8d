package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/davit-engine/davit/test/private"
)

// otherStorage are the storage drivers that come with davit besides its default.
func otherStorage() []string { return []string{"copy"} }

// TestOtherStorageDrivers has containers of each storage driver beside those of
// overlay: they see and change the same, also when the driver is killed under them.
func TestOtherStorageDrivers(t *testing.T) {
	for _, driver := range otherStorage() {
		t.Run(driver, func(t *testing.T) {
			e := ownEngine(t, private.Options{})
			c := newClient(t, "docker", e)
			if p := plugin(t, e, "storage-"+driver); p.State != "idle" || p.PID != 0 {
				t.Errorf("nobody has asked for the driver, and it is %+v", p)
			}
			differ := map[string]string{}
			for _, of := range []string{"overlay", driver} {
				c.background(of, "--label", "dev.davit.storage="+of, "busybox", "sh", "-c", "if [ ! -e /added ]; then "+changes+"\nfi; echo done; sleep 600")
				eventually(t, "the changes", func() error {
					if out := c.ok("logs", c.own(of)); out != "done" {
						return errors.New(out)
					}
					return nil
				})
				c.equal(c.ok("inspect", "-f", "{{.GraphDriver.Name}}", c.own(of)), of)
				lines := strings.Split(c.ok("diff", c.own(of)), "\n")
				slices.Sort(lines)
				differ[of] = strings.Join(lines, "\n")
			}
			c.equal(differ[driver], differ["overlay"])
			kill(t, plugin(t, e, "storage-"+driver).PID)
			c.equal(c.ok("exec", c.own(driver), "cat", "/added"), "new")
			c.ok("commit", c.own(driver), "changed")
			c.equal(c.ok("run", "--rm", "--label", "dev.davit.storage="+driver, "changed", "cat", "/added", "/home"), "new\nfile")
			original := c.exported(c.own(driver))
			committed := c.ok("create", "--label", "dev.davit.storage="+driver, "changed")
			if diff := difference(original, c.exported(committed)); diff != "" {
				t.Errorf("the image is not the container:\n%s", diff)
			}
			c.ok("restart", "-t", "0", c.own(driver))
			c.equal(c.ok("exec", c.own(driver), "cat", "/tmp/file"), "again")
			// What nobody needs any more is gone.
			c.ok("rm", "-f", c.own(driver), c.own("overlay"), committed)
			c.ok("rmi", "changed", "busybox")
			eventually(t, "the removal of the layers", func() error {
				left, err := os.ReadDir(filepath.Join(e.Root, "drivers", "storage-"+driver, "s"))
				if err == nil && len(left) > 0 {
					err = fmt.Errorf("%v", left)
				}
				return err
			})
		})
	}
}

// plugin is what an engine says of one of its plugins.
func plugin(t *testing.T, e *private.Engine, name string) private.PluginStatus {
	t.Helper()
	plugins, err := e.Plugins(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("there is no plugin %s among %+v", name, plugins)
	return private.PluginStatus{}
}
