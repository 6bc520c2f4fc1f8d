package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/mount"
)

// layerOf writes a layer of some paths; those that begin with "-" are deletions.
func layerOf(t *testing.T, mounts []mount.Mount, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	err := Mounted(t.Context(), mounts, true, func(v *View) error {
		layer, err := v.NewLayer(&b)
		if err != nil {
			return err
		}
		for _, name := range names {
			if deleted, ok := strings.CutPrefix(name, "-"); ok {
				err = errors.Join(err, layer.Delete(deleted))
			} else {
				err = errors.Join(err, layer.Put(name))
			}
		}
		if layer.Empty() != (len(names) == 0) {
			t.Errorf("%d entries, empty is %v", len(names), layer.Empty())
		}
		return errors.Join(err, layer.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// entries are an archive's, one line each.
func entries(t *testing.T, archive []byte) (list []string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%c %s %o %d:%d", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if len(body) > 0 {
			line += " " + string(body)
		}
		for key, value := range h.PAXRecords {
			if strings.HasPrefix(key, xattrPrefix) {
				line += " " + strings.TrimPrefix(key, xattrPrefix) + "=" + value
			}
		}
		list = append(list, line)
	}
}

func TestALayerHoldsWhatItIsGiven(t *testing.T) {
	mounts, lower, upper := overlay(t)
	write(t, upper+"/new", "text")
	for _, err := range []error{
		os.Link(upper+"/new", upper+"/same"), os.Lchown(upper+"/new", 1, 2), unix.Chmod(upper+"/new", 0o4750),
		os.Mkdir(upper+"/dir", 0o755), os.Chmod(upper+"/dir", os.ModeSticky|0o777), unix.Mkfifo(upper+"/dir/fifo", 0o600),
		unix.Setxattr(upper+"/new", "user.note", []byte("one"), 0), unix.Setxattr(upper+"/dir", "user.note", []byte("two"), 0),
		unix.Setxattr(upper+"/new", "user.a=b", []byte("no PAX record can have it"), 0),
		unix.Mknod(filepath.Join(upper, "dir", "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
	} {
		if errors.Is(err, unix.ENOTSUP) {
			t.Skip("the temporary directory's filesystem has no user attributes")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(lower, 0o755); err != nil {
		t.Fatal(err)
	}
	paths := []string{"/dir", "/dir/fifo", "/dir/null", "/link", "/new", "/same", "/gone/since", "-/etc/passwd", "-/tmp"}
	first := layerOf(t, mounts, paths...)
	want := []string{
		"5 dir/ 1777 0:0 user.note=two", "6 dir/fifo 600 0:0", "3 dir/null 644 0:0", "2 link 777 0:0 -> /etc/passwd",
		"0 new 4750 1:2 text user.note=one", "1 same 4750 1:2 -> new", "0 etc/.wh.passwd 0 0:0", "0 .wh.tmp 0 0:0",
	}
	got := entries(t, first)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	// Reading a file, and changing it back, changes no byte.
	at := time.Unix(1, 0)
	info, err := os.Lstat(upper + "/new")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chtimes(upper+"/new", at, at), os.Chtimes(upper+"/new", at, info.ModTime())); err != nil {
		t.Fatal(err)
	}
	if again := layerOf(t, mounts, paths...); !bytes.Equal(first, again) {
		t.Error("the same files make another archive")
	}
	if empty := layerOf(t, mounts); len(entries(t, empty)) != 0 {
		t.Errorf("a layer of nothing has %v", entries(t, empty))
	}
}

// A file of such a name would delete another where the layer is unpacked.
func TestALayerRefusesNamesOfDeletions(t *testing.T) {
	mounts, _, upper := overlay(t)
	write(t, upper+"/.wh.etc", "")
	err := Mounted(t.Context(), mounts, true, func(v *View) error {
		layer, err := v.NewLayer(io.Discard)
		if err != nil {
			return err
		}
		return errors.Join(layer.Put("/.wh.etc"), layer.Close())
	})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "/.wh.etc: in a layer the name means a deletion") {
		t.Errorf("got %v", err)
	}
}
