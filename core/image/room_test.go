package image

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/core/image/room"
)

// Where less is free than is to be, images are refused before their layers are fetched
// and nothing of them is left; what is here can be used and removed.
func TestRoomIsKeptFree(t *testing.T) {
	w := newWorld(t, nil)
	ref, other := w.serve("app", imageOf(t, layer(t, "base", 9000))), w.serve("other", imageOf(t, layer(t, "other", 9000)))
	w.pull(ref)
	archive, err := w.save(ref)
	if err != nil {
		t.Fatal(err)
	}
	w.options.Room = room.Limit{Bytes: 1 << 60, Setting: "images.min_free"}
	w.reopen()
	w.asked.blobs()
	before, _ := w.blobs()
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, syscall.ENOSPC) || !errdefs.IsResourceExhausted(err) {
			t.Errorf("%s: %v", what, err)
		}
		if after, _ := w.blobs(); len(after) != len(before) {
			t.Errorf("%s: %d blobs, before %d", what, len(after), len(before))
		}
		if list, err := w.content.ListStatuses(scope(t.Context())); err != nil || len(list) > 0 {
			t.Errorf("%s left %v, %v", what, list, err)
		}
	}
	refused("pull", w.Pull(t.Context(), other, "", nil, quiet))
	if asked := w.asked.blobs(); len(asked) > 0 {
		t.Errorf("fetched %v", asked)
	}
	refused("import", w.Import(t.Context(), ImportOptions{Repo: "x"}, bytes.NewReader(tarOf(t, "x", 10)), quiet))
	w.pull(ref) // it is up to date
	w.usable(ref)
	if _, err := w.Remove(t.Context(), ref, true, false, unused); err != nil {
		t.Fatal(err)
	}
	before = nil
	refused("load", w.Load(t.Context(), bytes.NewReader(archive), nil, quiet))
	w.nothing()
}
