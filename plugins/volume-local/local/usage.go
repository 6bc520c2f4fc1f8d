package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/davit-engine/davit/sdk/volume"
)

// Usage implements volume.Driver: the sum of the sizes of a volume's files, each
// counted once whatever its names, directories not. Filesystems that are mounted
// are not measured.
func (d *Driver) Usage(ctx context.Context, name string) (volume.Usage, error) {
	e, err := d.find(name)
	if err != nil {
		return volume.Usage{}, err
	}
	if mounted(e.Options) {
		return volume.Usage{Size: -1}, nil
	}
	size, err := sizeBelow(ctx, d.data(name))
	return volume.Usage{Size: size}, err
}

func sizeBelow(ctx context.Context, dir string) (int64, error) {
	root, err := os.OpenRoot(dir) // containers write below it: no link leads out
	if err != nil {
		return 0, err
	}
	defer func() { _ = root.Close() }()
	type inode struct{ dev, ino uint64 }
	var size int64
	counted := map[inode]bool{}
	err = fs.WalkDir(root.FS(), ".", func(name string, found fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if name != "." && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)) {
			return nil // gone, or something else, since it was listed
		}
		if err != nil || found.IsDir() {
			return err
		}
		info, err := found.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); st.Nlink > 1 {
			id := inode{st.Dev, st.Ino}
			if counted[id] {
				return nil
			}
			counted[id] = true
		}
		size += info.Size()
		return nil
	})
	return size, err
}
