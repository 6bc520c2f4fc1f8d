package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
)

// FuzzApply holds for any bytes: nothing outside of the root changes, and what is
// taken for a layer stays within the limits.
func FuzzApply(f *testing.F) {
	sparse, err := os.ReadFile("testdata/sparse-1tib.tar")
	if err != nil {
		f.Fatal(err)
	}
	seeds := [][]byte{
		sparse,
		pack(f, file("../../secret"), symlink("l", "../.."), file("l/secret"), link("h", "l/secret")),
		pack(f, dir("d"), gone("d/.wh.x"), gone("d/.wh..wh..opq"), gone(".wh.d")),
		pack(f, tar.Header{Typeflag: tar.TypeChar, Name: "c"}, tar.Header{Typeflag: tar.TypeFifo, Name: "p"}),
		packRecords(f, with(file("x"), func(h *tar.Header) {
			h.PAXRecords = map[string]string{xattr + "user.a": "b", "mtime": "-5.5", "uid": "4294967296", "size": "7"}
		})),
	}
	for _, seed := range seeds {
		f.Add(seed)
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(seed); err != nil {
			f.Fatal(err)
		}
		if err := z.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	const most = 1 << 20
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newCell(t)
		before := c.surroundings(t)
		size, err := Apply(context.Background(), c.root, bytes.NewReader(data), digest.FromBytes(data), Limits{Size: most, Entries: 100, Depth: 20})
		if after := c.surroundings(t); after != before {
			t.Errorf("the layer changed what is outside of its root:\n%s\nwas\n%s", after, before)
		}
		if err == nil && size > most {
			t.Errorf("%d bytes were taken", size)
		}
	})
}
