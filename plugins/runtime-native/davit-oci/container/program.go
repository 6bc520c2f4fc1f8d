package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/launch"
)

// clone starts a stage from its program as a mount shows it that nobody can write
// through: a container that gets hold of its init's program (/proc/<pid>/exe, or
// a script that names it) holds nothing of the host's.
func clone(stage launch.Stage) (*launch.Child, error) {
	fd, err := openProgram(programs())
	if err != nil {
		return nil, fmt.Errorf("cloning the mount of the stage's program: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}); err != nil {
		return nil, fmt.Errorf("write-protecting the stage's program: %w", err)
	}
	stage.Executable = fd
	return stage.Start()
}

// programs are the paths of what can be the stage, the best one first: the
// monitor that is installed with this program contains the stage and little
// else, and starts in half the time. This program itself is always there.
func programs() []string {
	const running = "/proc/self/exe"
	self, err := os.Executable()
	if err != nil {
		return []string{running}
	}
	dir := filepath.Dir(self)
	return []string{filepath.Join(dir, "davit-monitor"), filepath.Join(filepath.Dir(dir), "lib", "davit", "davit-monitor"), running}
}

// openProgram answers a mount of its own of the first of the files that exists.
func openProgram(paths []string) (fd int, err error) {
	for _, path := range paths {
		fd, err = unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			break
		}
	}
	return fd, err
}
