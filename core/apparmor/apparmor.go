// Package apparmor has the profile of containers that name none, and loads it into
// the kernel.
package apparmor

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/containerd/errdefs"
)

// Default is the profile's name.
const Default = "davit-default"

//go:embed davit-default
var profile []byte

// enabled says Y where the kernel enforces profiles.
const enabled = "/sys/module/apparmor/parameters/enabled"

// Enabled says whether the kernel enforces profiles.
func Enabled() bool {
	body, err := os.ReadFile(enabled)
	return err == nil && bytes.HasPrefix(body, []byte("Y"))
}

// Load puts the default profile into the kernel, in the place of one of that name.
// Its error is ErrNotFound if there is no apparmor_parser to do it.
func Load(ctx context.Context) error {
	parser, err := exec.LookPath("apparmor_parser")
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("loading AppArmor profile %s: %w: %w", Default, err, errdefs.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("loading AppArmor profile %s: %w", Default, err)
	}
	cmd := exec.CommandContext(ctx, parser, "--skip-cache", "--replace")
	cmd.Stdin = bytes.NewReader(profile)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("loading AppArmor profile %s: %w: %s", Default, err, bytes.TrimSpace(out))
	}
	return nil
}
