package e2e

import (
	"context"
	"net/http"
	"testing"

	"github.com/davit-engine/davit/test/private"
)

// TestRoomIsKeptFree: what would take of the room that is to be kept is refused as on a
// full disk.
func TestRoomIsKeptFree(t *testing.T) {
	t.Parallel()
	e, err := private.New(private.Options{Tables: "[images]\nmin_free = \"99.99%\"\n"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.CleanUp(); err != nil {
			t.Error(err)
		}
	})
	archive := archiveOf(t, map[string]string{"file": "content"})
	newClient(t, "davit", e).fails(1, "no space left on device", "import", archive, "x:1")
	status, answer := ask(t, e, http.MethodPost, "/images/load", read(t, archive))
	if status != http.StatusInsufficientStorage {
		t.Errorf("load answers %d %s", status, answer)
	}
}
