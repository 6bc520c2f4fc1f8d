package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ctrlog "github.com/containerd/log"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	memory "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"

	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/core/registry"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/storage"
)

func TestMain(m *testing.M) {
	_ = ctrlog.SetLevel("error") // file systems without fsverity are no news
	os.Exit(m.Run())
}

// directories is a storage driver that keeps the algebra of the contract, and only the
// files of each snapshot itself.
type directories struct {
	storage.Driver
	root string
	mu   sync.Mutex
	all  map[string]storage.Info
	next int
	dirs map[string]string
}

func newDirectories(root string) *directories {
	return &directories{root: root, all: map[string]storage.Info{}, dirs: map[string]string{}}
}

func (d *directories) Prepare(_ context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.all[key]; ok {
		return nil, errdefs.ErrAlreadyExists.WithMessage(key + " exists")
	}
	if parent != "" {
		info, ok := d.all[parent]
		if !ok {
			return nil, errdefs.ErrNotFound.WithMessage("no parent " + parent)
		}
		if info.Kind != storage.KindCommitted {
			return nil, errdefs.ErrInvalidArgument.WithMessage("parent " + parent + " is not committed")
		}
	}
	d.next++
	dir := filepath.Join(d.root, strconv.Itoa(d.next))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	d.all[key], d.dirs[key] = storage.Info{Kind: storage.KindActive, Name: key, Parent: parent, Labels: labels}, dir
	return []mount.Mount{{Type: "bind", Source: dir, Options: []string{"rbind"}}}, nil
}

func (d *directories) Commit(_ context.Context, name, key string, labels map[string]string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.all[name]; ok {
		return errdefs.ErrAlreadyExists.WithMessage(name + " exists")
	}
	info, ok := d.all[key]
	if !ok {
		return errdefs.ErrNotFound.WithMessage("no snapshot " + key)
	}
	info.Kind, info.Name, info.Labels = storage.KindCommitted, name, labels
	d.all[name], d.dirs[name] = info, d.dirs[key]
	delete(d.all, key)
	delete(d.dirs, key)
	return nil
}

func (d *directories) Remove(_ context.Context, key string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.all[key]; !ok {
		return errdefs.ErrNotFound.WithMessage("no snapshot " + key)
	}
	for _, info := range d.all {
		if info.Parent == key {
			return errdefs.ErrFailedPrecondition.WithMessage(key + " has children")
		}
	}
	err := os.RemoveAll(d.dirs[key])
	delete(d.all, key)
	delete(d.dirs, key)
	return err
}

func (d *directories) Stat(_ context.Context, key string) (storage.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, ok := d.all[key]
	if !ok {
		return info, errdefs.ErrNotFound.WithMessage("no snapshot " + key)
	}
	return info, nil
}

func (d *directories) List(_ context.Context, prefix string, fn func(storage.Info) error) error {
	d.mu.Lock()
	var list []storage.Info
	for _, info := range d.all {
		if strings.HasPrefix(info.Name, prefix) {
			list = append(list, info)
		}
	}
	d.mu.Unlock()
	for _, info := range list {
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

func (d *directories) Usage(_ context.Context, key string) (usage storage.Usage, err error) {
	d.mu.Lock()
	dir, ok := d.dirs[key]
	d.mu.Unlock()
	if !ok {
		return usage, errdefs.ErrNotFound.WithMessage("no snapshot " + key)
	}
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			info, err := entry.Info()
			if err != nil {
				return err
			}
			usage.Size += info.Size()
		}
		return err
	})
	return usage, err
}

func (d *directories) keys() []string {
	var keys []string
	_ = d.List(context.Background(), "", func(info storage.Info) error { keys = append(keys, info.Name); return nil })
	return keys
}

// drivers are storage drivers by name; the first is the default.
type drivers struct {
	names  []string
	byName map[string]*directories
}

func newDrivers(root string, names ...string) *drivers {
	d := &drivers{names: names, byName: map[string]*directories{}}
	for _, name := range names {
		d.byName[name] = newDirectories(filepath.Join(root, name))
	}
	return d
}

func (d *drivers) Storage(name string) (storage.Driver, error) {
	driver, ok := d.byName[name]
	if !ok {
		return nil, errdefs.ErrNotFound.WithMessage("no storage driver " + name)
	}
	return driver, nil
}

func (d *drivers) Default(plugin.Kind) string { return d.names[0] }

func (d *drivers) List() (list []plugin.Status) {
	for _, name := range d.names {
		list = append(list, plugin.Status{Kind: plugin.Storage, Driver: name})
	}
	return list
}

// world is a store beside a registry.
type world struct {
	*testing.T
	*Store
	drivers *drivers
	address string // of the registry
	options Options
	reaper  *reaper // nil where nobody kills
	asked   *requests
}

// requests are what a registry was asked for.
type requests struct {
	next http.Handler
	mu   sync.Mutex
	list []string // paths of blobs
}

func (r *requests) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodGet && strings.Contains(request.URL.Path, "/blobs/") {
		r.mu.Lock()
		r.list = append(r.list, request.URL.Path)
		r.mu.Unlock()
	}
	r.next.ServeHTTP(w, request)
}

// blobs are the blobs that were asked for since the last call.
func (r *requests) blobs() []digest.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []digest.Digest
	for _, path := range r.list {
		list = append(list, digest.Digest(path[strings.LastIndexByte(path, '/')+1:]))
	}
	r.list = nil
	return list
}

func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("layers are unpacked in mount namespaces: run as root")
	}
	asked := &requests{next: memory.New(memory.Logger(log.New(io.Discard, "", 0)))}
	server := httptest.NewServer(asked)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	w := &world{T: t, asked: asked, drivers: newDrivers(dir, "first", "second"), address: strings.TrimPrefix(server.URL, "http://")}
	w.options = Options{
		Root: filepath.Join(dir, "images"), Drivers: w.drivers, Registries: registry.New(registry.Options{}),
		Emit: func(events.Message) {}, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&w.options)
	}
	w.open()
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) open() {
	w.Helper()
	var err error
	if w.reaper == nil {
		w.Store, err = Open(w.Context(), w.options)
	} else {
		w.Store, err = w.reaper.open(w.Context(), w.options)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// reopen is what a new process finds.
func (w *world) reopen() {
	w.Helper()
	if err := w.Close(); err != nil {
		w.Fatal(err)
	}
	w.open()
}

// tarOf is an archive with a file of some bytes.
func tarOf(t *testing.T, file string, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	body := bytes.Repeat([]byte(file+"\n"), size/(len(file)+1)+1)[:size]
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file, Size: int64(size), Mode: 0o644, ModTime: time.Unix(1, 0)}), func() error { _, err := w.Write(body); return err }(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// layer is one with a file of some bytes.
func layer(t *testing.T, file string, size int) v1.Layer {
	t.Helper()
	body := tarOf(t, file, size)
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func imageOf(t *testing.T, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err == nil {
		img, err = mutate.Config(img, v1.Config{Cmd: []string{"true"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file.OS, file.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}

// serve puts an image into the registry and answers its name.
func (w *world) serve(repository string, img v1.Image) string {
	w.Helper()
	ref := w.address + "/" + repository + ":v1"
	parsed, err := name.ParseReference(ref)
	if err == nil {
		err = remote.Write(parsed, img)
	}
	if err != nil {
		w.Fatal(err)
	}
	return ref
}

func quiet(jsonstream.Message) error { return nil }

func (w *world) pull(ref string) {
	w.Helper()
	if err := w.Pull(w.Context(), ref, "", nil, quiet); err != nil {
		w.Fatalf("pulling %s: %v", ref, err)
	}
}

func unused(string) (string, bool) { return "", false }

// blobs are the blobs that the store has, and their bytes together.
func (w *world) blobs() (list []digest.Digest, size int64) {
	w.Helper()
	err := w.content.Walk(scope(w.Context()), func(info content.Info) error {
		list, size = append(list, info.Digest), size+info.Size
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	return list, size
}

// files are the blobs' files on disk, and their bytes together.
func (w *world) files() (list []string, size int64) {
	w.Helper()
	err := filepath.WalkDir(filepath.Join(w.options.Root, "content", "blobs"), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			list, size = append(list, path), size+info.Size()
		}
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return list, size
}
