package unpack

import (
	"archive/tar"
	"errors"
	"path"
	"strings"
)

// ErrNeedsBelow says that a layer means something else without those below it: it
// cannot be unpacked detached from them.
var ErrNeedsBelow = errors.New("the layer cannot be unpacked without those below it")

// Names with a meaning in the image specification's changesets.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// detached judges whether the entries of a layer mean the same without the layers
// below it. They do not where a directory would have attributes, or be a symbolic
// link, from below, and where links or deletions reach there.
type detached struct {
	entries map[string]entry // by cleaned, absolute names
}

// entry is what a layer has said of a name so far.
type entry struct {
	directory bool
	gone      bool // a deletion
}

// accept notes an entry, or answers ErrNeedsBelow.
func (d *detached) accept(h *tar.Header) error {
	name := path.Clean("/" + h.Name)
	if name == "/" {
		return nil // not unpacked: the root's attributes are those of the lowest layer's
	}
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	if parent, ok := d.entries[dir]; dir != "/" && (!ok || !parent.directory) {
		return ErrNeedsBelow
	}
	if base == opaque {
		if dir == "/" {
			return ErrNeedsBelow // overlayfs knows no opaque root
		}
		return nil
	}
	if target, ok := strings.CutPrefix(base, whiteout); ok {
		// A deletion of what the layer has itself depends on the order.
		if _, ok := d.entries[path.Join(dir, target)]; ok {
			return ErrNeedsBelow
		}
		d.entries[path.Join(dir, target)] = entry{gone: true}
		return nil
	}
	if before, ok := d.entries[name]; ok && before.gone {
		return ErrNeedsBelow // a directory would show what is below again
	}
	if h.Typeflag == tar.TypeLink {
		if target, ok := d.entries[path.Clean("/"+h.Linkname)]; !ok || target.directory || target.gone {
			return ErrNeedsBelow
		}
	}
	d.entries[name] = entry{directory: h.Typeflag == tar.TypeDir}
	return nil
}
