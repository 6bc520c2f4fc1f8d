package layers

import (
	"archive/tar"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// Image is what the layers of an image are made of.
type Image struct {
	ID, Platform string
	Names        []string
	Size         int64 // bytes of the files of all layers
	Compressed   int64 // bytes of the layers as they are stored
	Wasted       int64 // bytes of files that later layers overwrite or remove
	WastedFiles  int   // paths at which that happens
	Layers       []Layer
}

// Layer is one layer of an image, the lowest first.
type Layer struct {
	Digest, DiffID          digest.Digest
	MediaType               string
	Created                 *time.Time `json:",omitempty"`
	CreatedBy, Comment      string
	Size, Compressed        int64
	Added, Changed, Removed Count
	Wasted                  int64    // bytes of layers below that it overwrites or removes
	SharedWith              []string // other images that have it on the same layers
	Files                   []File   `json:",omitempty"`
}

// Count counts paths and the bytes of the files there: as they are now, or for what
// is removed, as they were.
type Count struct {
	Paths int
	Bytes int64
}

// File is a path that changes.
type File struct {
	Kind        Kind
	Path        string
	Type        string
	Size        int64    // bytes now; of what is removed, before
	Before      int64    // bytes before
	Differences []string `json:",omitempty"` // in what it changes
}

// Difference is what one image has other than another.
type Difference struct {
	From, To                Compared
	SharedLayers            int // how many of the lowest layers are the same
	Added, Changed, Removed Count
	Files                   []File // by path
	Config                  []ConfigChange
}

// Compared is an image of a comparison.
type Compared struct {
	ID       string
	Names    []string
	Platform string
	Size     int64
	Layers   int
}

// ConfigChange is a field of images' configurations that differs: "Cmd", "Env.PATH",
// "Labels.a". Before or After is null where there is none.
type ConfigChange struct {
	Field         string
	Before, After any
}

// Count counts a change that the layer makes.
func (l *Layer) Count(c Change) {
	l.Wasted += c.Hidden
	switch c.Kind {
	case Added:
		l.Added.Add(c.After.Size)
		l.Size += c.After.Size
	case Changed:
		l.Changed.Add(c.After.Size)
		l.Size += c.After.Size
	case Removed:
		l.Removed.Add(c.Hidden)
	}
}

// Add counts a path.
func (c *Count) Add(bytes int64) {
	c.Paths++
	c.Bytes += bytes
}

// FileOf describes a change.
func FileOf(c Change) File {
	f := File{Kind: c.Kind, Path: c.Path}
	shown := c.After
	if c.Before != nil {
		f.Before = c.Before.Size
		if shown == nil {
			shown = c.Before
		}
	}
	f.Type, f.Size = typeName(shown.Type), shown.Size
	if c.Kind == Changed {
		f.Differences = Differences(*c.Before, *c.After)
	}
	return f
}

func typeName(kind byte) string {
	switch kind {
	case tar.TypeReg:
		return "file"
	case tar.TypeDir:
		return "directory"
	case tar.TypeSymlink:
		return "symlink"
	case tar.TypeLink:
		return "hardlink"
	case tar.TypeChar, tar.TypeBlock:
		return "device"
	case tar.TypeFifo:
		return "fifo"
	}
	return fmt.Sprintf("type %q", kind)
}
