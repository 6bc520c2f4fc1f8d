package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const (
	manyLayers    = 40
	filesPerLayer = 25
)

// pipeline is the column of what has to be done at least: each layer is hashed,
// decompressed and unpacked by the usual tools, one after the other, and nothing is
// made durable.
const pipeline = "sha256sum, gunzip, tar"

// sample is an image in the forms in which engines get it.
type sample struct {
	title   string
	img     v1.Image
	archive string // as docker save writes it
	layers  string // folder with the compressed layers
}

// images measures what engines do with images, from and to a registry in this process
// and archives on the disk.
func (t *table) images(ctx context.Context, engines []engine, dir, debian string, rounds int) error {
	samples, err := newSamples(dir, debian)
	if err != nil {
		return err
	}
	for _, s := range samples {
		if err := t.image(ctx, engines, s, dir, rounds); err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
	}
	return nil
}

func (t *table) image(ctx context.Context, engines []engine, s sample, dir string, rounds int) error {
	full := newRegistry()
	defer full.Close()
	ref := address(full) + "/bench:" + s.title
	if err := upload(ref, s.img); err != nil {
		return err
	}
	rows := map[string]*row{}
	for _, what := range []string{"pull", "load", "save", "push"} {
		rows[what] = t.add(what+", "+s.title, "ms", 0)
	}
	t.column(pipeline)
	for range rounds {
		for _, e := range engines {
			if err := once(ctx, e, s, ref, dir, func(what string, ms float64) {
				rows[what].samples[e.name()] = append(rows[what].samples[e.name()], ms)
			}); err != nil {
				return fmt.Errorf("%s: %w", e.name(), err)
			}
		}
		ms, err := unpackPlainly(ctx, s, dir)
		if err != nil {
			return err
		}
		for _, what := range []string{"pull", "load"} {
			rows[what].samples[pipeline] = append(rows[what].samples[pipeline], ms)
		}
	}
	return nil
}

// once does everything with one engine, which has nothing of the image before each.
func once(ctx context.Context, e engine, s sample, ref, dir string, told func(what string, ms float64)) error {
	to := newRegistry() // an empty one for each push
	defer to.Close()
	loaded, pushed, saved := "localhost/bench:"+s.title, address(to)+"/bench:"+s.title, filepath.Join(dir, "saved.tar")
	insecure := func(args ...string) []string {
		if e.name() == "podman" {
			args = append([]string{args[0], "--tls-verify=false"}, args[1:]...)
		}
		return args
	}
	for _, step := range []struct {
		what string // empty: not measured
		args []string
	}{
		{"pull", insecure("pull", ref)},
		{"", []string{"rmi", "-f", ref}},
		{"", []string{"image", "prune", "-f"}},
		{"load", []string{"load", "-i", s.archive}},
		{"save", []string{"save", "-o", saved, loaded}},
		{"", []string{"tag", loaded, pushed}},
		{"push", insecure("push", pushed)},
		{"", []string{"rmi", "-f", loaded, pushed}},
		{"", []string{"image", "prune", "-f"}},
	} {
		ms, err := timed(func() error { return quiet(e.command(ctx, step.args...)) })
		if err != nil {
			return err
		}
		if step.what != "" {
			told(step.what, ms)
		}
	}
	return os.Remove(saved)
}

// unpackPlainly is the pipeline.
func unpackPlainly(ctx context.Context, s sample, dir string) (float64, error) {
	root := filepath.Join(dir, "plain")
	if err := os.Mkdir(root, 0o700); err != nil {
		return 0, err
	}
	ms, err := timed(func() error {
		return quiet(exec.CommandContext(ctx, "sh", "-ec", `for layer in "$0"/*; do mkdir "$1/${layer##*/}"; sha256sum <"$layer" >/dev/null & gzip -dc <"$layer" | tar -xC "$1/${layer##*/}"; wait; done`, s.layers, root))
	})
	return ms, errors.Join(err, os.RemoveAll(root))
}

func newRegistry() *httptest.Server {
	return httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
}

func address(server *httptest.Server) string { return strings.TrimPrefix(server.URL, "http://") }

func upload(ref string, img v1.Image) error {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	return remote.Write(parsed, img)
}

// newSamples are an image of many small layers, and one of a whole distribution if
// its root filesystem is there.
func newSamples(dir, debian string) ([]sample, error) {
	var layers []v1.Layer
	for i := range manyLayers {
		layer, err := smallLayer(i)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	many, err := newSample(dir, "40 layers", layers...)
	if err != nil {
		return nil, err
	}
	list := []sample{many}
	if _, err := os.Stat(debian); err != nil {
		fmt.Fprintln(os.Stderr, "the image of a distribution is left out:", err)
		return list, nil
	}
	layer, err := tarball.LayerFromFile(debian)
	if err != nil {
		return nil, err
	}
	whole, err := newSample(dir, "debian", layer)
	return append(list, whole), err
}

// smallLayer has some files of some kibibytes, as those of programs' configurations.
func smallLayer(number int) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range filesPerLayer {
		body := bytes.Repeat(fmt.Appendf(nil, "line of file %d in layer %d\n", i, number), 50*(1+i%8))
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("etc/layer%d/file%d", number, i), Mode: 0o644, Size: int64(len(body))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}

func newSample(dir, title string, layers ...v1.Layer) (sample, error) {
	s := sample{title: strings.ReplaceAll(title, " ", "-")}
	s.archive, s.layers = filepath.Join(dir, s.title+".tar"), filepath.Join(dir, s.title)
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return s, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return s, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	if s.img, err = mutate.ConfigFile(img, config); err != nil {
		return s, err
	}
	tag, err := name.NewTag("localhost/bench:" + s.title)
	if err != nil {
		return s, err
	}
	if err := tarball.WriteToFile(s.archive, tag, s.img); err != nil {
		return s, err
	}
	if err := os.Mkdir(s.layers, 0o700); err != nil {
		return s, err
	}
	for i, layer := range layers {
		if err := writeLayer(filepath.Join(s.layers, fmt.Sprintf("%02d", i)), layer); err != nil {
			return s, err
		}
	}
	return s, nil
}

func writeLayer(path string, layer v1.Layer) error {
	body, err := layer.Compressed()
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	return errors.Join(err, f.Close())
}
