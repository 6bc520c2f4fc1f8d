package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/sdk/storage"
)

// whole proves that every blob of every image with a name is here and is what its
// digest says, and that no snapshot stands on one that is gone.
func (w *world) whole() {
	w.Helper()
	ctx := scope(w.Context())
	list, err := w.names.List(ctx)
	if err != nil {
		w.Fatal(err)
	}
	for _, record := range list {
		img, err := w.read(ctx, record.Target)
		if err != nil {
			w.Errorf("image %s: %v", record.Name, err)
			continue
		}
		m, err := w.manifest(ctx, img.Manifest)
		if err != nil {
			w.Errorf("image %s: %v", record.Name, err)
			continue
		}
		for _, d := range append(slices.Clone(m.Layers), m.Config, img.Manifest) {
			blob, err := w.content.ReaderAt(ctx, d)
			if err != nil {
				w.Errorf("image %s lost blob %s: %v", record.Name, d.Digest, err)
				continue
			}
			verifier := d.Digest.Verifier()
			_, err = io.Copy(verifier, content.NewReader(blob))
			if err := errors.Join(err, blob.Close()); err != nil || !verifier.Verified() {
				w.Errorf("image %s: blob %s is not whole: %v", record.Name, d.Digest, err)
			}
		}
	}
	for name, driver := range w.drivers.byName {
		_ = driver.List(ctx, "", func(info storage.Info) error {
			if info.Parent != "" {
				if _, err := driver.Stat(ctx, info.Parent); err != nil {
					w.Errorf("driver %s: snapshot %s lost its parent: %v", name, info.Name, err)
				}
			}
			return nil
		})
	}
}

// nothing proves that a store without images is empty.
func (w *world) nothing() {
	w.Helper()
	ctx := scope(w.Context())
	if list, _ := w.blobs(); len(list) > 0 {
		w.Errorf("blobs that nobody needs: %v", list)
	}
	if list, _ := w.files(); len(list) > 0 {
		w.Errorf("files that nobody needs: %v", list)
	}
	if list, err := w.content.ListStatuses(ctx); err != nil || len(list) > 0 {
		w.Errorf("unfinished blobs: %v, %v", list, err)
	}
	if list, err := w.leases.List(ctx); err != nil || len(list) > 0 {
		w.Errorf("leases: %v, %v", list, err)
	}
	for name, driver := range w.drivers.byName {
		if keys := driver.keys(); len(keys) > 0 {
			w.Errorf("driver %s: snapshots that nobody needs: %v", name, keys)
		}
	}
}

// Everything at once never loses a blob or a snapshot that is needed, and keeps none
// that is not.
func TestNothingIsLostToTheCollector(t *testing.T) {
	w := newWorld(t, nil)
	base, middle := layer(t, "base", 20_000), layer(t, "middle", 10_000)
	refs := []string{w.serve("base", imageOf(t, base)), w.serve("middle", imageOf(t, base, middle))}
	for i := range 3 {
		refs = append(refs, w.serve(fmt.Sprint("top", i), imageOf(t, base, middle, layer(t, fmt.Sprint("top", i), 5_000))))
	}
	var archives [][]byte
	for _, ref := range refs {
		w.pull(ref)
		var b bytes.Buffer
		save, err := w.Save(t.Context(), []string{ref}, nil)
		if err == nil {
			err = save(&b)
		}
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, b.Bytes())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	any := func() string { return refs[rand.IntN(len(refs))] }
	work := map[string]func() error{
		"pull":       func() error { return w.Pull(t.Context(), any(), "", nil, quiet) },
		"pull again": func() error { return w.Pull(t.Context(), any(), "", nil, quiet) },
		"load": func() error {
			return w.Load(t.Context(), bytes.NewReader(archives[rand.IntN(len(archives))]), nil, quiet)
		},
		"run":         func() error { return w.createContainer(any(), "first") },
		"run further": func() error { return w.createContainer(any(), "second") },
		"rmi": func() error {
			_, err := w.Remove(t.Context(), any(), true, false, unused)
			return gone(err)
		},
		"prune": func() error {
			_, err := w.Prune(t.Context(), filter.Args{"dangling": {"false"}}, unused)
			time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
			return err
		},
		"tag":    func() error { return gone(w.Tag(t.Context(), any(), "extra:"+fmt.Sprint(rand.IntN(3)))) },
		"commit": func() error { return gone(w.commitOn(any())) },
		"save": func() error {
			save, err := w.Save(t.Context(), []string{any()}, nil)
			if err == nil {
				err = save(io.Discard)
			}
			return gone(err)
		},
		"collect": func() error { w.Recover(t.Context()); return nil },
	}
	var group sync.WaitGroup
	done := map[string]*atomic.Int64{}
	for name, do := range work {
		count := &atomic.Int64{}
		done[name] = count
		group.Go(func() {
			for ctx.Err() == nil {
				if err := do(); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				count.Add(1)
			}
		})
	}
	group.Wait()
	for name, count := range done {
		if count.Load() == 0 {
			t.Errorf("%s was never done", name)
		}
		t.Logf("%s: %d", name, count.Load())
	}
	w.whole()
	if _, err := w.Prune(t.Context(), filter.Args{"dangling": {"false"}}, unused); err != nil {
		t.Fatal(err)
	}
	w.nothing()
}

// gone accepts that somebody removed the image.
func gone(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// createContainer does what the creation of a container does with its image.
func (w *world) createContainer(ref, driver string) error {
	img, err := w.Resolve(w.Context(), ref)
	if err != nil {
		return gone(err)
	}
	top, release, err := w.Unpack(w.Context(), img, driver)
	if err != nil {
		return gone(err) // its blobs were removed before
	}
	defer release()
	key := "davit-" + container.NewID()
	if _, err := w.drivers.byName[driver].Prepare(w.Context(), key, top, nil); err != nil {
		return fmt.Errorf("an unpacked image is not there: %w", err)
	}
	for _, id := range identity.ChainIDs(slices.Clone(img.Config.RootFS.DiffIDs)) {
		if _, err := w.drivers.byName[driver].Stat(w.Context(), id.String()); err != nil {
			return fmt.Errorf("below a container: %w", err)
		}
	}
	return w.drivers.byName[driver].Remove(w.Context(), key)
}

func (w *world) commitOn(ref string) error {
	img, err := w.Resolve(w.Context(), ref)
	if err != nil {
		return err
	}
	_, err = w.Commit(w.Context(), CommitOptions{Repo: "built", Tag: fmt.Sprint(rand.IntN(3)), Image: img.ID.String(), Driver: "first"}, func(io.Writer) (bool, error) { return true, nil })
	return err
}

// What a process that died had written is kept for the next pull, under one lease,
// and goes with a prune.
func TestLeasesOfDeadOperationsEnd(t *testing.T) {
	w := newWorld(t, nil)
	body := []byte("half of an image")
	d := ocispec.Descriptor{Digest: digest.FromBytes(body), Size: int64(len(body))}
	for range 3 {
		ctx, _, err := w.leased(t.Context()) // its end never comes
		if err == nil {
			err = w.write(ctx, d, bytes.NewReader(body))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.reopen()
	list, err := w.leases.List(scope(t.Context()))
	if err != nil || len(list) != 1 || list[0].ID != unfinished {
		t.Fatalf("leases: %v, %v", list, err)
	}
	if w.Recover(t.Context()); !w.has(d) {
		t.Error("a whole blob of a pull that was cut off did not stay")
	}
	ctx := leases.WithLease(scope(t.Context()), unfinished)
	resources, err := w.leases.ListResources(ctx, leases.Lease{ID: unfinished})
	if err != nil || len(resources) != 1 {
		t.Errorf("it holds %v, %v", resources, err)
	}
	if _, err := w.Prune(t.Context(), nil, unused); err != nil {
		t.Fatal(err)
	}
	w.nothing()
}

func (w *world) has(d ocispec.Descriptor) bool {
	_, err := w.content.Info(scope(w.Context()), d.Digest)
	return err == nil
}

// Layers of an image that is removed while a container stands on them are removed
// from their driver after the container, without anybody asking again.
func TestLayersGoAfterTheirLastUser(t *testing.T) {
	w := newWorld(t, nil)
	ref := w.serve("app", imageOf(t, layer(t, "a", 100), layer(t, "b", 100)))
	w.pull(ref)
	img, err := w.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	top, release, err := w.Unpack(t.Context(), img, "second")
	if err != nil {
		t.Fatal(err)
	}
	second := w.drivers.byName["second"]
	if _, err := second.Prepare(t.Context(), "davit-box", top, nil); err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := w.Remove(t.Context(), ref, true, false, unused); err != nil {
		t.Fatal(err)
	}
	if keys := w.drivers.byName["first"].keys(); len(keys) > 0 {
		t.Errorf("nobody stands on %v", keys)
	}
	if keys := second.keys(); len(keys) != 3 {
		t.Fatalf("under the container: %v", keys)
	}
	if err := second.Remove(t.Context(), "davit-box"); err != nil {
		t.Fatal(err)
	}
	w.Collect()
	for deadline := time.Now().Add(20 * time.Second); len(second.keys()) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v", second.keys())
		}
	}
	w.nothing()
}
