package snapdir

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/davit-engine/davit/sdk/storage"
)

// Measure answers what a tree occupies on the disk. Hard links are counted once, and
// what somebody deletes meanwhile is no error.
func Measure(ctx context.Context, tree string) (storage.Usage, error) {
	var usage storage.Usage
	seen := map[uint64]bool{}
	err := filepath.WalkDir(tree, func(_ string, found fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return ignoreMissing(err)
		}
		info, err := found.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if st.Nlink > 1 && !found.IsDir() {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		usage.Inodes++
		usage.Size += st.Blocks * 512
		return nil
	})
	return usage, err
}

// ignoreMissing lets a walk go on where a container has deleted something.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
