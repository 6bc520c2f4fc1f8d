package native_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// watches counts what this process has asked the kernel to tell it of.
func watches(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, file := range files {
		body, _ := os.ReadFile(file) // it may be closed by now
		count += strings.Count(string(body), "inotify wd:") + strings.Count(string(body), "eventfd-count:")
	}
	return count
}

// TestAWatchEndsWithItsContainer: nothing is left of it, whether or not the kernel
// tells of the end of a cgroup.
func TestAWatchEndsWithItsContainer(t *testing.T) {
	newBox(t, "true").prints("") // makes what is made once
	before := watches(t)
	for range 3 {
		b := newBox(t, "sleep 600")
		b.start()
		waitFor(t, "the watch", func() bool { return watches(t) > before })
		b.remove()
		waitFor(t, "the end of the watch", func() bool { return watches(t) == before })
	}
}
