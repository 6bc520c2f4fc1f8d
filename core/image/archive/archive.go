// Package archive reads and writes files of images: docker save's (manifest.json)
// and the OCI image layout in a tar archive, which are one file when written. It
// moves blobs between the archive and a content store; what images mean, and
// whether their layers are sound, is not its business.
package archive

import (
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is an image in an archive, or one to be written to it.
type Image struct {
	Target ocispec.Descriptor // a manifest or an index
	Names  []string           // full names with tags
}

// Files of an archive besides the blobs.
const (
	layoutFile   = ocispec.ImageLayoutFile // OCI: the version
	indexFile    = ocispec.ImageIndexFile  // OCI: what there is
	manifestFile = "manifest.json"         // Docker: what there is
	reposFile    = "repositories"          // Docker: names, as before manifest.json
)

// dockerImage is an entry of manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func invalid(text string) error { return errdefs.ErrInvalidArgument.WithMessage(text) }
