package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/treecopy"
	"github.com/davit-engine/davit/sdk/volume"
)

var (
	_ volume.Cloner  = (*Driver)(nil)
	_ volume.Renamer = (*Driver)(nil)
	_ volume.Resizer = (*Driver)(nil)
)

// Clone implements volume.Cloner. The copy is made in the trash, from where the
// next start removes it if this one does not come to its end.
func (d *Driver) Clone(ctx context.Context, source, name string, labels map[string]string) (volume.Volume, error) {
	if err := checkName(name); err != nil {
		return volume.Volume{}, err
	}
	from, err := d.find(source)
	if err != nil {
		return volume.Volume{}, err
	}
	if mounted(from.Options) {
		return volume.Volume{}, notOurs(from, "copy")
	}
	d.mu.Lock()
	if e := d.all[name]; e != nil {
		defer d.mu.Unlock()
		if e.Source != source {
			return volume.Volume{}, fmt.Errorf("volume %s: %w", name, errdefs.ErrAlreadyExists)
		}
		return d.describe(e.record), nil
	}
	if e := d.all[source]; e == nil || e.use != from.use {
		defer d.mu.Unlock()
		return volume.Volume{}, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("get %s: no such volume", source))
	}
	from.copies++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		from.copies--
	}()
	r := record{Name: name, Source: source, Options: maps.Clone(from.Options), Labels: labels, Created: time.Now().UTC()}
	staging, err := os.MkdirTemp(d.trash(), "")
	if err != nil {
		return volume.Volume{}, err
	}
	err = d.copyInto(ctx, from, r, filepath.Join(staging, "volume"))
	if err == nil {
		err = d.place(r, filepath.Join(staging, "volume"))
	}
	if err = errors.Join(err, os.RemoveAll(staging)); err != nil {
		return volume.Volume{}, fmt.Errorf("cloning volume %s: %w", source, err)
	}
	v := d.describe(r)
	v.Fresh = true
	return v, nil
}

// notOurs refuses what a volume without data of the driver's own cannot have.
func notOurs(e *entry, what string) error {
	return fmt.Errorf("volume %s is a filesystem of type %q that is mounted, not the driver's to %s: %w", e.Name, e.Options[optionType], what, errdefs.ErrFailedPrecondition)
}

// copyInto makes a whole volume in a directory.
func (d *Driver) copyInto(ctx context.Context, from *entry, r record, dir string) error {
	data := filepath.Join(dir, "_data")
	if err := errors.Join(os.Mkdir(dir, 0o711), os.Mkdir(data, 0o700)); err != nil {
		return err
	}
	if err := d.limit(r, data); err != nil {
		return err
	}
	source, err := os.Open(d.data(from.Name))
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	into, err := os.Open(data)
	if err != nil {
		return err
	}
	defer func() { _ = into.Close() }()
	if err := treecopy.Copy(ctx, source, into); err != nil {
		return err
	}
	return write(dir, r)
}

// place puts a finished volume among the others.
func (d *Driver) place(r record, dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := moveTo(dir, d.dir(r.Name)); err != nil {
		return err
	}
	d.all[r.Name] = newEntry(r)
	return nil
}

// moveTo renames a volume's directory to a name that is free.
func moveTo(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("volume %s: %w", filepath.Base(to), errdefs.ErrAlreadyExists)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// Rename implements volume.Renamer. The directory's new name makes it so.
func (d *Driver) Rename(ctx context.Context, name, newName string) (volume.Volume, error) {
	if err := checkName(newName); err != nil {
		return volume.Volume{}, err
	}
	e, give, err := d.hold(ctx, name)
	if errdefs.IsNotFound(err) {
		if renamed, found := d.find(newName); found == nil {
			return d.describe(renamed.record), nil // by a call before
		}
	}
	if err != nil {
		return volume.Volume{}, err
	}
	defer give()
	if e.err != nil {
		return volume.Volume{}, e.err
	}
	if users := d.users(e); len(users) > 0 {
		return volume.Volume{}, fmt.Errorf("volume %s is used by %s: %w", name, strings.Join(users, ", "), errdefs.ErrFailedPrecondition)
	}
	// A mount that nobody uses would go on under a path that is wrong then.
	if err := unmountBelow(d.dir(name)); err != nil {
		return volume.Volume{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := moveTo(d.dir(name), d.dir(newName)); err != nil {
		return volume.Volume{}, err
	}
	r := e.record
	r.Name = newName
	delete(d.all, name)
	d.all[newName] = newEntry(r)
	if err := write(d.dir(newName), r); err != nil {
		d.log.Warn("writing a renamed volume's record", "volume", newName, "error", err)
	}
	return d.describe(r), nil
}

// Resize implements volume.Resizer.
func (d *Driver) Resize(ctx context.Context, name string, size int64) (volume.Volume, error) {
	if size < 0 {
		return volume.Volume{}, invalid("invalid size: '%d'", size)
	}
	e, give, err := d.hold(ctx, name)
	if err != nil {
		return volume.Volume{}, err
	}
	defer give()
	switch {
	case e.err != nil:
		return volume.Volume{}, e.err
	case mounted(e.Options):
		return volume.Volume{}, notOurs(e, "limit")
	case d.quota == nil:
		return volume.Volume{}, errdefs.ErrFailedPrecondition.WithMessage("quota size requested but no quota support")
	}
	if err := d.quota.Limit(d.data(name), uint64(size)); err != nil {
		return volume.Volume{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	options := maps.Clone(e.Options)
	if options == nil {
		options = map[string]string{}
	}
	if options[optionSize] = strconv.FormatInt(size, 10); size == 0 {
		delete(options, optionSize)
	}
	r := e.record
	r.Options = options
	if err := write(d.dir(name), r); err != nil {
		return volume.Volume{}, err
	}
	d.all[name] = &entry{record: r, use: e.use}
	return d.describe(r), nil
}
