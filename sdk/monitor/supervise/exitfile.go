package supervise

import (
	"encoding/json"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
)

// exitFile is where a process's end will be written. File, descriptor and space
// are taken when the process is created: an end is recorded on a full disk and
// without free descriptors, too.
type exitFile struct {
	file *os.File
	path string
}

// exitSize is the space an exit status takes, and more.
const exitSize = 512

func newExitFile(path string) (*exitFile, error) {
	f, err := os.OpenFile(temporary(path), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	// Not every filesystem can; then the space is hoped for.
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, exitSize); err == unix.ENOSPC {
		_ = f.Close()
		_ = os.Remove(temporary(path))
		return nil, &os.PathError{Op: "fallocate", Path: path, Err: err}
	}
	return &exitFile{f, path}, nil
}

func temporary(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
}

// write leaves the exit status in the file, whole or not at all.
func (e *exitFile) write(exit monitor.Exit) error {
	defer func() { _ = e.file.Close() }()
	body, err := json.Marshal(exit)
	if err != nil {
		return err
	}
	if _, err := e.file.Write(body); err != nil {
		return err
	}
	return os.Rename(temporary(e.path), e.path)
}

// discard removes the file of a process that was not created.
func (e *exitFile) discard() {
	_ = e.file.Close()
	_ = os.Remove(temporary(e.path))
}
