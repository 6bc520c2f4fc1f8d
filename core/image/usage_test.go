package image

import (
	"testing"

	"github.com/containerd/containerd/v2/core/images"

	"github.com/davit-engine/davit/sdk/storage"
)

// onDisk is what content store and drivers really have.
func (w *world) onDisk() int64 {
	w.Helper()
	_, total := w.files()
	for _, driver := range w.drivers.byName {
		for _, key := range driver.keys() {
			info, err := driver.Stat(w.Context(), key)
			if err != nil || info.Kind != storage.KindCommitted {
				continue
			}
			usage, err := driver.Usage(w.Context(), key)
			if err != nil {
				w.Fatal(err)
			}
			total += usage.Size
		}
	}
	return total
}

func (w *world) usage() Usage {
	w.Helper()
	usage, err := w.Usage(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	if want := w.onDisk(); usage.Total != want {
		w.Errorf("the store says it occupies %d bytes: on disk are %d", usage.Total, want)
	}
	return usage
}

func TestUsageIsWhatIsOnDisk(t *testing.T) {
	w := newWorld(t, nil)
	w.usage()
	base := layer(t, "base", 40_000)
	one, two := w.serve("one", imageOf(t, base, layer(t, "one", 1_000))), w.serve("two", imageOf(t, base, layer(t, "two", 2_000)))
	w.pull(one)
	img, err := w.Resolve(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	first := w.usage()
	if sizes := first.Images[img.ID]; sizes.Size != first.Total || sizes.Shared != 0 {
		t.Errorf("the only image of %d bytes: %+v", first.Total, sizes)
	}
	w.pull(two)
	blob, err := base.Size()
	if err != nil {
		t.Fatal(err)
	}
	other, err := w.Resolve(t.Context(), two)
	if err != nil {
		t.Fatal(err)
	}
	both := w.usage()
	shared := blob + 40_000
	a, b := both.Images[img.ID], both.Images[other.ID]
	if a.Shared != shared || b.Shared != shared || a.Size+b.Size-shared != both.Total {
		t.Errorf("%d bytes together, %d shared: %+v and %+v", both.Total, shared, a, b)
	}
	// A second driver has layers of its own.
	_, release, err := w.Unpack(t.Context(), img, "second")
	if err != nil {
		t.Fatal(err)
	}
	release()
	if got, want := w.usage(), a.Size+41_000; got.Images[img.ID].Size != want {
		t.Errorf("in two drivers: %+v, not %d", got.Images[img.ID], want)
	}
	// A dangling image counts, a removed one does not.
	if _, err := w.setName(scope(t.Context()), images.Image{Name: one, Target: other.Target}); err != nil {
		t.Fatal(err)
	}
	if err := w.keep(scope(t.Context()), img.Target); err != nil {
		t.Fatal(err)
	}
	if err := w.refresh(scope(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := w.usage(); len(got.Images) != 2 {
		t.Errorf("images: %+v", got.Images)
	}
	if _, err := w.Prune(t.Context(), nil, unused); err != nil {
		t.Fatal(err)
	}
	if got := w.usage(); len(got.Images) != 1 || got.Images[other.ID].Size != got.Total || got.Images[other.ID].Shared != 0 {
		t.Errorf("after a prune: %+v", got)
	}
}
