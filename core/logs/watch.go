package logs

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// watcher tells when a file's directory saw writing, by inotify.
type watcher struct {
	file    *os.File
	changed chan struct{}
	ended   chan struct{}
}

func newWatcher(path string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "inotify"), changed: make(chan struct{}, 1), ended: make(chan struct{})}
	// The directory, because rotation replaces the file.
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		_ = w.file.Close()
		return nil, fmt.Errorf("watching %s: %w", filepath.Dir(path), err)
	}
	go w.loop()
	return w, nil
}

func (w *watcher) loop() {
	defer close(w.ended)
	buffer := make([]byte, 4096)
	for {
		if _, err := w.file.Read(buffer); err != nil {
			return
		}
		select {
		case w.changed <- struct{}{}:
		default: // already told
		}
	}
}

func (w *watcher) close() {
	_ = w.file.Close()
	<-w.ended
}
