package e2e

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"
)

// archiveOf is a tar file with the given files; nil has one directory.
func archiveOf(t *testing.T, files map[string]string) string {
	t.Helper()
	headers := []*tar.Header{{Typeflag: tar.TypeDir, Name: "empty/", Mode: 0o755}}
	var contents []string
	contents = append(contents, "")
	for name, content := range files {
		headers = append(headers, &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))})
		contents = append(contents, content)
	}
	return writeArchive(t, headers, contents)
}

// escapingArchive tries all ways out of a root filesystem that archives have, to
// write the file outside.
func escapingArchive(t *testing.T, outside string) string {
	t.Helper()
	dir := filepath.Dir(outside)
	return writeArchive(t, []*tar.Header{
		{Typeflag: tar.TypeReg, Name: "../../../../../../../.." + outside, Mode: 0o644, Size: 1},
		{Typeflag: tar.TypeReg, Name: outside, Mode: 0o644, Size: 1},
		{Typeflag: tar.TypeSymlink, Name: "link", Linkname: dir, Mode: 0o777},
		{Typeflag: tar.TypeReg, Name: "link/planted", Mode: 0o644, Size: 1},
		{Typeflag: tar.TypeSymlink, Name: "up", Linkname: "../../../../../../../.." + dir, Mode: 0o777},
		{Typeflag: tar.TypeReg, Name: "up/planted", Mode: 0o644, Size: 1},
		{Typeflag: tar.TypeSymlink, Name: "file-link", Linkname: outside, Mode: 0o777},
		{Typeflag: tar.TypeReg, Name: "file-link", Mode: 0o644, Size: 1},
	}, []string{"x", "x", "", "x", "", "x", "", "x"})
}

func writeArchive(t *testing.T, headers []*tar.Header, contents []string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for i, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(contents[i])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
