// Package checkpoint dumps the processes of running containers into directories
// of image files, and plans how to make them anew from there. CRIU does the work;
// this package knows what of a container is its own and what is the host's.
package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// imageName is the file beside CRIU's own that says what they do not.
const imageName = "davit.json"

// format is that of Image; others are refused.
const format = 1

// Image is what has to be known of a checkpoint besides what CRIU dumps.
type Image struct {
	Format int `json:"format"`
	// Pipes are the names that the standard streams have in the checkpoint, empty
	// where they are no pipes.
	Pipes    [3]string `json:"pipes"`
	Terminal bool      `json:"terminal,omitempty"`
	// External are the mounts of the host's files, in the order of mounting.
	External []External `json:"external,omitempty"`
	// Points are the places of all mounts below the root.
	Points []Point `json:"points,omitempty"`
	// Network says that the network namespace is not in the images.
	Network bool `json:"network,omitempty"`
	// Files are the sizes of CRIU's files: of one that is cut off it may read without
	// end.
	Files map[string]int64 `json:"files"`
}

// External is a mount of the host's files.
type External struct {
	Mountpoint string `json:"mountpoint"` // in the container
	Source     string `json:"source"`     // on the host, at the time of the checkpoint
}

// Point is where a mount is.
type Point struct {
	Path string `json:"path"`
	File bool   `json:"file,omitempty"` // else a directory
}

// networkKey names the network namespace in the images, as runc's do.
const networkKey = "extRootNetNS"

// Read reads the description of a checkpoint. ErrNotFound if there is none,
// ErrInvalidArgument if it is not a whole one.
func Read(dir string) (*Image, error) {
	body, err := os.ReadFile(filepath.Join(dir, imageName))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("checkpoint %s does not exist: %w", dir, errdefs.ErrNotFound)
		}
		return nil, fmt.Errorf("%s is not a checkpoint: it has no %s: %w", dir, imageName, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, err
	}
	image := &Image{}
	if err := json.Unmarshal(body, image); err != nil {
		return nil, fmt.Errorf("checkpoint %s is damaged: reading %s: %w: %w", dir, imageName, err, errdefs.ErrInvalidArgument)
	}
	if image.Format != format {
		return nil, fmt.Errorf("checkpoint %s has format %d, this version reads %d: %w", dir, image.Format, format, errdefs.ErrInvalidArgument)
	}
	for name, size := range image.Files {
		info, err := os.Lstat(filepath.Join(dir, filepath.Base(name)))
		if err == nil && info.Size() != size {
			err = fmt.Errorf("%s has %d bytes, not %d", name, info.Size(), size)
		}
		if err != nil {
			return nil, fmt.Errorf("checkpoint %s is damaged: %w: %w", dir, err, errdefs.ErrInvalidArgument)
		}
	}
	return image, nil
}

// measure notes the sizes of the files in a directory of images.
func (i *Image) measure(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	i.Files = map[string]int64{}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			i.Files[entry.Name()] = info.Size()
		}
	}
	return nil
}

// write leaves the description in a directory of images.
func (i *Image) write(dir string) error {
	body, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, imageName), body, 0o600)
}
