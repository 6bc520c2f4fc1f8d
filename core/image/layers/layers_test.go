package layers

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

// archive is a layer of "path", "path=content", "dir/", "path->target" and, with a
// mode, "path@mode".
func archive(t testing.TB, entries ...string) *bytes.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, entry := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}
		name, mode, found := strings.Cut(entry, "@")
		if found {
			if _, err := fmt.Sscanf(mode, "%o", &h.Mode); err != nil {
				t.Fatal(err)
			}
		}
		name, link, isLink := strings.Cut(name, "->")
		name, content, _ := strings.Cut(name, "=")
		h.Name, h.Size = name, int64(len(content))
		switch {
		case isLink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, link
		case strings.HasSuffix(name, "/"):
			h.Typeflag = tar.TypeDir
			if !found {
				h.Mode = 0o755
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b.Bytes())
}

// apply answers what a layer changes, one line each: kind, path, bytes hidden.
func apply(t testing.TB, tree *Tree, entries ...string) (list []string) {
	t.Helper()
	if err := tree.Apply(t.Context(), archive(t, entries...), func(c Change) error {
		list = append(list, fmt.Sprint(c.Kind, " ", c.Path, " ", c.Hidden))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func want(t testing.TB, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestLayersAreFollowed(t *testing.T) {
	var tree Tree
	want(t, apply(t, &tree, "etc/", "etc/passwd=12345", "./bin/sh=123", "link->etc", "/rooted=1"),
		"added /etc 0", "added /etc/passwd 0", "added /bin/sh 0", "added /link 0", "added /rooted 0")
	want(t, apply(t, &tree, "etc/", "etc/passwd=12", "etc/new=1", "bin/@700"), "changed /etc/passwd 5", "added /etc/new 0", "changed /bin 0")
	// Bytes of the same layer are not hidden; a directory takes all that is in it along.
	want(t, apply(t, &tree, "etc/.wh.passwd", "bin=file", "var/a=1", "var/", ".wh.nothing", "var/.wh.a"),
		"removed /etc/passwd 2", "changed /bin 3", "added /var/a 0", "added /var 0")
	want(t, apply(t, &tree, ".wh.etc", ".wh.link"), "removed /etc 1", "removed /link 0")
	if tree.Paths() != 4 { // bin, rooted, var, var/a
		t.Errorf("%d paths", tree.Paths())
	}
}

func TestAnOpaqueDirectoryHidesWhatWasInIt(t *testing.T) {
	for _, layer := range [][]string{
		{"dir/", "dir/.wh..wh..opq", "dir/new=1", "dir/deep/", "dir/deep/new=1"},
		{"dir/", "dir/new=1", "dir/deep/", "dir/deep/new=1", "dir/.wh..wh..opq"},
	} {
		var tree Tree
		apply(t, &tree, "dir/", "dir/a=123", "dir/deep/", "dir/deep/b=12")
		hidden := int64(0)
		if err := tree.Apply(t.Context(), archive(t, layer...), func(c Change) error { hidden += c.Hidden; return nil }); err != nil {
			t.Fatal(err)
		}
		if hidden != 5 || tree.Paths() != 4 {
			t.Errorf("%v: %d bytes are hidden, %d paths are left", layer, hidden, tree.Paths())
		}
	}
	var tree Tree
	want(t, apply(t, &tree, "nosuch/.wh..wh..opq", "nosuch/.wh.x", ".wh..wh.plnk"))
}

func TestImagesAreCompared(t *testing.T) {
	common := &Tree{Hash: true}
	apply(t, common, "same=1", "dir/", "dir/gone=1", "mode=1", "content=1", "type=1", "link->a")
	before, after := common, common.Clone()
	apply(t, after, "same=1", ".wh.dir", "mode=1@600", "content=2", "type/", "link->b", "new/", "new/file=1")
	var list []string
	if err := Compare(before, after, func(c Change) error {
		line := string(c.Kind) + " " + c.Path
		if c.Kind == Changed {
			line += fmt.Sprint(" ", Differences(*c.Before, *c.After))
		}
		list = append(list, line)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want(t, list, "changed /content [content]", "removed /dir", "removed /dir/gone", "changed /link [link]", "changed /mode [mode]",
		"added /new", "added /new/file", "changed /type [type content mode]")
}

func TestWhatIsNoLayerIsRefused(t *testing.T) {
	var tree Tree
	for _, body := range []string{strings.Repeat("no archive ", 100), "x"} {
		if err := tree.Apply(t.Context(), strings.NewReader(body), func(Change) error { return nil }); !errdefs.IsInvalidArgument(err) {
			t.Errorf("got %v", err)
		}
	}
}

func FuzzApply(f *testing.F) {
	body := func(entries ...string) []byte {
		b := new(bytes.Buffer)
		_, _ = archive(f, entries...).WriteTo(b)
		return b.Bytes()
	}
	f.Add(body("a/", "a/b=1", "a/.wh.b"), body("a/.wh..wh..opq", "a=file", ".wh.a"))
	f.Add(body("../x=1", "a//b=1", ".wh."), body(".wh...", "a/./.wh.b"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var tree Tree
		for _, layer := range [][]byte{one, two} {
			_ = tree.Apply(t.Context(), bytes.NewReader(layer), func(c Change) error {
				if c.Hidden < 0 || !strings.HasPrefix(c.Path, "/") {
					t.Errorf("%+v", c)
				}
				return nil
			})
		}
		if n := count(&tree.root); n != tree.Paths() {
			t.Errorf("%d paths are counted, there are %d", tree.Paths(), n)
		}
	})
}

func count(n *node) (sum int) {
	for _, child := range n.children {
		sum += 1 + count(child)
	}
	return sum
}
