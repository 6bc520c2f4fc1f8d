package openat2

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRenamesMeanwhile: directories that are renamed without end, which the kernel
// answers with EAGAIN, do not keep a path with ".." from being opened.
func TestRenamesMeanwhile(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(root) }()
	stop, renamed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(renamed)
		for from, to := filepath.Join(dir, "c"), filepath.Join(dir, "d"); ; from, to = to, from {
			select {
			case <-stop:
				return
			default:
				_ = os.Rename(from, to)
				time.Sleep(100 * time.Microsecond)
			}
		}
	}()
	path := "a/b" + strings.Repeat("/../../a/b", 20)
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	between := 0 // renames that came between
	for end := time.Now().Add(20 * time.Second); between < 10 && time.Now().Before(end); {
		fd, err := unix.Openat2(root, path, how)
		if errors.Is(err, unix.EAGAIN) {
			between++
		} else if err == nil {
			_ = unix.Close(fd)
		}
		if fd, err = Open(root, path, how); err != nil {
			t.Error(err)
			break
		}
		_ = unix.Close(fd)
	}
	close(stop)
	<-renamed
	if between == 0 {
		t.Skip("no rename came between in 20 s")
	}
	if fd, err := Open(root, "a/nothing", how); !errors.Is(err, unix.ENOENT) {
		t.Errorf("descriptor %d, %v", fd, err)
	}
}
