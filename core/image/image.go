// Package image keeps images: blobs in containerd's content store, names in its
// metadata database, layers unpacked into snapshots of the storage drivers.
package image

import (
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image for one platform.
type Image struct {
	ID          digest.Digest      // digest of the image's configuration
	Target      ocispec.Descriptor // what the names point to: a manifest or an index
	Manifest    ocispec.Descriptor // the manifest of this platform
	RepoTags    []string           // familiar names with tags, e.g. "busybox:latest"
	RepoDigests []string           // familiar names with digests
	Config      dockerspec.DockerOCIImage
	Size        int64 // bytes of all layers, unpacked where known
}

// shown is how an image is called where nobody said how: by a name, or its ID.
func (img *Image) shown() string {
	for _, names := range [][]string{img.RepoTags, img.RepoDigests} {
		if len(names) > 0 {
			return names[0]
		}
	}
	return img.ID.String()
}
