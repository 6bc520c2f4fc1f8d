// Package layers knows what the archives of image layers do to a filesystem: it
// follows them one after the other and remembers each path that is there, never a
// file's content. Nothing is unpacked.
package layers

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Prefixes of the names of entries that delete (OCI image specification, layer.md).
const (
	whiteout  = ".wh."
	opaque    = ".wh..wh..opq"
	aufsOwned = ".wh..wh." // of an old storage driver's own use
)

// maxPaths bounds the memory that an image can take: about 200 bytes for each path.
const maxPaths = 5000000

// Entry is what is at a path.
type Entry struct {
	Type     byte  // of the archive/tar package; a hard link is of its own type
	Size     int64 // bytes of a regular file
	Mode     int64
	UID, GID int
	Link     string // target of a link
	Device   [2]int64
	Content  [sha256.Size]byte // hash of a regular file, if contents are compared
	Extended string            // extended attributes, in order
}

// Kind is how a path changes.
type Kind string

// The kinds of changes.
const (
	Added   Kind = "added"
	Changed Kind = "changed"
	Removed Kind = "removed"
)

// Change is a path that a layer, or one image against another, changes.
type Change struct {
	Kind          Kind
	Path          string // absolute
	Before, After *Entry // nil where there is none
	// Hidden are the bytes of files that are there no more: what a later layer
	// overwrites or removes keeps its place in the image.
	Hidden int64
}

// Tree is a filesystem as some layers make it. Its zero value is empty.
type Tree struct {
	Hash  bool // contents are read and hashed
	root  node
	paths int
	layer int
}

type node struct {
	entry    Entry
	layer    int // that named it last
	children map[string]*node
}

// Clone is a tree of its own with the same paths.
func (t *Tree) Clone() *Tree {
	other := *t
	other.root = *t.root.clone()
	return &other
}

func (n *node) clone() *node {
	other := *n
	other.children = make(map[string]*node, len(n.children))
	for name, child := range n.children {
		other.children[name] = child.clone()
	}
	return &other
}

// Apply follows a layer's archive, without compression, and tells what it changes in
// the order of the archive. A directory that is only named again is no change, and
// times are none. ErrInvalidArgument for what is no archive.
func (t *Tree) Apply(ctx context.Context, in io.Reader, tell func(Change) error) error {
	t.layer++
	archive := tar.NewReader(in)
	sum := sha256.New()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the layer: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if name == "" {
			continue // the root itself
		}
		if t.paths > maxPaths {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("the image has more than %d paths", maxPaths))
		}
		if err := t.entry(name, h, archive, sum, tell); err != nil {
			return err
		}
	}
}

func (t *Tree) entry(name string, h *tar.Header, content io.Reader, sum hash.Hash, tell func(Change) error) error {
	dir, base := path.Split(name)
	if base == opaque {
		return t.clear(dir, tell)
	}
	if strings.HasPrefix(base, aufsOwned) {
		return nil
	}
	if hidden, ok := strings.CutPrefix(base, whiteout); ok {
		return t.remove(dir, hidden, tell)
	}
	entry := Entry{Type: h.Typeflag, Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, Link: h.Linkname, Device: [2]int64{h.Devmajor, h.Devminor}, Extended: attributes(h)}
	if h.Typeflag == tar.TypeReg {
		entry.Size = h.Size
		if t.Hash {
			sum.Reset()
			if _, err := io.Copy(sum, content); err != nil {
				return fmt.Errorf("reading the layer: %w: %w", err, errdefs.ErrInvalidArgument)
			}
			sum.Sum(entry.Content[:0])
		}
	}
	return t.put(dir, base, entry, tell)
}

// attributes are the extended attributes of an entry, in order.
func attributes(h *tar.Header) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			fmt.Fprintf(&b, "%s=%q ", name, h.PAXRecords[key])
		}
	}
	return b.String()
}

// find answers the node of a directory; with make also of one that no entry has
// named. Without, nil if it is not there.
func (t *Tree) find(dir string, make bool) *node {
	n := &t.root
	for part := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if part == "" {
			continue
		}
		child := n.children[part]
		if child == nil {
			if !make {
				return nil
			}
			child = &node{entry: Entry{Type: tar.TypeDir, Mode: 0o755}, layer: t.layer}
			t.attach(n, part, child)
		}
		n = child
	}
	return n
}

func (t *Tree) attach(parent *node, name string, child *node) {
	if parent.children == nil {
		parent.children = map[string]*node{}
	}
	if parent.children[name] == nil {
		t.paths++
	}
	parent.children[name] = child
}

func (t *Tree) put(dir, base string, entry Entry, tell func(Change) error) error {
	parent := t.find(dir, true)
	full := "/" + dir + base
	before := parent.children[base]
	if before == nil {
		t.attach(parent, base, &node{entry: entry, layer: t.layer})
		return tell(Change{Kind: Added, Path: full, After: &entry})
	}
	old, again := before.entry, before.layer == t.layer
	change := Change{Kind: Changed, Path: full, Before: &old, After: &entry}
	if again { // a directory that was only implied so far, or a path that is named twice
		change.Kind, change.Before = Added, nil
	}
	if old.Type == tar.TypeDir && entry.Type == tar.TypeDir {
		before.entry, before.layer = entry, t.layer
		if old == entry && !again {
			return nil
		}
		return tell(change)
	}
	change.Hidden = before.hidden(t.layer)
	t.forget(before)
	t.attach(parent, base, &node{entry: entry, layer: t.layer})
	return tell(change)
}

// forget takes what is below a node off the count of paths.
func (t *Tree) forget(n *node) {
	for _, child := range n.children {
		t.paths--
		t.forget(child)
	}
}

// hidden are the bytes of the files at a node and below it, of layers before.
func (n *node) hidden(layer int) (bytes int64) {
	if n.layer < layer {
		bytes = n.entry.Size
	}
	for _, child := range n.children {
		bytes += child.hidden(layer)
	}
	return bytes
}

func (t *Tree) remove(dir, base string, tell func(Change) error) error {
	parent := t.find(dir, false)
	if parent == nil || parent.children[base] == nil || parent.children[base].layer == t.layer {
		return nil // not of a layer below
	}
	gone := parent.children[base]
	t.forget(gone)
	t.paths--
	delete(parent.children, base)
	return tell(Change{Kind: Removed, Path: "/" + dir + base, Before: &gone.entry, Hidden: gone.hidden(t.layer)})
}

// clear removes what layers below have in a directory.
func (t *Tree) clear(dir string, tell func(Change) error) error {
	parent := t.find(dir, false)
	if parent == nil {
		return nil
	}
	for _, base := range slices.Sorted(maps.Keys(parent.children)) {
		drop := t.remove
		if parent.children[base].layer == t.layer { // its own: but what was in it goes
			drop = func(dir, base string, tell func(Change) error) error { return t.clear(dir+base+"/", tell) }
		}
		if err := drop(dir, base, tell); err != nil {
			return err
		}
	}
	return nil
}

// Paths counts what is there.
func (t *Tree) Paths() int { return t.paths }

// Compare tells, by path, what one filesystem has other than another. What is in a
// directory that is added or removed is told, too. Times are not compared, and
// contents only if both trees have their hashes.
func Compare(before, after *Tree, tell func(Change) error) error {
	return compare("", &before.root, &after.root, tell)
}

func compare(at string, before, after *node, tell func(Change) error) error {
	names := map[string]bool{}
	for _, n := range []*node{before, after} {
		if n != nil {
			for name := range n.children {
				names[name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		change := Change{Path: at + "/" + name}
		b, a := before.child(name), after.child(name)
		switch {
		case b == nil:
			change.Kind, change.After = Added, &a.entry
		case a == nil:
			change.Kind, change.Before = Removed, &b.entry
		case a.entry != b.entry:
			change.Kind, change.Before, change.After = Changed, &b.entry, &a.entry
		}
		if change.Kind != "" {
			if err := tell(change); err != nil {
				return err
			}
		}
		if err := compare(change.Path, b, a, tell); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) child(name string) *node {
	if n == nil {
		return nil
	}
	return n.children[name]
}

// Differences names what two entries differ in: "type", "content", "mode", "owner",
// "link", "device", "attributes".
func Differences(a, b Entry) (list []string) {
	for _, d := range []struct {
		name   string
		differ bool
	}{
		{"type", a.Type != b.Type}, {"content", a.Size != b.Size || a.Content != b.Content}, {"mode", a.Mode != b.Mode},
		{"owner", a.UID != b.UID || a.GID != b.GID}, {"link", a.Link != b.Link}, {"device", a.Device != b.Device}, {"attributes", a.Extended != b.Extended},
	} {
		if d.differ {
			list = append(list, d.name)
		}
	}
	return list
}
