package main

import (
	"os"
	"path/filepath"

	"github.com/davit-engine/davit/config"
)

// findInit answers the program for --init: the configured one, or the one that
// is installed with davitd. It is empty if there is none, which only containers
// that want one have to hear.
func findInit(c config.Config) string {
	if c.InitPath != "" {
		return c.InitPath
	}
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	dir := filepath.Dir(self)
	for _, path := range []string{filepath.Join(dir, "davit-init"), filepath.Join(filepath.Dir(dir), "lib", "davit", "davit-init")} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}
