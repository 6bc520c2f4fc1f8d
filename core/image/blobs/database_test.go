package blobs

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// filled is a closed store with blobs and names, of which the database has many pages.
func filled(t *testing.T) (root string, blobs []ocispec.Descriptor) {
	t.Helper()
	root = t.TempDir()
	s := open(t, root)
	ctx := Scope(t.Context())
	for i := range 40 {
		d := put(t, s, fmt.Sprint("blob ", i))
		d.MediaType = "application/octet-stream"
		if _, err := metadata.NewImageStore(s.DB).Create(ctx, images.Image{Name: fmt.Sprint("name", i), Target: d, Labels: map[string]string{"long": strings.Repeat("x", 1000)}}); err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, d)
	}
	closed(t, s)
	return root, blobs
}

// A database that is damaged is told, with what to do, and is left as it is.
func TestADamagedDatabase(t *testing.T) {
	root, _ := filled(t)
	path := filepath.Join(root, "metadata.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	noise := rand.New(rand.NewPCG(1, 2))
	over := func(from, to int) []byte {
		body := bytes.Clone(whole)
		for i := from; i < to; i++ {
			body[i] = byte(noise.Uint32())
		}
		return body
	}
	bad := map[string][]byte{
		"empty":           {},
		"one byte":        whole[:1],
		"one page":        whole[:page],
		"two pages":       whole[:2*page],
		"four pages":      whole[:4*page],
		"no headers":      over(0, 2*page),
		"another file":    []byte(strings.Repeat("this is no database\n", 3000)),
		"all but headers": over(2*page, len(whole)),
	}
	for name, body := range bad {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, body, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), root)
			if err == nil {
				closed(t, s)
				t.Fatal("it was opened")
			}
			for _, want := range []string{path, "is damaged (", "move it away", "nothing of it was changed"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v lacks %q", err, want)
				}
			}
			if !errdefs.IsDataLoss(err) {
				t.Errorf("%v has another kind", err)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, body) {
				t.Errorf("it was changed, %v", err)
			}
			if found, err := filepath.Glob(filepath.Join(root, "content/blobs/sha256/*")); err != nil || len(found) != 40 {
				t.Errorf("of 40 blobs are left: %d, %v", len(found), err)
			}
		})
	}
	// Any single page that is garbage is found, or is none that is read.
	for at := 2 * page; at+page <= len(whole); at += page {
		if err := os.WriteFile(path, over(at, at+page), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), root)
		if err != nil {
			if !errdefs.IsDataLoss(err) {
				t.Errorf("garbage at %d: %v", at, err)
			}
			continue
		}
		list, err := metadata.NewImageStore(s.DB).List(Scope(t.Context()))
		if err != nil || len(list) != 40 {
			t.Errorf("garbage at %d was not found: %d images, %v", at, len(list), err)
		}
		closed(t, s)
	}
}

// Where the database was moved away, what is here of blobs is known again and kept by a
// lease.
func TestBlobsWithoutADatabaseAreAdopted(t *testing.T) {
	root, blobs := filled(t)
	if err := os.Rename(filepath.Join(root, "metadata.db"), filepath.Join(root, "moved.db")); err != nil {
		t.Fatal(err)
	}
	s := open(t, root)
	defer func() { closed(t, s) }()
	ctx := Scope(t.Context())
	if _, err := s.DB.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	for i, d := range blobs {
		if body, err := content.ReadBlob(ctx, s, d); err != nil || string(body) != fmt.Sprint("blob ", i) {
			t.Errorf("%q, %v", body, err)
		}
	}
	closed(t, s)
	s = open(t, root) // the next start takes nothing
	manager := metadata.NewLeaseManager(s.DB)
	list, err := manager.List(ctx)
	if err != nil || len(list) != 1 {
		t.Fatalf("leases: %v, %v", list, err)
	}
	if err := manager.Delete(ctx, leases.Lease{ID: list[0].ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DB.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	if found, err := filepath.Glob(filepath.Join(root, "content/blobs/sha256/*")); err != nil || len(found) > 0 {
		t.Errorf("left: %v, %v", found, err)
	}
}

// A store on a file system that is mounted read-only can be read.
func TestAReadOnlyStore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it mounts: run as root")
	}
	root, blobs := filled(t)
	if err := errors.Join(unix.Mount(root, root, "", unix.MS_BIND, ""), unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	s := open(t, root)
	defer closed(t, s)
	ctx := Scope(t.Context())
	if !s.ReadOnly {
		t.Error("it does not say that it is read-only")
	}
	if body, err := content.ReadBlob(ctx, s, blobs[3]); err != nil || string(body) != "blob 3" {
		t.Errorf("%q, %v", body, err)
	}
	if list, err := metadata.NewImageStore(s.DB).List(ctx); err != nil || len(list) != 40 {
		t.Errorf("%d images, %v", len(list), err)
	}
	err := metadata.NewImageStore(s.DB).Delete(ctx, "name1")
	if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), filepath.Join(root, "metadata.db")+": read-only file system") {
		t.Errorf("a change: %v", err)
	}
	if _, err := content.OpenWriter(ctx, s, content.WithRef("x")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing: %v", err)
	}
}
