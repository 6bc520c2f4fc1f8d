package native

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/placement"
)

// claim makes a container's directory. From then on a crash leaves an intent that
// sweep acts on.
func (d *Driver) claim(id string, place placement.Placement) (dir string, err error) {
	intent, err := place.Encode()
	if err != nil {
		return "", err
	}
	dir = d.dir(id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("container with ID %s is being created: %w", id, errdefs.ErrAlreadyExists)
		}
		return "", err
	}
	// Before there is an intent: undoing a creation kills what is in its cgroup. Whoever
	// else creates this container has the directory.
	if err = cgroup.Vacant(place.Cgroup); err == nil {
		err = os.WriteFile(filepath.Join(dir, "intent"), intent, 0o600)
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, rootfsName), 0o700)
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

// abandon undoes a creation that failed.
func (d *Driver) abandon(ctx context.Context, id string) {
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	d.poststop(cleanup, id)
	if err := d.undo(cleanup, id); err != nil {
		d.log.Error("undoing a failed creation", "container", id, "error", err)
	}
}

// sweep undoes creations that a crash of the driver cut off: directories without
// a record. It answers the IDs of the others.
func (d *Driver) sweep() (ids []string) {
	entries, err := os.ReadDir(d.run)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		if !entry.IsDir() || checkID(entry.Name()) != nil {
			continue
		}
		if _, err := d.load(entry.Name()); !errdefs.IsNotFound(err) {
			ids = append(ids, entry.Name())
			continue
		}
		ctx, cancel := context.WithTimeout(d.life, 10*time.Second)
		if err := d.undo(ctx, entry.Name()); err != nil {
			d.log.Error("undoing a creation that was cut off", "container", entry.Name(), "error", err)
		}
		cancel()
	}
	return ids
}

// undo removes a container of which there is only a directory. Where its cgroup is
// says the intent that Create leaves first.
func (d *Driver) undo(ctx context.Context, id string) error {
	d.forgetForeign(id)
	body, err := os.ReadFile(filepath.Join(d.dir(id), "intent"))
	if err == nil && len(body) > 0 {
		place, err := placement.Decode(body)
		if err == nil {
			// Without its container's init a monitor ends by itself.
			err = place.Discard(ctx)
		}
		if err != nil {
			return err
		}
	}
	if err := d.removeClass(id); err != nil {
		return err
	}
	return removeBusy(ctx, d.dir(id))
}

// removeBusy removes a directory in which a monitor that is ending may still make
// files.
func removeBusy(ctx context.Context, dir string) error {
	for {
		err := os.RemoveAll(dir)
		if !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(2 * time.Millisecond):
		}
	}
}
