package apparmor

import (
	"bytes"
	"os/exec"
	"testing"
)

// The parser takes the profile, also on hosts whose kernel has no AppArmor.
func TestProfile(t *testing.T) {
	parser, err := exec.LookPath("apparmor_parser")
	if err != nil {
		t.Skip("no apparmor_parser here")
	}
	cmd := exec.CommandContext(t.Context(), parser, "--skip-kernel-load", "--skip-cache", "--names")
	cmd.Stdin = bytes.NewReader(profile)
	if out, err := cmd.Output(); err != nil || string(bytes.TrimSpace(out)) != Default {
		t.Errorf("%s (%v), want %s", out, err, Default)
	}
	// Compiled, not only parsed.
	cmd = exec.CommandContext(t.Context(), parser, "--skip-kernel-load", "--skip-cache", "--stdout")
	cmd.Stdin = bytes.NewReader(profile)
	if out, err := cmd.Output(); err != nil || len(out) < 1000 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}
