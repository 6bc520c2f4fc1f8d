package overlay

import (
	"context"
	"os"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/sdk/conformance/snapshotter"
)

// The contract is containerd's algebra, so containerd's own suite has to agree.
func TestContainerdsSnapshotterSuite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting overlays needs root")
	}
	// By this name the suite knows what overlayfs cannot rename.
	testsuite.SnapshotterSuite(t, "overlayfs", func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		d, err := New(root, hclog.NewNullLogger())
		if err != nil {
			return nil, nil, err
		}
		s := snapshotter.New(d, func() error { d.Close(); return nil })
		return s, s.Close, nil
	})
}
