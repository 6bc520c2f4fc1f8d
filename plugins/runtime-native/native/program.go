package native

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// FindMonitor answers the configured program, or the one installed with the
// plugin.
func FindMonitor(configured string) (string, error) {
	if configured != "" {
		if _, err := os.Stat(configured); err != nil {
			return "", fmt.Errorf("config key monitor: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		return configured, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(self)
	candidates := []string{filepath.Join(dir, "davit-monitor"), filepath.Join(filepath.Dir(dir), "davit-monitor")}
	for _, path := range candidates {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("davit-monitor is neither %s nor %s: set config key monitor: %w", candidates[0], candidates[1], errdefs.ErrNotFound)
}
