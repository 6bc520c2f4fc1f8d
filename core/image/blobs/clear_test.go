package blobs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	ctrlog "github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestMain(m *testing.M) {
	_ = ctrlog.SetLevel("error") // file systems without fsverity are no news
	os.Exit(m.Run())
}

// open opens a store.
func open(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closed(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s *Store, body string) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{Digest: digest.FromString(body), Size: int64(len(body))}
	if err := content.WriteBlob(Scope(t.Context()), s, body, bytes.NewReader([]byte(body)), d); err != nil {
		t.Fatal(err)
	}
	return d
}

// write makes a file below a store's content.
func write(t *testing.T, root, name, body string) string {
	t.Helper()
	path := filepath.Join(filesOf(root), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What a crash left of files goes when the store is opened; blobs and unfinished
// downloads stay.
func TestFilesWithoutRecordsGo(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	kept := put(t, s, "kept")
	ctx := Scope(t.Context())
	for _, ref := range []string{"goes on", "is broken"} {
		w, err := content.OpenWriter(ctx, s, content.WithRef(ref))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("half")); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, s)
	ingest := func(ref string) string { return "ingest/" + digest.FromString(ref).Encoded() }
	left := []string{
		write(t, root, "blobs/sha256/"+digest.FromString("without a record").Encoded(), "without a record"),
		filepath.Dir(write(t, root, ingest("davit/1/unknown")+"/ref", "davit/1/unknown")),
		filepath.Dir(write(t, root, ingest("davit/1/nameless")+"/data", "")),
		filepath.Dir(write(t, root, ingest("davit/1/is broken")+"/startedat", "")),
	}
	s = open(t, root)
	defer closed(t, s)
	for _, path := range left {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	if body, err := content.ReadBlob(ctx, s, kept); err != nil || string(body) != "kept" {
		t.Errorf("%q, %v", body, err)
	}
	list, err := s.ListStatuses(ctx)
	if err != nil || len(list) != 1 || list[0].Ref != "goes on" || list[0].Offset != 4 {
		t.Errorf("unfinished: %+v, %v", list, err)
	}
	// The broken one is begun again.
	w, err := content.OpenWriter(ctx, s, content.WithRef("is broken"))
	if err != nil {
		t.Fatal(err)
	}
	if status, err := w.Status(); err != nil || status.Offset != 0 {
		t.Errorf("%+v, %v", status, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
