package e2e

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// TestArchivesOfSeveralPlatforms moves an index with images of two platforms, and
// parts of it.
func TestArchivesOfSeveralPlatforms(t *testing.T) {
	t.Parallel()
	c := newClient(t, "davit", engine)
	other := map[string]string{"amd64": "arm64"}[runtime.GOARCH]
	if other == "" {
		other = "amd64"
	}
	image, dir := c.own("image")+":1", t.TempDir()
	c.Cleanup(func() { c.run("rmi", "-f", image) })
	index := v1.ImageIndex(empty.Index)
	for _, architecture := range []string{other, runtime.GOARCH} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: platformImage(t, architecture), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}}})
	}
	list := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index, Descriptor: v1.Descriptor{Annotations: map[string]string{"org.opencontainers.image.ref.name": image}}})
	if _, err := layout.Write(dir, list); err != nil {
		t.Fatal(err)
	}
	both, half := filepath.Join(t.TempDir(), "both.tar"), filepath.Join(t.TempDir(), "half.tar")
	tool(t, "tar")("-cf", both, "-C", dir, ".")
	architecture := func() string { return c.ok("image", "inspect", "-f", "{{.Architecture}}", image) }

	c.contains(c.ok("load", "-i", both), "Loaded image: "+image)
	c.equal(architecture(), runtime.GOARCH)
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	c.equal(c.ok("image", "inspect", "-f", "{{.Descriptor.Digest}}", image), digest.String())
	// All of it goes out, and comes back.
	c.ok("save", "-o", both, image)
	c.contains(tool(t, "tar")("-tf", both), "blobs/sha256/"+digest.Hex)
	c.ok("rmi", image)
	c.contains(c.ok("load", "-i", both), "Loaded image: "+image)
	c.equal(c.ok("image", "inspect", "-f", "{{.Descriptor.Digest}}", image), digest.String())
	c.equal(c.ok("image", "inspect", "--platform", "linux/"+other, "-f", "{{.Architecture}} {{.RepoTags}}", image), other+" ["+image+"]")
	c.contains(c.ok("history", "--platform", "linux/"+other, "-q", image), c.ok("image", "inspect", "--platform", "linux/"+other, "-f", "{{.Id}}", image)[7:19])
	// One of it.
	c.ok("save", "--platform", "linux/"+other, "-o", half, image)
	if listed := tool(t, "tar")("-tf", half); strings.Contains(listed, digest.Hex) {
		t.Errorf("the index is in an archive of one platform:\n%s", listed)
	}
	for _, way := range [][]string{{"-i", half}, {"-i", both, "--platform", "linux/" + other}} {
		c.ok("rmi", image)
		c.contains(c.ok(append([]string{"load"}, way...)...), "Loaded image: "+image)
		c.equal(architecture(), other)
	}
	// What is not there.
	missing := "does not provide the specified platform (linux/riscv64)"
	c.fails(1, "image with reference "+image+" was found but "+missing, "save", "--platform", "linux/riscv64", "-o", half, image)
	c.fails(1, "image with reference "+image+" was found but "+missing, "image", "inspect", "--platform", "linux/riscv64", image)
	c.ok("rmi", image)
	c.fails(1, missing, "load", "--platform", "linux/riscv64", "-i", both)
	c.fails(1, "No such image", "image", "inspect", image)
}
