package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/core/image/blobs"
	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/storage"
)

// errDead is what a store's disk, database and drivers say to a process that is dead:
// nothing that it does has effect any more.
var errDead = errors.New("the process is dead")

// reaper kills a process at one of the steps by which it changes what is kept: before
// the step has effect, or after.
type reaper struct {
	mu    sync.Mutex
	steps int // since arm
	at    int // the step to die at; negative: none
	dead  bool
}

func (r *reaper) arm(at int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps, r.at, r.dead = 0, at, false
}

// died says whether the process was killed, and how many steps it had to be killed at.
func (r *reaper) died() (bool, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dead, r.steps
}

func (r *reaper) alive() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead || r.steps == r.at {
		r.dead = true
		return false
	}
	r.steps++
	return true
}

func (r *reaper) step(do func() error) error {
	if !r.alive() {
		return errDead
	}
	err := do()
	if !r.alive() {
		return errDead
	}
	return err
}

func (r *reaper) open(ctx context.Context, o Options) (*Store, error) {
	disk, err := local.NewStore(filepath.Join(o.Root, "content"))
	if err != nil {
		return nil, err
	}
	bolt, err := bbolt.Open(filepath.Join(o.Root, "metadata.db"), 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		return nil, err
	}
	o.Drivers = mortalDrivers{o.Drivers, r}
	kept, err := blobs.On(ctx, o.Root, &mortalDisk{disk, r}, &mortalDatabase{bolt, r})
	if err != nil {
		return nil, err
	}
	return open(ctx, o, kept)
}

type mortalDatabase struct {
	*bbolt.DB
	reaper *reaper
}

func (d *mortalDatabase) Update(fn func(*bbolt.Tx) error) error {
	return d.reaper.step(func() error { return d.DB.Update(fn) })
}

type mortalDisk struct {
	content.Store
	reaper *reaper
}

func (d *mortalDisk) Writer(ctx context.Context, opts ...content.WriterOpt) (w content.Writer, err error) {
	err = d.reaper.step(func() error { w, err = d.Store.Writer(ctx, opts...); return err })
	if err != nil {
		if w != nil {
			_ = w.Close()
		}
		return nil, err
	}
	return &mortalWriter{w, d.reaper}, nil
}

func (d *mortalDisk) Abort(ctx context.Context, ref string) error {
	return d.reaper.step(func() error { return d.Store.Abort(ctx, ref) })
}

func (d *mortalDisk) Delete(ctx context.Context, dgst digest.Digest) error {
	return d.reaper.step(func() error { return d.Store.Delete(ctx, dgst) })
}

type mortalWriter struct {
	content.Writer
	reaper *reaper
}

func (w *mortalWriter) Write(p []byte) (n int, err error) {
	err = w.reaper.step(func() error { n, err = w.Writer.Write(p); return err })
	return n, err
}

func (w *mortalWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	return w.reaper.step(func() error { return w.Writer.Commit(ctx, size, expected, opts...) })
}

type mortalDrivers struct {
	Drivers
	reaper *reaper
}

func (d mortalDrivers) Storage(name string) (storage.Driver, error) {
	driver, err := d.Drivers.Storage(name)
	return mortalDriver{driver, d.reaper}, err
}

func (d mortalDrivers) Default(kind plugin.Kind) string { return d.Drivers.Default(kind) }

type mortalDriver struct {
	storage.Driver
	reaper *reaper
}

func (d mortalDriver) Prepare(ctx context.Context, key, parent string, labels map[string]string) (mounts []mount.Mount, err error) {
	err = d.reaper.step(func() error { mounts, err = d.Driver.Prepare(ctx, key, parent, labels); return err })
	return mounts, err
}

func (d mortalDriver) Commit(ctx context.Context, name, key string, labels map[string]string) error {
	return d.reaper.step(func() error { return d.Driver.Commit(ctx, name, key, labels) })
}

func (d mortalDriver) Remove(ctx context.Context, key string) error {
	return d.reaper.step(func() error { return d.Driver.Remove(ctx, key) })
}

// usable proves that all images that are listed can be run and saved, and that those
// names are there.
func (w *world) usable(names ...string) {
	w.Helper()
	w.whole()
	for _, img := range w.all() {
		_, release, err := w.Unpack(w.Context(), *img, "first")
		if err != nil {
			w.Errorf("image %s %v cannot be run: %v", img.ID, img.RepoTags, err)
			continue
		}
		release()
		save, err := w.Save(w.Context(), []string{img.ID.String()}, nil)
		if err == nil {
			err = save(io.Discard)
		}
		if err != nil {
			w.Errorf("image %s %v cannot be saved: %v", img.ID, img.RepoTags, err)
		}
	}
	for _, name := range names {
		if _, err := w.Resolve(w.Context(), name); err != nil {
			w.Errorf("%s is lost: %v", name, err)
		}
	}
}

// empty removes everything, and proves that nothing is left.
func (w *world) empty() {
	w.Helper()
	if _, err := w.Prune(w.Context(), filter.Args{"dangling": {"false"}}, unused); err != nil {
		w.Fatal(err)
	}
	w.nothing()
}

// mostDeaths is how many of an operation's steps it is killed at, other ones in each
// run; with DAVIT_TEST_EVERY_STEP it is all of them.
const mostDeaths = 8

// Whatever step an operation is killed at, the store opens, what was acknowledged is
// whole, the operation succeeds when it is repeated, and nothing is left when
// everything is removed.
func TestAKillAtAnyStep(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Root += "/mortal" })
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.reaper = &reaper{at: -1}
	w.open()
	base := layer(t, "base", 20_000)
	ref, other := w.serve("app", imageOf(t, base, layer(t, "app", 5_000))), w.serve("other", imageOf(t, base, layer(t, "other", 300)))
	w.pull(ref)
	var archive bytes.Buffer
	save, err := w.Save(t.Context(), []string{ref}, nil)
	if err == nil {
		err = save(&archive)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.empty()
	pull := func(ref string) func() error {
		return func() error { return w.Pull(t.Context(), ref, "", nil, quiet) }
	}
	inUse := func(string) (string, bool) { return "0123456789ab", true }
	for _, op := range []struct {
		name    string
		before  func() error
		do      func() error
		keeps   []string // names that the operation does not touch
		ids     []string // names whose images stay, if not the names
		results []string // names that are there when it has succeeded
	}{
		{name: "pull", before: pull(other), do: pull(ref), keeps: []string{other}, results: []string{ref}},
		{name: "load", before: pull(other), keeps: []string{other}, results: []string{ref}, do: func() error {
			return w.Load(t.Context(), bytes.NewReader(archive.Bytes()), nil, quiet)
		}},
		{name: "import", do: func() error {
			return w.Import(t.Context(), ImportOptions{Repo: "imported"}, bytes.NewReader(tarOf(t, "file", 3000)), quiet)
		}, results: []string{"imported"}},
		{name: "commit", before: pull(ref), keeps: []string{ref}, results: []string{"committed"}, do: func() error {
			img, err := w.Resolve(t.Context(), ref)
			if err != nil {
				return err
			}
			_, err = w.Commit(t.Context(), CommitOptions{Repo: "committed", Image: img.ID.String(), Driver: "first"}, func(out io.Writer) (bool, error) {
				_, err := out.Write(tarOf(t, "changed", 2000))
				return false, err
			})
			return err
		}},
		// The name moves: what had it is of a container.
		{name: "tag", before: func() error { return errors.Join(pull(ref)(), pull(other)()) }, keeps: []string{ref, other}, results: []string{other}, do: func() error {
			img, err := w.Resolve(t.Context(), other)
			if err != nil {
				return err
			}
			if err := w.Tag(t.Context(), ref, other); err != nil {
				return err
			}
			if _, err := w.Resolve(t.Context(), img.ID.String()); err != nil {
				return fmt.Errorf("what had the name is lost: %w", err)
			}
			return w.Tag(t.Context(), img.ID.String(), other)
		}},
		{name: "rmi", before: func() error { return errors.Join(pull(ref)(), pull(other)()) }, keeps: []string{other}, do: func() error {
			_, err := w.Remove(t.Context(), ref, true, false, unused)
			return gone(err)
		}},
		{name: "rmi of an image in use", before: pull(ref), ids: []string{ref}, do: func() error {
			img, err := w.Resolve(t.Context(), ref)
			if err != nil {
				return gone(err)
			}
			if _, err = w.Remove(t.Context(), ref, true, false, inUse); err == nil {
				_, err = w.Resolve(t.Context(), img.ID.String())
			}
			return err
		}},
		{name: "prune", before: func() error { return errors.Join(pull(ref)(), pull(other)()) }, do: func() error {
			_, err := w.Prune(t.Context(), filter.Args{"dangling": {"false"}}, unused)
			return err
		}},
	} {
		t.Run(op.name, func(t *testing.T) {
			begin := time.Now()
			w := w
			w.T = t
			prepare := func() {
				t.Helper()
				if op.before == nil {
					return
				}
				if err := op.before(); err != nil {
					t.Fatal(err)
				}
			}
			prepare()
			w.reaper.arm(-1)
			if err := op.do(); err != nil {
				t.Fatal(err)
			}
			_, steps := w.reaper.died()
			w.usable(append(slices.Clone(op.keeps), op.results...)...)
			w.empty()
			points := rand.Perm(steps)
			if os.Getenv("DAVIT_TEST_EVERY_STEP") == "" {
				points = points[:min(len(points), mostDeaths)]
			}
			for _, at := range points {
				prepare()
				ids := w.ids(append(slices.Clone(op.keeps), op.ids...))
				w.reaper.arm(at)
				err := op.do()
				died, _ := w.reaper.died()
				w.reaper.arm(-1)
				acknowledged := op.keeps
				if died && err == nil {
					// It was killed at what is done after the answer.
					acknowledged = append(slices.Clone(op.keeps), op.results...)
				}
				w.reopen()
				w.Recover(t.Context())
				w.usable(append(ids, acknowledged...)...)
				if err := op.do(); err != nil {
					t.Errorf("again: %v", err)
				}
				w.usable(append(slices.Clone(op.keeps), op.results...)...)
				w.empty()
				if t.Failed() {
					t.Fatalf("killed at step %d of %d", at, steps)
				}
			}
			t.Logf("killed at %d of %d steps in %s", len(points), steps, time.Since(begin).Round(time.Millisecond))
		})
	}
}

// ids are the images that names name.
func (w *world) ids(names []string) (list []string) {
	w.Helper()
	for _, name := range names {
		img, err := w.Resolve(w.Context(), name)
		if err != nil {
			w.Fatal(err)
		}
		list = append(list, img.ID.String())
	}
	return list
}
