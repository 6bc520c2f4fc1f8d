package oci

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
	"github.com/davit-engine/davit/test/validate/suite"
)

// The quick ones of the programs that docs/runtime-validation.md lists.
func TestValidation(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	if _, err := os.Stat("../validation/go.mod"); err != nil {
		t.Skip("no sources here to build the validation programs from")
	}
	names := []string{"create", "hostname", "kill", "linux_masked_paths", "linux_seccomp", "mounts", "root_readonly_true", "state"}
	s, err := suite.Build(context.Background(), "../validation", "../../build/validation-test", names...)
	if err != nil {
		t.Skipf("the validation programs cannot be built here: %v", err)
	}
	for _, name := range names {
		ctx, cancel := context.WithTimeout(context.Background(), private.Patience(30*time.Second))
		result, err := s.Run(ctx, program(t), name)
		cancel()
		if err != nil || !result.OK() || result.Passed == 0 {
			t.Errorf("%s: %s, failed: %q %s (%v)", name, result, result.Failed, result.Said, err)
		}
	}
}
