package container

import (
	"os"
	"path/filepath"
	"testing"
)

// What a spec has for other systems is left out, all else is there.
func TestLoadSpec(t *testing.T) {
	bundle := t.TempDir()
	body := `{"ociVersion":"1.2.0","root":{"path":"r"},"process":{"cwd":"/","args":["a"]},"hostname":"h","annotations":{"k":"v"},
		"mounts":[{"destination":"/m"}],"linux":{"cgroupsPath":"/c"},"windows":{"layerFolders":7},"vm":{"kernel":{"path":"/k"}},"solaris":{},"zos":{}}`
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	spec, err := loadSpec(bundle)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Windows != nil || spec.VM != nil || spec.Solaris != nil || spec.ZOS != nil {
		t.Errorf("other systems' parts are there: %+v", spec)
	}
	if spec.Root.Path != "r" || spec.Process.Args[0] != "a" || spec.Hostname != "h" || spec.Annotations["k"] != "v" || spec.Mounts[0].Destination != "/m" || spec.Linux.CgroupsPath != "/c" {
		t.Errorf("Linux's parts are not: %+v", spec)
	}
}
