package image

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/davit-engine/davit/core/image/verify"
)

// TestThePolicyIsAsked of what is pulled, loaded and imported; what is refused leaves
// nothing.
func TestThePolicyIsAsked(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Policy = verify.Policy{Rules: []verify.Rule{{Match: verify.AnyOther, Accept: verify.Signed, Keys: []string{"/none"}}}}
	})
	ref := w.serve("team/app", imageOf(t, layer(t, "a", 10)))
	if err := w.Pull(t.Context(), ref, "", nil, quiet); !errdefs.IsInternal(err) || !strings.Contains(err.Error(), "/none") {
		t.Errorf("with a key that is not there: %v", err)
	}
	if err := w.Load(t.Context(), strings.NewReader(""), nil, quiet); !errdefs.IsPermissionDenied(err) {
		t.Errorf("load: %v", err)
	}
	if err := w.Import(t.Context(), ImportOptions{}, strings.NewReader(""), quiet); !errdefs.IsPermissionDenied(err) {
		t.Errorf("import: %v", err)
	}
	if list, _ := w.blobs(); len(list) > 0 {
		t.Errorf("there are %v", list)
	}
}

// TestAPlatformBesideTheHosts pulls two images of one index: the second pull is about
// the second image, whatever is here of the first, and on whichever driver.
func TestAPlatformBesideTheHosts(t *testing.T) {
	w := newWorld(t, nil)
	ours := imageOf(t, layer(t, "a", 10), layer(t, "b", 10), layer(t, "c", 10))
	theirs := imageOf(t, layer(t, "d", 10))
	config, err := theirs.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.Architecture = "s390x"
	if theirs, err = mutate.ConfigFile(theirs, config); err != nil {
		t.Fatal(err)
	}
	ref := w.address + "/both:v1"
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	err = remote.WriteIndex(parsed, mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: ours, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: theirs, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}}))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Pull(t.Context(), ref, "linux/amd64", nil, quiet); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(w.drivers.names) // the default is another one now
	if err := w.Pull(t.Context(), ref, "linux/s390x", nil, quiet); err != nil {
		t.Fatal(err)
	}
	driver, err := w.drivers.Storage(w.drivers.Default(""))
	if err != nil {
		t.Fatal(err)
	}
	top := identity.ChainID([]digest.Digest{digest.Digest(config.RootFS.DiffIDs[0].String())})
	if _, err := driver.Stat(t.Context(), top.String()); err != nil {
		t.Errorf("the layer that was pulled: %v", err)
	}
}
