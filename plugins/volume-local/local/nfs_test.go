package local

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// insideNFS is set in the process that has a server in a network of its own.
const insideNFS = "DAVIT_TEST_NFS_SERVER"

// TestARealNFSServer mounts a directory from the kernel's own NFS server. Server and
// client are in namespaces of their own: this machine's server, if it has one, is
// left alone.
func TestARealNFSServer(t *testing.T) {
	if os.Getenv(insideNFS) == "" {
		_ = exec.Command("modprobe", "nfsd").Run()
		_ = exec.Command("modprobe", "nfsv4").Run()
		known, err := os.ReadFile("/proc/filesystems")
		for _, kind := range []string{"\tnfsd\n", "\tnfs4\n"} {
			if err != nil || !strings.Contains(string(known), kind) {
				t.Skipf("the kernel has no%s", strings.TrimRight(kind, "\n"))
			}
		}
		if _, err := exec.LookPath("rpc.nfsd"); err != nil {
			t.Skip("nfs-kernel-server is not installed")
		}
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestARealNFSServer$", "-test.v")
		cmd.Env = append(os.Environ(), insideNFS+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	export, root, state := filepath.Join(dir, "export"), filepath.Join(dir, "root"), filepath.Join(dir, "state")
	for _, d := range []string{export, state} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sh := func(script string) string { t.Helper(); return run(t, "sh", "-ec", script) }
	sh("ip link set lo up; mount -t proc proc /proc; mount -t nfsd nfsd /proc/fs/nfsd; mkdir -p /var/lib/nfs; mount --bind " + state + " /var/lib/nfs; mkdir -p /var/lib/nfs/v4recovery; touch /var/lib/nfs/etab /var/lib/nfs/rmtab")
	sh("rpc.mountd -N 2 -N 3 </dev/null >/dev/null 2>&1; exportfs -o rw,no_root_squash,insecure,fsid=0,no_subtree_check 127.0.0.1:" + export + "; rpc.nfsd -N 3 -V 4.2 2")
	t.Cleanup(func() { run(t, "rpc.nfsd", "0") })
	if err := os.WriteFile(filepath.Join(export, "there"), []byte("from the server"), 0o644); err != nil {
		t.Fatal(err)
	}

	d := open(t, root)
	create(t, d, "far", map[string]string{"type": "nfs", "device": ":/", "o": "addr=127.0.0.1,vers=4.2,rw"})
	at := mountFor(t, d, "far", "one")
	if body, err := os.ReadFile(filepath.Join(at, "there")); string(body) != "from the server" {
		t.Errorf("%q, %v", body, err)
	}
	if err := os.WriteFile(filepath.Join(at, "mine"), []byte("from a container"), 0o644); err != nil {
		t.Fatal(err)
	}
	unmountFor(t, d, "far", "one")
	if body, err := os.ReadFile(filepath.Join(export, "mine")); string(body) != "from a container" {
		t.Errorf("%q, %v", body, err)
	}
	if list := places(t, d); list != "" {
		t.Errorf("left mounted: %s", list)
	}
	// What the server does not have, and what it does not let this client have.
	create(t, d, "nothing", map[string]string{"type": "nfs", "device": ":/nothing", "o": "addr=127.0.0.1,vers=4.2"})
	if _, err := d.Mount(t.Context(), "nothing", "one"); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("a directory that is not there: %v", err)
	}
	sh("exportfs -u 127.0.0.1:" + export)
	create(t, d, "forbidden", map[string]string{"type": "nfs", "device": ":/", "o": "addr=127.0.0.1,vers=4.2"})
	if _, err := d.Mount(t.Context(), "forbidden", "one"); err == nil {
		t.Error("a directory that is not exported was mounted")
	} else {
		t.Log(err)
	}
	if err := d.Remove(t.Context(), "far"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(export, "there")); err != nil {
		t.Errorf("the server's data went with the volume: %v", err)
	}
}
