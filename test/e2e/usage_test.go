package e2e

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/image"

	"github.com/davit-engine/davit/test/private"
)

// What df says of images is what is in the content store and in the driver's layers.
func TestDiskUsageIsWhatIsOnDisk(t *testing.T) {
	e := ownEngine(t, private.Options{})
	for _, client := range []string{"davit", "docker"} {
		out, err := e.Command(t.Context(), client, "system", "df", "-v").CombinedOutput()
		if err != nil {
			t.Fatalf("%s system df -v: %v\n%s", client, err, out)
		}
		for _, want := range []string{"SHARED SIZE", "UNIQUE SIZE", "busybox"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s system df -v lacks %q:\n%s", client, want, out)
			}
		}
		if out, err = e.Command(t.Context(), client, "system", "df").CombinedOutput(); err != nil || !strings.Contains(string(out), "Build Cache") {
			t.Errorf("%s system df: %v\n%s", client, err, out)
		}
	}
	var usage struct {
		LayersSize int64
		Images     []image.Summary
		Containers []any
	}
	if err := e.Get(t.Context(), "/system/df?type=image", &usage); err != nil {
		t.Fatal(err)
	}
	if len(usage.Images) != 1 || usage.Images[0].Size != usage.LayersSize || usage.Images[0].SharedSize != 0 || len(usage.Containers) != 0 {
		t.Fatalf("one image: %+v", usage)
	}
	blobs := int64(0)
	err := filepath.WalkDir(filepath.Join(e.Dir, "root", "images", "content", "blobs"), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			blobs += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if layers := usage.LayersSize - blobs; blobs == 0 || layers <= 0 {
		t.Errorf("df says %d bytes, of which %d are blobs", usage.LayersSize, blobs)
	}
}
