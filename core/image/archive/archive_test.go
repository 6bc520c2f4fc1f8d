package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func newStore(t testing.TB) content.Store {
	t.Helper()
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// file is an entry of a test's archive.
type file struct {
	name, body string
	link       byte // tar.TypeSymlink or tar.TypeLink, to body
	size       int64
}

func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.body))}
		if f.link != 0 {
			h.Typeflag, h.Linkname, h.Size = f.link, f.body, 0
		}
		if f.size != 0 {
			h.Size = f.size
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if f.link == 0 {
			if _, err := io.WriteString(w, f.body); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = w.Close() // an entry that is too short is a test's own
	return b.Bytes()
}

func text(t testing.TB, v any) string {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// put stores a blob.
func put(t testing.TB, store content.Store, mediaType, body string) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(body), Size: int64(len(body))}
	if err := content.WriteBlob(t.Context(), store, d.Digest.String(), strings.NewReader(body), d); err != nil {
		t.Fatal(err)
	}
	return d
}

// image stores an image of some layers.
func image(t testing.TB, store content.Store, config string, layers ...string) ocispec.Descriptor {
	t.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: put(t, store, ocispec.MediaTypeImageConfig, config)}
	m.SchemaVersion = 2
	for _, layer := range layers {
		m.Layers = append(m.Layers, put(t, store, ocispec.MediaTypeImageLayer, layer))
	}
	return put(t, store, m.MediaType, text(t, m))
}

func write(t testing.TB, store content.Store, list ...Saved) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(t.Context(), store, list, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func entriesOf(t testing.TB, archive []byte) map[string]string {
	t.Helper()
	found := map[string]string{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := found[h.Name]; twice {
			t.Errorf("%s is in the archive twice", h.Name)
		}
		found[h.Name] = string(body)
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	store := newStore(t)
	one, two := image(t, store, `{"a":1}`, "base", "top"), image(t, store, `{"a":2}`, "base")
	list := []Saved{
		{Image{one, []string{"docker.io/library/one:1", "registry.local:5000/team/one:latest"}}, one},
		{Image{two, nil}, two},
	}
	first := write(t, store, list...)
	if again := write(t, store, list...); !bytes.Equal(first, again) {
		t.Error("the same images make another archive")
	}
	want := []Image{list[0].Image, list[1].Image}
	other := newStore(t)
	got, err := Read(t.Context(), other, bytes.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	for _, d := range []ocispec.Descriptor{one, two} {
		if err := (&writer{store: other}).complete(t.Context(), d); err != nil {
			t.Errorf("%s is not whole: %v", d.Digest, err)
		}
	}
	// Docker's part names the same.
	files := entriesOf(t, first)
	top := digest.FromString("top")
	wantManifest := fmt.Sprintf(`[{"Config":"%s","RepoTags":["one:1","registry.local:5000/team/one:latest"],"Layers":["%s","%s"]},{"Config":"%s","RepoTags":[],"Layers":["%s"]}]`,
		blobName(digest.FromString(`{"a":1}`)), blobName(digest.FromString("base")), blobName(top), blobName(digest.FromString(`{"a":2}`)), blobName(digest.FromString("base")))
	if files["manifest.json"] != wantManifest {
		t.Errorf("manifest.json is %s\nwant %s", files["manifest.json"], wantManifest)
	}
	if want := fmt.Sprintf(`{"one":{"1":"%[1]s"},"registry.local:5000/team/one":{"latest":"%[1]s"}}`, top.Encoded()); files["repositories"] != want {
		t.Errorf("repositories is %s\nwant %s", files["repositories"], want)
	}
}

// Of an index the platforms that are here are written, and the index as it is.
func TestAnIndexIsWrittenAsFarAsItIsHere(t *testing.T) {
	store := newStore(t)
	here, also := image(t, store, `{"p":1}`, "one"), image(t, store, `{"p":2}`, "two")
	elsewhere := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("not fetched"), Size: 5}
	half := put(t, store, ocispec.MediaTypeImageManifest, text(t, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: elsewhere}))
	list := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{here, elsewhere, half, also}}
	list.SchemaVersion = 2
	index := put(t, store, list.MediaType, text(t, list))
	archive := write(t, store, Saved{Image{index, []string{"docker.io/library/many:1"}}, also})
	files := entriesOf(t, archive)
	for name, want := range map[string]bool{blobName(index.Digest): true, blobName(here.Digest): true, blobName(also.Digest): true, blobName(half.Digest): false} {
		if _, ok := files[name]; ok != want {
			t.Errorf("%s is in the archive: %v, want %v", name, ok, want)
		}
	}
	if want := blobName(digest.FromString(`{"p":2}`)); !strings.Contains(files["manifest.json"], want) {
		t.Errorf("manifest.json is %s", files["manifest.json"])
	}
	got, err := Read(t.Context(), newStore(t), bytes.NewReader(archive))
	if diff := cmp.Diff([]Image{{index, []string{"docker.io/library/many:1"}}}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

func TestACorruptBlobIsNotWritten(t *testing.T) {
	store := newStore(t)
	img := image(t, store, "{}", "a layer")
	var b bytes.Buffer
	err := Write(t.Context(), lying{store, digest.FromString("a layer")}, []Saved{{Image{img, nil}, img}}, &b)
	if !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "is corrupt on disk") {
		t.Errorf("got %v", err)
	}
}

// lying answers other bytes for one blob.
type lying struct {
	content.Provider
	wrong digest.Digest
}

func (l lying) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	r, err := l.Provider.ReaderAt(ctx, d)
	if err == nil && d.Digest == l.wrong {
		return flipped{r}, nil
	}
	return r, err
}

type flipped struct{ content.ReaderAt }

func (f flipped) ReadAt(p []byte, at int64) (int, error) {
	n, err := f.ReaderAt.ReadAt(p, at)
	if n > 0 {
		p[0] ^= 1
	}
	return n, err
}

// dockerArchive is what docker save of version 20.10 writes: images share a layer
// through a link.
func dockerArchive(t testing.TB, layer string) []byte {
	return tarOf(
		t, file{name: "abc/VERSION", body: "1.0"}, file{name: "abc/json", body: "{}"}, file{name: "abc/layer.tar", body: layer},
		file{name: "def/layer.tar", body: "../abc/layer.tar", link: tar.TypeSymlink}, file{name: "ghi/layer.tar", body: "abc/layer.tar", link: tar.TypeLink},
		file{name: "./config.json", body: `{"os":"linux"}`},
		file{name: "manifest.json", body: `[{"Config":"config.json","RepoTags":["box:1","box:2"],"Layers":["abc/layer.tar","def/layer.tar","ghi/layer.tar"]}]`},
		file{name: "repositories", body: `{"box":{"1":"abc"}}`},
	)
}

func TestDockersArchiveIsRead(t *testing.T) {
	store := newStore(t)
	got, err := Read(t.Context(), store, bytes.NewReader(dockerArchive(t, "a layer")))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || strings.Join(got[0].Names, " ") != "docker.io/library/box:1 docker.io/library/box:2" {
		t.Fatalf("got %+v", got)
	}
	var m ocispec.Manifest
	if err := readJSON(t.Context(), store, got[0].Target, &m); err != nil {
		t.Fatal(err)
	}
	layer := ocispec.Descriptor{MediaType: images.MediaTypeDockerSchema2Layer, Digest: digest.FromString("a layer"), Size: 7}
	if diff := cmp.Diff([]ocispec.Descriptor{layer, layer, layer}, m.Layers); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	if m.Config.Digest != digest.FromString(`{"os":"linux"}`) || m.Config.MediaType != images.MediaTypeDockerSchema2Config {
		t.Errorf("the configuration is %+v", m.Config)
	}
}

// compressed by a program's name, or by the library.
func compressed(t testing.TB, how string, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch how {
	case "none":
		return body
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zstd":
		var err error
		if w, err = zstd.NewWriter(&b); err != nil {
			t.Fatal(err)
		}
	default:
		cmd := exec.Command(how, "-c")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(body), &b
		if err := cmd.Run(); err != nil {
			t.Skipf("%s: %v: run test/setup.sh test", how, err)
		}
		return b.Bytes()
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCompressionsAreUndone(t *testing.T) {
	for _, how := range []string{"gzip", "zstd", "bzip2", "xz"} {
		t.Run(how, func(t *testing.T) {
			body := compressed(t, how, dockerArchive(t, strings.Repeat("a layer ", 1000)))
			if got, err := Read(t.Context(), newStore(t), bytes.NewReader(body)); err != nil || len(got) != 1 {
				t.Errorf("got %+v, %v", got, err)
			}
			_, err := Read(t.Context(), newStore(t), bytes.NewReader(body[:len(body)-9]))
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("cut off: %v", err)
			}
			store := newStore(t)
			got, err := Read(t.Context(), store, bytes.NewReader(dockerArchive(t, string(compressed(t, how, []byte("a layer"))))))
			if err != nil {
				t.Fatal(err)
			}
			var m ocispec.Manifest
			if err := readJSON(t.Context(), store, got[0].Target, &m); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"gzip": images.MediaTypeDockerSchema2LayerGzip, "zstd": images.MediaTypeDockerSchema2LayerZstd}[how]
			if want == "" {
				want = images.MediaTypeDockerSchema2Layer
			}
			if m.Layers[0].MediaType != want || want == images.MediaTypeDockerSchema2Layer && m.Layers[0].Digest != digest.FromString("a layer") {
				t.Errorf("the layer is %+v", m.Layers[0])
			}
		})
	}
}

func TestABadArchiveIsRefusedByName(t *testing.T) {
	layout := file{name: "oci-layout", body: `{"imageLayoutVersion":"1.0.0"}`}
	blob := func(body string) file { return file{name: blobName(digest.FromString(body)), body: body} }
	index := func(d ocispec.Descriptor) file {
		return file{name: "index.json", body: text(t, ocispec.Index{Manifests: []ocispec.Descriptor{d}})}
	}
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent")}
	whole := tarOf(t, layout, file{name: "large", body: strings.Repeat("x", 10000)}, index(absent))
	for name, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"nothing":                {nil, "neither manifest.json nor an OCI image layout"},
		"no archive":             {[]byte("no archive at all"), "reading the archive"},
		"of something else":      {tarOf(t, file{name: "etc/passwd", body: "x"}), "neither manifest.json nor an OCI image layout"},
		"of old":                 {tarOf(t, file{name: "repositories", body: "{}"}), "before version 1.10"},
		"cut in a file":          {whole[:5000], "unexpected EOF"},
		"cut in a header":        {whole[:1300], "unexpected EOF"},
		"broken gzip":            {append([]byte{0x1f, 0x8b, 8}, make([]byte, 100)...), "reading the archive"},
		"a damaged blob":         {tarOf(t, layout, file{name: blob("right").name, body: "wrong"}), "is damaged: its content has the digest " + digest.FromString("wrong").String()},
		"no digest":              {tarOf(t, file{name: "blobs/sha256/ABC", body: "x"}), "no digest"},
		"a way out":              {tarOf(t, file{name: "../../etc/passwd", body: "x"}), `"../../etc/passwd", which leads out`},
		"a way out within":       {tarOf(t, file{name: "a/../../b", body: "x"}), "which leads out"},
		"another version":        {tarOf(t, file{name: "oci-layout", body: `{"imageLayoutVersion":"2.0"}`}, index(absent)), `of version "2.0"`},
		"an absent manifest":     {tarOf(t, layout, index(absent)), "the archive lacks blob " + absent.Digest.String()},
		"a digest that is none":  {tarOf(t, layout, index(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: "../x"})), `has the digest "../x": invalid checksum digest format`},
		"an unknown type":        {tarOf(t, layout, index(ocispec.Descriptor{MediaType: "text/plain", Digest: absent.Digest})), `unknown type "text/plain"`},
		"no JSON":                {tarOf(t, layout, file{name: "index.json", body: "{"}), "index.json of the archive"},
		"a JSON of another kind": {tarOf(t, file{name: "manifest.json", body: `{"a":1}`}), "manifest.json of the archive"},
		"an absurd index":        {tarOf(t, layout, file{name: "index.json", body: "[", size: 9 << 20}), "index.json has 9437184 bytes"},
		"no configuration":       {tarOf(t, file{name: "manifest.json", body: `[{"Config":"x.json"}]`}), `lacks the configuration "x.json"`},
		"an absent layer":        {tarOf(t, file{name: "c", body: "{}"}, file{name: "manifest.json", body: `[{"Config":"c","Layers":["../../../etc/passwd"]}]`}), `lacks the layer "../../../etc/passwd"`},
		"a bad name":             {tarOf(t, file{name: "c", body: "{}"}, file{name: "manifest.json", body: `[{"Config":"c","RepoTags":["A B"]}]`}), `"A B": invalid reference format`},
		"links in a circle": {
			tarOf(t, file{name: "a", body: "b", link: tar.TypeSymlink}, file{name: "b", body: "a", link: tar.TypeSymlink}, file{name: "manifest.json", body: `[{"Config":"a"}]`}), "lacks the configuration",
		},
		"a link out": {tarOf(t, file{name: "c", body: "/etc/passwd", link: tar.TypeSymlink}, file{name: "manifest.json", body: `[{"Config":"c"}]`}), "lacks the configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(t.Context(), newStore(t), bytes.NewReader(c.archive))
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

// An archive that cannot be read leaves nothing that is being written.
func TestABadArchiveLeavesNoBlobBegun(t *testing.T) {
	store := newStore(t)
	whole := tarOf(t, file{name: "large", body: strings.Repeat("x", 10000)})
	if _, err := Read(t.Context(), store, bytes.NewReader(whole[:5000])); err == nil {
		t.Fatal("a cut archive is read")
	}
	if left, err := store.ListStatuses(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
}

func FuzzRead(f *testing.F) {
	store := newStore(f)
	img := image(f, store, "{}", "a layer")
	f.Add(write(f, store, Saved{Image{img, []string{"docker.io/library/a:1"}}, img}))
	f.Add(dockerArchive(f, "a layer"))
	f.Add(compressed(f, "gzip", dockerArchive(f, "x")))
	f.Fuzz(func(t *testing.T, body []byte) {
		into := newStore(t)
		list, err := Read(t.Context(), into, bytes.NewReader(body))
		if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v is not the archive's fault", err)
		}
		for _, img := range list {
			if _, err := into.Info(t.Context(), img.Target.Digest); err != nil {
				t.Errorf("%s is named and not here: %v", img.Target.Digest, err)
			}
		}
	})
}
