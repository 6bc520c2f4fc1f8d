package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/test/private"
)

func TestCloneAVolume(t *testing.T) {
	c := newClient(t, "davit", engine)
	source, clone := c.own("source"), c.own("clone")
	c.Cleanup(func() { c.run("volume", "rm", "-f", source, clone) })
	c.background("box", "-v", source+":/v", "busybox", "sh", "-c", "echo data > /v/file; chown 33:34 /v/file; ln /v/file /v/same; sleep 600")
	eventually(t, "the data", func() error {
		_, err := os.Stat(c.ok("volume", "inspect", "-f", "{{.Mountpoint}}", source) + "/same")
		return err
	})
	c.fails(1, "volume is in use by running containers", "volume", "clone", source, clone)
	c.equal(c.ok("volume", "clone", "--force", "--label", "a=b", source, clone), clone)
	c.equal(c.ok("volume", "inspect", "-f", `{{index .Labels "a"}}`, clone), "b")
	c.equal(c.ok("run", "--rm", "-v", clone+":/v", "busybox", "sh", "-c", "cat /v/file; stat -c %u:%g:%h /v/same; echo other > /v/file"), "data\n33:34:2")
	c.equal(c.ok("exec", c.own("box"), "cat", "/v/file"), "data")
	c.fails(1, "already exists", "volume", "clone", "--force", source, clone)
	c.fails(1, "no such volume", "volume", "clone", c.own("nosuch"), c.own("x"))
	c.ok("rm", "-f", c.own("box"))
	c.ok("volume", "rm", clone)
	c.ok("volume", "clone", source, clone)
}

// Containers that do not run follow a volume's new name; the core is killed and
// finds it so.
func TestRenameAVolume(t *testing.T) {
	e := ownEngine(t, private.Options{})
	c := newClient(t, "davit", e)
	c.background("box", "-v", "old:/v", "--mount", "type=volume,source=old,target=/w,readonly", "busybox", "sh", "-c", "echo data >> /v/file; sleep 600")
	c.fails(1, "volume is in use by running containers", "volume", "rename", "old", "new")
	c.ok("stop", "-t", "0", c.own("box"))
	c.ok("volume", "create", "taken")
	c.fails(1, "a volume named taken already exists", "volume", "rename", "old", "taken")
	c.fails(1, "includes invalid characters", "volume", "rename", "old", "a:b")
	c.equal(c.ok("volume", "rename", "old", "new"), "new")
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	startAgain(t, e)
	c.equal(c.ok("volume", "ls", "-q"), "new\ntaken")
	c.equal(c.ok("inspect", "-f", "{{range .Mounts}}{{.Name}} {{end}}{{.HostConfig.Binds}} {{range .HostConfig.Mounts}}{{.Source}}{{end}}", c.own("box")), "new new [new:/v] new")
	c.ok("start", c.own("box"))
	eventually(t, "both lines", func() error {
		if got := c.ok("exec", c.own("box"), "cat", "/w/file"); got != "data\ndata" {
			return os.ErrNotExist
		}
		return nil
	})
	c.fails(1, "volume is in use - [", "volume", "rm", "new")
	// The old name is free for another volume.
	c.ok("volume", "create", "old")
	c.equal(c.ok("run", "--rm", "-v", "old:/v", "busybox", "ls", "/v"), "")
}

// An engine on a filesystem with project quotas.
func TestVolumesWithALimit(t *testing.T) {
	dir := t.TempDir()
	disk, place := filepath.Join(dir, "disk"), filepath.Join(dir, "m")
	if err := os.Mkdir(place, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "truncate", "-s", "160M", disk)
	command(t, "mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", disk)
	device := command(t, "losetup", "--find", "--show", disk)
	t.Cleanup(func() { command(t, "losetup", "--detach", device) })
	if err := unix.Mount(device, place, "ext4", 0, "prjquota"); err != nil {
		t.Skipf("the kernel has no quotas for ext4 (CONFIG_QFMT_V2): %v", err)
	}
	t.Cleanup(func() { command(t, "umount", place) })
	c := newClient(t, "davit", ownEngine(t, private.Options{Dir: place}))
	c.ok("volume", "create", "-o", "size=2m", "small")
	fill := func() string {
		return c.ok("run", "--rm", "-v", "small:/v", "busybox", "sh", "-c", "dd if=/dev/zero of=/v/file bs=64k count=256 2>&1 | grep -o 'Disk quota exceeded\\|No space left on device'; du -m /v/file | cut -f1; rm /v/file")
	}
	if got := fill(); !strings.HasSuffix(got, "\n2") {
		t.Errorf("a volume of 2 MiB: %s", got)
	}
	c.ok("volume", "resize", "small", "4m")
	c.equal(c.ok("volume", "inspect", "-f", "{{.Options.size}}", "small"), "4194304")
	if got := fill(); !strings.HasSuffix(got, "\n4") {
		t.Errorf("a volume of 4 MiB: %s", got)
	}
	c.ok("volume", "resize", "small", "0")
	c.equal(fill(), "16")
	c.ok("volume", "rm", "small")
}
