package rootfs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// whiteoutPrefix begins the names of entries that delete a path of the layers
// below (OCI image specification, layer.md).
const whiteoutPrefix = ".wh."

// LayerWriter writes changes of a root filesystem as the archive of an image layer.
// The same changes make the same bytes: access and change times are left out, and
// deletions have the time 0.
type LayerWriter struct {
	root    *os.Root
	archive *archiver
	entries int
}

// NewLayer begins a layer. Close ends it.
func (v *View) NewLayer(w io.Writer) (*LayerWriter, error) {
	root, err := os.OpenRoot(fdPath(v.root))
	if err != nil {
		return nil, err
	}
	return &LayerWriter{root: root, archive: &archiver{ids: v.ids, root: root, out: tar.NewWriter(w), links: map[inode]string{}}}, nil
}

// Put writes what is at a path, a directory without what is in it. A path that is
// gone is passed over. ErrInvalidArgument for a name that layers cannot hold.
func (l *LayerWriter) Put(name string) error {
	if name = relative(name); name == "." {
		return nil
	}
	if strings.HasPrefix(path.Base(name), whiteoutPrefix) {
		return fmt.Errorf("/%s: in a layer the name means a deletion: %w", name, errdefs.ErrInvalidArgument)
	}
	info, err := l.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	l.entries++
	return l.archive.add(name, name, info)
}

// Delete writes that a path is not there any more.
func (l *LayerWriter) Delete(name string) error {
	name = relative(name)
	l.entries++
	return l.archive.out.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: path.Join(path.Dir(name), whiteoutPrefix+path.Base(name)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	})
}

// Empty says whether nothing has been written.
func (l *LayerWriter) Empty() bool { return l.entries == 0 }

// Close ends the archive.
func (l *LayerWriter) Close() error { return errors.Join(l.archive.out.Close(), l.root.Close()) }

func relative(name string) string {
	if name = strings.TrimPrefix(absolute(name), "/"); name == "" {
		return "."
	}
	return name
}
