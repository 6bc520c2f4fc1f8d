package plugin

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// TestWaitOutlivesAnyFailure: a Wait that ended because its driver did would be
// taken for the end of the container.
func TestWaitOutlivesAnyFailure(t *testing.T) {
	b := newBench(t)
	path := b.install(binary(t, "odd"), Runtime, "odd", nil)
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	h := b.start()
	await(t, h, "runtime-odd", isState(StateFailed))
	d, err := h.Runtime("odd")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Adopt(t.Context(), "c"); !errdefs.IsUnavailable(err) {
		t.Errorf("adopt: %v", err)
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := d.Wait(ctx, "c", ""); err == nil || time.Since(begin) < 100*time.Millisecond {
		t.Errorf("wait gave up after %s: %v", time.Since(begin), err)
	}
}
