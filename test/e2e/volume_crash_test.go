package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

// TestVolumesSurviveEveryKill kills the volume driver and the core while volumes
// are made, filled, mounted and removed. What was written stays, every volume is
// whole, and the driver has no more and no less than the engine knows.
func TestVolumesSurviveEveryKill(t *testing.T) {
	e := ownEngine(t, private.Options{})
	c := newClient(t, "davit", e)
	place := filepath.Join(e.Root, "drivers", "volume-local")
	var mu sync.Mutex
	kept := map[string]bool{}
	for round := range 6 {
		stop := make(chan struct{})
		var group sync.WaitGroup
		for worker := range 3 {
			group.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					name := fmt.Sprintf("v%d-%d-%d", round, worker, n)
					// Errors are expected: what is asked dies under these commands.
					switch n % 3 {
					case 0:
						if r := c.run("run", "--rm", "-v", name+":/data", "busybox", "sh", "-c", "cat /data/from-image; echo kept > /data/own"); r.code == 0 && r.out == "image\n" {
							mu.Lock()
							kept[name] = true
							mu.Unlock()
						}
					case 1:
						c.run("run", "--rm", "-v", "/data", "busybox", "true")
					case 2:
						c.run("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", name)
						c.run("run", "--rm", "-v", name+":/data", "busybox", "true")
						c.run("volume", "rm", name)
					}
				}
			})
		}
		time.Sleep(private.Patience(time.Duration(150+round*60) * time.Millisecond))
		if round%2 == 0 {
			if pid := driverPID(t, e); pid > 0 {
				kill(t, pid)
			}
			time.Sleep(private.Patience(100 * time.Millisecond))
			close(stop)
			group.Wait()
		} else {
			if err := e.Kill(); err != nil {
				t.Fatal(err)
			}
			close(stop)
			group.Wait()
			startAgain(t, e)
		}
	}
	eventually(t, "the end of all containers", func() error {
		ids := strings.Fields(c.ok("ps", "-aq"))
		for _, id := range ids {
			c.run("rm", "-fv", id) // some go by themselves
		}
		if len(ids) > 0 {
			return fmt.Errorf("there are %v", ids)
		}
		return nil
	})
	// What the last rounds left of half a creation is found at a start.
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	startAgain(t, e)
	eventually(t, "an engine and a driver that agree", func() error {
		known := strings.Fields(c.ok("volume", "ls", "-q"))
		slices.Sort(known)
		has := entries(t, filepath.Join(place, "volumes"))
		if !slices.Equal(known, has) {
			return fmt.Errorf("the engine knows %v, the driver has %v", known, has)
		}
		for _, name := range known {
			if len(name) == 64 {
				return fmt.Errorf("an anonymous volume is left: %s", name)
			}
			if kind := mountedAt(t, filepath.Join(place, "volumes", name, "_data")); kind != "" {
				return fmt.Errorf("%s is mounted: %s", name, kind)
			}
		}
		if left := entries(t, filepath.Join(place, "trash")); len(left) > 0 {
			return fmt.Errorf("in the trash: %v", left)
		}
		return nil
	})
	if len(kept) == 0 {
		t.Error("no volume was filled and written to: this proves nothing")
	}
	for name := range kept {
		if got := read(t, filepath.Join(place, "volumes", name, "_data", "own")) + read(t, filepath.Join(place, "volumes", name, "_data", "from-image")); got != "kept\nimage\n" {
			t.Errorf("%s has %q", name, got)
		}
	}
	// A container finds each volume filled, whatever the crash left.
	for _, name := range strings.Fields(c.ok("volume", "ls", "-q", "-f", "name=-0$")) {
		if got := c.ok("run", "--rm", "-v", name+":/data", "busybox", "ls", "-A", "/data"); got != "from-image" && got != "from-image\nown" {
			t.Errorf("%s shows %q", name, got)
		}
	}
	if names := strings.Fields(c.ok("volume", "ls", "-q")); len(names) > 0 {
		c.ok(append([]string{"volume", "rm"}, names...)...)
	}
	t.Logf("%d volumes were written to", len(kept))
}

// driverPID is the volume driver's process, 0 if it is just being started.
func driverPID(t *testing.T, e *private.Engine) int {
	t.Helper()
	plugins, err := e.Plugins(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins {
		if p.Name == "volume-local" {
			return p.PID
		}
	}
	return 0
}

// entries are the names in a directory, in order.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	names := []string{}
	for _, entry := range found {
		names = append(names, entry.Name())
	}
	return names
}
