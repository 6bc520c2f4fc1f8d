package plugin

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImportsStayLight keeps plugins small and quick to start: a driver author
// gets the SDK and gRPC, not the engine.
func TestImportsStayLight(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{
		"github.com/davit-engine/davit/sdk/",
		"github.com/containerd/errdefs",
		"github.com/hashicorp/", "github.com/golang/protobuf/", "github.com/oklog/run", "github.com/fatih/color",
		"github.com/mattn/go-", "google.golang.org/", "golang.org/x/",
	}
	for _, path := range strings.Fields(string(out)) {
		if strings.HasPrefix(path, "github.com/containerd/errdefs/") {
			t.Errorf("%s: the SDK has its own codes", path)
		}
		ok := false
		for _, prefix := range allowed {
			ok = ok || strings.HasPrefix(path, prefix)
		}
		if !ok {
			t.Errorf("the SDK imports %s", path)
		}
	}
}
