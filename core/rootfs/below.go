package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/openat2"
)

// OpenBelow holds, with O_PATH, what a subpath names below a directory that
// containers write to. Links that stay below it are followed; one that leads out is
// refused, and something that is not there is, in Docker's words.
func OpenBelow(dir, subpath string) (*os.File, error) {
	base, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, notAccessible(dir, err)
	}
	defer func() { _ = unix.Close(base) }()
	fd, err := openat2.Open(base, subpath, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
	if errors.Is(err, unix.EXDEV) {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("path concatenation escapes the base directory, base: %s, subpath: %s", dir, subpath))
	}
	if err != nil {
		return nil, notAccessible(path.Join(dir, subpath), err)
	}
	return os.NewFile(uintptr(fd), path.Join(dir, subpath)), nil
}

func notAccessible(path string, err error) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("cannot access path %s: %v", path, err))
}
