package oci

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestBuildah(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	if _, err := exec.LookPath("buildah"); err != nil {
		t.Skip("no buildah: install buildah")
	}
	dir, err := os.MkdirTemp("", "davit-buildah-")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t, dir, []string{"buildah", "--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs"}}
	t.Cleanup(func() {
		e.ends(0, "rm", "--all")
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	id := strings.TrimSpace(e.must("from", "scratch"))
	e.must("add", id, imageTar(t), "/")
	run := []string{"run", "--runtime", program(t), "--isolation", "oci", "--network", "none", id, "--"}
	e.must(append(run, "sh", "-c", "echo built >/result")...)
	if got := e.must(append(run, "cat", "/result")...); got != "built\n" {
		t.Errorf("run: %q", got)
	}
	e.ends(3, append(run, "sh", "-c", "exit 3")...)
}
