package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"

	"github.com/davit-engine/davit/test/private"
)

// mountedAt says what is mounted at a path of the host.
func mountedAt(t *testing.T, path string) string {
	t.Helper()
	list, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	if err != nil {
		t.Fatal(err)
	}
	kinds := make([]string, len(list))
	for i, m := range list {
		kinds[i] = m.FSType
	}
	return strings.Join(kinds, " ")
}

// command runs one of the host's commands.
func command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// startAgain starts an engine whose core was killed.
func startAgain(t *testing.T, e *private.Engine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// A volume of options type, o and device is mounted when its first container
// starts, shared by all of them, and unmounted when the last one ends.
func TestVolumesThatAreMounted(t *testing.T) {
	both(t, func(c *client) {
		memory := c.own("memory")
		c.Cleanup(func() { c.run("volume", "rm", "-f", memory) })
		c.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=1770", memory)
		place := c.ok("volume", "inspect", "-f", "{{.Mountpoint}}", memory)
		c.equal(c.ok("volume", "inspect", "-f", "{{.Options.type}} {{.Options.o}}", memory), "tmpfs size=1m,mode=1770")
		c.equal(mountedAt(c.T, place), "")
		c.background("one", "-v", memory+":/m", "busybox", "sleep", "600")
		c.background("two", "-v", memory+":/m", "busybox", "sleep", "600")
		c.ok("exec", c.own("one"), "sh", "-c", "echo shared > /m/file")
		c.equal(c.ok("exec", c.own("two"), "cat", "/m/file"), "shared")
		c.equal(c.ok("exec", c.own("two"), "sh", "-c", "df -k /m | tail -n 1 | awk '{print $2}'; stat -c %a /m"), "1024\n1770")
		c.equal(mountedAt(c.T, place), "tmpfs")
		c.ok("rm", "-f", c.own("one"))
		c.equal(c.ok("exec", c.own("two"), "cat", "/m/file"), "shared")
		c.ok("rm", "-f", c.own("two"))
		eventually(c.T, "the end of the mount", func() error {
			if kind := mountedAt(c.T, place); kind != "" {
				return errors.New(kind)
			}
			return nil
		})

		// A bind of a directory of the host, through --mount's options.
		dir := c.TempDir()
		write(c.T, filepath.Join(dir, "file"), "host")
		bound := c.own("bound")
		c.Cleanup(func() { c.run("volume", "rm", "-f", bound) })
		// The client splits at commas, but not within quotes.
		spec := `type=volume,source=` + bound + `,target=/m,volume-driver=local,volume-opt=type=none,"volume-opt=o=bind,ro",volume-opt=device=` + dir + ",volume-label=a=b"
		c.equal(c.ok("run", "--rm", "--mount", spec, "busybox", "cat", "/m/file"), "host")
		c.fails(1, "Read-only file system", "run", "--rm", "-v", bound+":/m", "busybox", "touch", "/m/x")
		c.equal(c.ok("volume", "inspect", "-f", `{{index .Labels "a"}} {{.Options.device}}`, bound), "b "+dir)
		c.ok("volume", "rm", bound)
		c.equal(read(c.T, filepath.Join(dir, "file")), "host")

		// A filesystem of a device, which keeps what is written.
		disk := filepath.Join(dir, "disk")
		command(c.T, "truncate", "-s", "8M", disk)
		command(c.T, "mkfs.ext4", "-q", disk)
		device := command(c.T, "losetup", "--find", "--show", disk)
		c.Cleanup(func() { command(c.T, "losetup", "--detach", device) })
		filesystem := c.own("disk")
		c.Cleanup(func() { c.run("volume", "rm", "-f", filesystem) })
		c.ok("volume", "create", "-o", "type=ext4", "-o", "device="+device, filesystem)
		c.ok("run", "--rm", "-v", filesystem+":/m", "busybox", "sh", "-c", "echo kept > /m/file")
		c.equal(c.ok("run", "--rm", "-v", filesystem+":/m", "busybox", "cat", "/m/file"), "kept")
	})
}

func TestVolumeOptionsThatCannotBe(t *testing.T) {
	both(t, func(c *client) {
		name := c.own("bad")
		for _, bad := range []struct {
			options []string
			why     string
		}{
			{[]string{"colour=red"}, `create ` + name + `: invalid option: "colour"`},
			{[]string{"type=nfs"}, `create ` + name + `: missing required option: "device"`},
			{[]string{"device=/x"}, `create ` + name + `: missing required option: "type"`},
			{[]string{"o=addr=x"}, `create ` + name + `: missing required option: "device"`},
			{[]string{"size=much"}, `create ` + name + `: invalid size: 'much'`},
		} {
			args := []string{"volume", "create"}
			for _, option := range bad.options {
				args = append(args, "-o", option)
			}
			c.fails(1, bad.why, append(args, name)...)
		}
		c.fails(1, "volume name is too short", "volume", "create", "x")
		c.fails(1, "includes invalid characters for a local volume name", "volume", "create", "a:b")
		// What cannot be mounted fails the container in Docker's words, and is not in use then.
		c.Cleanup(func() { c.run("volume", "rm", "-f", name) })
		c.ok("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/no/such", name)
		place := c.ok("volume", "inspect", "-f", "{{.Mountpoint}}", name)
		why := "error while mounting volume '" + place + "': failed to mount local volume: mount /no/such:" + place + ", flags: 0x1000: no such file or directory"
		c.fails(127, why, "run", "--rm", "-v", name+":/m", "busybox", "true") // the clients take the text for the program's
		c.ok("volume", "rm", name)
	})
}

// Who uses a mounted volume is known after SIGKILL of the driver and of the core.
func TestMountedVolumesSurviveCrashes(t *testing.T) {
	e := ownEngine(t, private.Options{})
	c := newClient(t, "davit", e)
	c.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory")
	place := c.ok("volume", "inspect", "-f", "{{.Mountpoint}}", "memory")
	c.background("one", "-v", "memory:/m", "busybox", "sh", "-c", "echo shared > /m/file; sleep 600")
	driver := func() int {
		pid, err := strconv.Atoi(c.ok("plugin", "inspect", "-f", "{{.PID}}", "volume-local"))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	for round := range 3 {
		kill(t, driver())
		c.equal(c.ok("run", "--rm", "-v", "memory:/m", "busybox", "cat", "/m/file"), "shared")
		if kind := mountedAt(t, place); kind != "tmpfs" {
			t.Fatalf("round %d: mounted is %q", round, kind)
		}
		c.fails(1, "volume is in use", "volume", "rm", "-f", "memory")
	}
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	startAgain(t, e)
	c.equal(c.ok("run", "--rm", "-v", "memory:/m", "busybox", "cat", "/m/file"), "shared")
	c.equal(mountedAt(t, place), "tmpfs")
	// Its container ends while neither is there.
	pid, err := strconv.Atoi(c.ok("inspect", "-f", "{{.State.Pid}}", c.own("one")))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	kill(t, pid)
	startAgain(t, e)
	eventually(t, "the end of the mount", func() error {
		if kind := mountedAt(t, place); kind != "" {
			return fmt.Errorf("mounted is %s", kind)
		}
		return nil
	})
	c.ok("rm", c.own("one"))
	c.ok("volume", "rm", "memory")
	if _, err := os.Stat(filepath.Dir(place)); !os.IsNotExist(err) {
		t.Errorf("the volume's directory: %v", err)
	}
}

// An empty volume is filled from the image when a container is made, whoever made
// the volume; one with something in it is not.
func TestVolumesAreFilledFromTheImage(t *testing.T) {
	both(t, func(c *client) {
		volume := c.own("v")
		c.Cleanup(func() { c.run("volume", "rm", "-f", volume) })
		c.ok("volume", "create", volume)
		c.equal(c.ok("run", "--rm", "-v", volume+":/data:nocopy", "busybox", "ls", "/data"), "")
		c.equal(c.ok("run", "--rm", "--mount", "type=volume,source="+volume+",target=/data,volume-nocopy", "busybox", "ls", "/data"), "")
		c.equal(c.ok("run", "--rm", "-v", volume+":/data", "busybox", "ls", "/data"), "from-image")
		c.ok("run", "--rm", "-v", volume+":/data", "busybox", "sh", "-c", "rm /data/from-image; echo own > /data/own")
		c.equal(c.ok("run", "--rm", "-v", volume+":/data", "busybox", "ls", "/data"), "own")
		// A filesystem that is mounted is filled, too, and keeps it.
		dir := c.TempDir()
		bound := c.own("bound")
		c.Cleanup(func() { c.run("volume", "rm", "-f", bound) })
		c.ok("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device="+dir, bound)
		c.ok("create", "--name", c.own("made"), "-v", bound+":/data", "busybox")
		c.Cleanup(func() { c.run("rm", "-fv", c.own("made")) })
		c.equal(read(c.T, filepath.Join(dir, "from-image")), "image\n")
		c.equal(mountedAt(c.T, c.ok("volume", "inspect", "-f", "{{.Mountpoint}}", bound)), "")
		// Files are copied into and out of it while nothing runs.
		c.equal(c.with("").ok("cp", c.own("made")+":/data/from-image", filepath.Join(dir, "copy")), "")
		c.equal(read(c.T, filepath.Join(dir, "copy")), "image\n")
	})
}

func TestPartsOfVolumes(t *testing.T) {
	both(t, func(c *client) {
		volume, box := c.own("v"), c.own("box")
		c.Cleanup(func() { c.run("volume", "rm", "-f", volume) })
		part := func(name string) string {
			return "type=volume,source=" + volume + ",target=/data,volume-subpath=" + name
		}
		c.ok("run", "--rm", "-v", volume+":/v", "busybox", "sh", "-c", "mkdir -p /v/a/b; echo yes >/v/a/b/file; mkdir /v/empty; ln -s /etc /v/out; echo top >/v/top")
		place := c.ok("volume", "inspect", "-f", "{{.Mountpoint}}", volume)
		c.fails(127, "cannot access path "+place+"/nosuch: no such file or directory", "run", "--rm", "--mount", part("nosuch"), "busybox", "true")
		c.fails(125, "path concatenation escapes the base directory", "run", "--rm", "--mount", part("out"), "busybox", "true")
		c.fails(125, "subpath must be a relative path within the volume", "run", "--rm", "--mount", part("../x"), "busybox", "true")
		c.fails(125, "must not set Subpath when using anonymous volumes", "run", "--rm", "--mount", "type=volume,target=/data,volume-subpath=a", "busybox", "true")
		c.equal(c.ok("run", "--rm", "--mount", part("empty"), "busybox", "ls", "/data"), "from-image")
		c.equal(c.ok("run", "--rm", "--mount", "type=volume,source="+volume+",target=/file,volume-subpath=top,readonly", "busybox", "cat", "/file"), "top")
		// A container that does not run has the same part.
		c.ok("create", "--name", box, "--mount", part("a/b"), "busybox")
		c.Cleanup(func() { c.run("rm", "-fv", box) })
		c.contains(c.ok("cp", box+":/data/file", "-"), "yes")
		// It can be gone when the container starts.
		c.ok("run", "--rm", "-v", volume+":/v", "busybox", "rm", "-r", "/v/a")
		c.fails(1, "cannot access path "+place+"/a/b", "start", box)
	})
}

func TestVolumeSpecificationsThatCannotBe(t *testing.T) {
	both(t, func(c *client) {
		name := c.own("v")
		c.Cleanup(func() { c.run("volume", "rm", "-f", name) })
		for spec, why := range map[string]string{
			name + ":/x:rshared": `invalid mount config for type "volume": field BindOptions must not be specified`,
			name + ":/x:purple":  "invalid mode: purple", name + ":/x:ro,rw": "invalid mode: ro,rw", "/etc:/x:z,Z": "invalid mode: z,Z",
			name + ":/": "destination can't be '/'", name + ":x": "invalid mount path: 'x' mount path must be absolute",
		} {
			c.fails(125, why, "run", "--rm", "-v", spec, "busybox", "true")
		}
		c.fails(125, "invalid volume specification: '/x:ro'", "run", "--rm", "-v", "/x:ro", "busybox", "true")
		c.background("box", "-v", name+":/v", "busybox", "sleep", "600")
		c.fails(125, "invalid mode: rshared", "run", "--rm", "--volumes-from", c.own("box")+":rshared", "busybox", "true")
		c.fails(125, "invalid mode: nocopy", "run", "--rm", "--volumes-from", c.own("box")+":nocopy", "busybox", "true")
		c.fails(1, "Read-only file system", "run", "--rm", "--volumes-from", c.own("box")+":ro,z", "busybox", "touch", "/v/x")
		c.ok("run", "--rm", "--volumes-from", c.own("box")+":z", "busybox", "touch", "/v/x")
	})
}

func TestVolumesPruneAndUsage(t *testing.T) {
	for _, name := range []string{"docker", "davit"} {
		t.Run(name, func(t *testing.T) { // alone with their engine: prune means all volumes
			c := newClient(t, name, ownEngine(t, private.Options{}))
			c.ok("volume", "create", "--label", "keep=yes", "named")
			c.background("box", "-v", "used:/u", "-v", "/anonymous", "busybox", "sleep", "600")
			c.ok("exec", c.own("box"), "sh", "-c", "head -c 5000 /dev/zero > /u/a; ln /u/a /u/b; mkdir /u/d")
			c.ok("run", "--rm", "-v", "used:/u", "-v", "/gone", "busybox", "touch", "/gone/x")
			c.equal(strconv.Itoa(len(strings.Fields(c.ok("volume", "ls", "-q")))), "3")
			anonymous := c.ok("volume", "create")
			c.equal(c.ok("volume", "ls", "-q", "-f", "dangling=true", "-f", "name=named"), "named")
			c.contains(c.ok("volume", "ls", "-q", "-f", "label=com.docker.volume.anonymous"), anonymous)
			table := c.ok("system", "df", "-v")
			for _, row := range []string{"used +1 +5kB", "named +0 +0B"} {
				if !regexp.MustCompile(row).MatchString(table) {
					t.Errorf("no row %q in\n%s", row, table)
				}
			}
			c.contains(c.ok("volume", "prune", "-f"), anonymous)
			c.equal(strconv.Itoa(len(strings.Fields(c.ok("volume", "ls", "-q")))), "3")
			c.ok("volume", "prune", "-f", "--all", "--filter", "label!=keep=yes")
			c.contains(c.ok("volume", "ls", "-q"), "named")
			c.contains(c.ok("volume", "prune", "-f", "--filter", "all=1"), "named")
			// With its container goes what nobody named.
			id := c.ok("inspect", "-f", "{{.Id}}", c.own("box"))
			c.fails(1, "remove used: volume is in use - ["+id+"]", "volume", "rm", "-f", "used")
			c.ok("rm", "-fv", c.own("box"))
			c.equal(c.ok("volume", "ls", "-q"), "used")
			c.ok("volume", "rm", "-f", "used", "nosuch")
		})
	}
}

// Somebody removed a volume's directory on the host.
func TestAVolumeWhoseDataIsGone(t *testing.T) {
	both(t, func(c *client) {
		volume, box := c.own("v"), c.own("box")
		c.Cleanup(func() { c.run("volume", "rm", "-f", volume) })
		c.ok("create", "--name", box, "-v", volume+":/v", "busybox", "true")
		c.Cleanup(func() { c.run("rm", "-fv", box) })
		place := c.ok("volume", "inspect", "-f", "{{.Mountpoint}}", volume)
		if err := os.RemoveAll(filepath.Dir(place)); err != nil {
			c.Fatal(err)
		}
		c.fails(1, "the data of volume "+volume+" is gone, "+place+" was removed by somebody else", "start", box)
		c.ok("rm", box)
		c.ok("volume", "rm", volume)
		c.equal(c.ok("run", "--rm", "-v", volume+":/v", "busybox", "echo", "works"), "works")
	})
}
