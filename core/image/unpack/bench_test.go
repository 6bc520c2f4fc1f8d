package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	kgzip "github.com/klauspost/compress/gzip"
	docker "github.com/moby/go-archive"
	"github.com/opencontainers/go-digest"
)

// tree is an archive of n files of 8 KiB that compress by half, 50 to a directory.
func tree(b *testing.B, n int) []byte {
	b.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	data := make([]byte, 8<<10)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		if i%50 == 0 {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("d%d/", i/50), Mode: 0o755}); err != nil {
				b.Fatal(err)
			}
		}
		for j := range len(data) {
			data[j] = byte(random.Uint32() & 0xf)
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/f%d", i/50, i), Mode: 0o644, Size: int64(len(data))}); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// BenchmarkApply compares the unpacking of a layer with that of Docker's library,
// which neither checks the digest nor the entries.
func BenchmarkApply(b *testing.B) {
	plain := tree(b, 400)
	id := digest.FromBytes(plain)
	for name, unpack := range map[string]func(root string) error{
		"davit": func(root string) error {
			_, err := Apply(context.Background(), root, bytes.NewReader(plain), id, Limits{})
			return err
		},
		"go-archive": func(root string) error {
			_, err := docker.UnpackLayer(root, bytes.NewReader(plain), &docker.TarOptions{})
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				root := b.TempDir()
				b.StartTimer()
				if err := unpack(root); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGunzip compares decoders of gzip: that of layers with the standard library's.
func BenchmarkGunzip(b *testing.B) {
	plain := tree(b, 400)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(plain); err != nil {
		b.Fatal(err)
	}
	if err := z.Close(); err != nil {
		b.Fatal(err)
	}
	for name, open := range map[string]func(io.Reader) (io.ReadCloser, error){
		"layers":    decompress,
		"klauspost": func(r io.Reader) (io.ReadCloser, error) { return kgzip.NewReader(r) },
		"standard":  func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				in, err := open(bytes.NewReader(packed.Bytes()))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, in); err != nil {
					b.Fatal(err)
				}
				if err := in.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
