package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

func applyDetached(root string, plain []byte) error {
	_, err := ApplyDetached(context.Background(), root, bytes.NewReader(plain), digest.FromBytes(plain), Limits{})
	return err
}

// TestLayersThatNeedThoseBelow are refused before they are half unpacked with another
// meaning.
func TestLayersThatNeedThoseBelow(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"a directory that is not in the layer":      {file("etc/conf")},
		"a directory that is a link in it":          {symlink("etc", "usr"), file("etc/conf")},
		"a hard link to a file below":               {dir("a"), link("a/b", "usr/bin/c")},
		"a hard link to a directory":                {dir("a"), link("b", "a")},
		"an opaque root":                            {file(".wh..wh..opq")},
		"a deletion in a directory below":           {gone("etc/.wh.conf")},
		"a deletion, and a directory again":         {gone(".wh.a"), dir("a"), file("a/b")},
		"a directory, and its deletion":             {dir("a"), file("a/b"), gone(".wh.a")},
		"a hard link to what the layer deletes":     {gone(".wh.a"), link("b", "a")},
		"an opaque directory that is not in it yet": {gone("a/.wh..wh..opq"), dir("a")},
		"a name through a file":                     {file("a"), file("a/b")},
	} {
		t.Run(name, func(t *testing.T) {
			if err := applyDetached(t.TempDir(), pack(t, entries...)); !errors.Is(err, ErrNeedsBelow) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestDetachedLayersAreTheSame unpacks layers over one another as they are, and
// detached with overlayfs putting them together.
func TestDetachedLayersAreTheSame(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting overlays needs root")
	}
	owned := func(h tar.Header) tar.Header {
		return with(h, func(h *tar.Header) { h.Uid, h.Gid, h.Mode = 33, 34, 0o751 })
	}
	layers := [][]byte{
		pack(t, dir("etc"), file("etc/a"), file("etc/b"), dir("var"), dir("var/old"), file("var/old/x"), file("var/old/y"), dir("tmp"), file("tmp/f"), symlink("lib", "usr/lib"), dir("usr"), dir("usr/lib"), file("usr/lib/so"), file("gone")),
		pack(t, owned(dir("etc")), gone("etc/.wh.a"), file("etc/c"), link("etc/d", "etc/c"), gone(".wh.gone")),
		pack(t, dir("./"), dir("./var"), dir("./var/old"), gone("./var/old/.wh..wh..opq"), file("./var/old/z"), dir("./lib"), file("./lib/own"), gone(".wh.tmp"), gone(".wh.nothing")),
		pack(t, dir("usr"), file("usr/lib"), dir("/tmp"), file("/tmp/new")),
	}
	top := t.TempDir()
	plain := filepath.Join(top, "plain")
	lower := []string{}
	for i, layer := range layers {
		if err := os.MkdirAll(plain, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := apply(plain, layer, Limits{}); err != nil {
			t.Fatal(err)
		}
		root := filepath.Join(top, fmt.Sprint(i))
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if i == 0 {
			_, err = apply(root, layer, Limits{})
		} else {
			err = applyDetached(root, layer)
		}
		if err != nil {
			t.Fatalf("layer %d: %v", i, err)
		}
		lower = append([]string{root}, lower...)
	}
	merged := filepath.Join(top, "merged")
	if err := os.Mkdir(merged, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lower, ":")); err != nil {
		t.Skip("no overlay here: ", err)
	}
	defer func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Error(err)
		}
	}()
	if want, got := listing(t, plain), listing(t, merged); got != want {
		t.Errorf("over one another:\n%s\nput together:\n%s", want, got)
	}
}

// listing describes all files below a directory.
func listing(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		content, _ := os.ReadFile(path) // directories have none
		to, _ := os.Readlink(path)
		links := st.Nlink
		if entry.IsDir() {
			links = 0
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d %d %q %s\n", strings.TrimPrefix(path, root), st.Mode, st.Uid, st.Gid, st.Mtim.Sec, links, content, to)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
