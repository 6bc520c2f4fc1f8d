package e2e

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/test/private"
)

// TestUserNamespaces drives an engine whose containers' root is the host's user
// 200000.
func TestUserNamespaces(t *testing.T) {
	t.Parallel()
	e := ownEngine(t, private.Options{Config: `userns_remap = "200000-265535"`})
	for _, name := range []string{"docker", "davit"} {
		t.Run(name, func(t *testing.T) { userNamespaces(newClient(t, name, e)) })
	}
}

func userNamespaces(c *client) {
	box, data := c.own("box"), c.own("data")
	c.background("box", "-v", data+":/data", "busybox", "sh", "-c", "touch /made; chown 33:34 /made; touch /data/made; chown 33:34 /data/made; exec sleep 600")
	c.Cleanup(func() { c.run("volume", "rm", "-f", data) })
	eventually(c.T, "the files", func() error {
		if r := c.run("exec", box, "stat", "-c", "%u", "/data/made"); r.out != "33\n" {
			return fmt.Errorf("%s%s", r.out, r.err)
		}
		return nil
	})
	c.equal(c.ok("exec", box, "awk", "{ print $1, $2, $3 }", "/proc/1/uid_map"), "0 200000 65536")
	status, err := os.ReadFile(filepath.Join("/proc", c.ok("inspect", "-f", "{{.State.Pid}}", box), "status"))
	if err != nil || !strings.Contains(string(status), "\nUid:\t200000\t200000\t") {
		c.Errorf("the host sees the program as %s, %v", status, err)
	}
	// Owners are those of the image, of the program and of the volume.
	c.equal(c.ok("exec", box, "stat", "-c", "%u:%g", "/bin/busybox", "/etc/hosts", "/made", "/data/from-image", "/data/made"), "0:0\n0:0\n33:34\n0:0\n33:34")
	c.equal(c.ok("exec", "-u", "nobody", box, "sh", "-c", "id -u; touch /made 2>/dev/null || echo refused"), "65534\nrefused")
	c.equal(c.ok("exec", box, "sh", "-c", "echo x >> /data/from-image && ping -c 1 -w 9 127.0.0.1 > /dev/null && echo both"), "both")
	// The volume's files belong to the same users on the host.
	var st unix.Stat_t
	place := c.ok("volume", "inspect", "-f", "{{.Mountpoint}}", data)
	if err := unix.Stat(filepath.Join(place, "made"), &st); err != nil || st.Uid != 33 || st.Gid != 34 {
		c.Errorf("the volume's file belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
	c.equal(c.ok("diff", box), "C /etc\nA /made")
	usersOfCopies(c, box)
	c.ok("stop", "-t", "0", box)
	usersOfCopies(c, box)
	c.ok("start", box)

	c.contains(c.ok("run", "--rm", "--network", "container:"+box, "busybox", "cat", "/proc/self/uid_map"), "200000")
	// The name server listens in a network that belongs to the user namespace, and
	// asks others from there.
	names, named := c.own("names"), c.own("named")
	c.ok("network", "create", names)
	c.background("named", "--network", names, "--dns", "127.0.0.1", "busybox", "sleep", "600")
	c.equal(c.addresses(named, named), c.address(named, names, "IPAddress"))
	serveNames(c.T, "/proc/"+c.ok("inspect", "-f", "{{.State.Pid}}", named)+"/ns/net", "127.0.0.1", "192.0.2.1")
	c.equal(c.addresses(named, "www.example"), "192.0.2.1")
	c.equal(c.ok("run", "--rm", "-v", "/etc/passwd:/p", "busybox", "stat", "-c", "%u", "/p"), "65534")
	c.equal(c.ok("run", "--rm", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", "ip link set lo down && echo down"), "down")
	c.fails(125, "privileged mode is incompatible with user namespaces", "run", "--rm", "--privileged", "busybox", "true")
	c.fails(125, "cannot share the host's network namespace when user namespaces are enabled", "run", "--rm", "--network", "host", "busybox", "true")
	c.fails(125, "cannot share the host PID namespace when user namespaces are enabled", "run", "--rm", "--pid", "host", "busybox", "true")
	c.equal(c.ok("run", "--rm", "--userns", "host", "--privileged", "-v", data+":/data", "busybox", "sh", "-c", "awk '{ print $3 }' /proc/self/uid_map; stat -c %u /data/made"), "4294967295\n33")
	c.contains(c.ok("info", "--format", "{{json .}}"), "name=userns")
}

// usersOfCopies copies a file into a container and one of its files out.
func usersOfCopies(c *client, box string) {
	c.Helper()
	source := filepath.Join(c.TempDir(), "copied")
	if err := os.WriteFile(source, []byte("copied\n"), 0o644); err != nil {
		c.Fatal(err)
	}
	c.ok("cp", source, box+":/tmp/copied")
	for path, want := range map[string][2]int{"/tmp/copied": {0, 0}, "/made": {33, 34}, "/data/made": {33, 34}} {
		r := c.run("cp", box+":"+path, "-")
		header, err := tar.NewReader(strings.NewReader(r.out)).Next()
		if err != nil || header.Uid != want[0] || header.Gid != want[1] {
			c.Errorf("%s is copied as %+v, %v (%s)", path, header, err, r.err)
		}
	}
}
