// Package local is davit's default volume driver: a volume is a directory below
// the driver's root or, with the options type, device and o, a filesystem that
// is mounted there as long as a container uses it.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/plugins/volume-local/fsmount"
	"github.com/davit-engine/davit/plugins/volume-local/projquota"
	"github.com/davit-engine/davit/sdk/volume"
)

// Options are what a driver is made of.
type Options struct {
	Root string // where the volumes are
	// MountTimeout is how long a server may take to answer; 30 s.
	MountTimeout time.Duration
	Log          hclog.Logger // nil: nothing is logged
}

// Driver implements volume.Driver.
type Driver struct {
	root    string
	timeout time.Duration
	log     hclog.Logger
	mounter func(context.Context, fsmount.Request) error
	quota   *projquota.Control // nil where the filesystem holds no limits

	mu  sync.Mutex // never held while waiting for anything
	all map[string]*entry
	// unclaimed says that mounts without a claim are nobody's: the engine has named
	// all claims, or there was no mount before it could.
	unclaimed bool
}

// entry is a volume in memory. It is replaced, not changed.
type entry struct {
	record
	err error // why it cannot be used
	*use
}

// use is what goes on with a volume.
type use struct {
	turn chan struct{} // held by who changes the volume's mount, or the volume
	// Under the driver's lock: the consumers, which are the engine's to know and to
	// say after a restart, and the clones that are being made.
	claims map[string]bool
	copies int
}

func newEntry(r record) *entry {
	return &entry{record: r, use: &use{turn: make(chan struct{}, 1), claims: map[string]bool{}}}
}

// hold waits for the turn of a volume; give gives it back.
func (d *Driver) hold(ctx context.Context, name string) (e *entry, give func(), err error) {
	for {
		if e, err = d.look(name); err != nil {
			return nil, nil, err
		}
		select {
		case e.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("volume %s is busy: %w", name, ctx.Err())
		}
		again, err := d.look(name)
		if err == nil && again.use == e.use {
			return again, func() { <-e.turn }, nil
		}
		<-e.turn // removed, and perhaps made anew, while we waited
	}
}

// New opens the volumes below a directory and finishes removals and undoes
// creations that were cut off. A volume whose record is damaged is not usable,
// and keeps its data.
func New(o Options) (*Driver, error) {
	d := &Driver{root: o.Root, timeout: o.MountTimeout, log: o.Log, mounter: fsmount.Mount, all: map[string]*entry{}}
	if d.timeout <= 0 {
		d.timeout = 30 * time.Second
	}
	if d.log == nil {
		d.log = hclog.NewNullLogger()
	}
	if err := errors.Join(os.MkdirAll(d.dir(""), 0o711), os.MkdirAll(d.trash(), 0o700)); err != nil {
		return nil, err
	}
	if err := d.emptyTrash(); err != nil {
		return nil, err
	}
	quota, err := projquota.Open(d.dir(""))
	if err == nil {
		d.quota = quota
	} else {
		d.log.Debug("volumes cannot be limited", "error", err)
	}
	entries, err := os.ReadDir(d.dir(""))
	if err != nil {
		return nil, err
	}
	for _, found := range entries {
		r, err := read(d.dir(found.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			var undone bool
			if r, undone, err = d.adopt(found.Name()); undone {
				continue
			}
		}
		r.Name = found.Name() // the directory's: a rename may have been cut off before the record's
		d.all[r.Name] = newEntry(r)
		if err != nil {
			d.all[r.Name].err = fmt.Errorf("%w: %w", err, errdefs.ErrInternal)
			d.log.Error("a volume cannot be used", "volume", r.Name, "error", err)
		}
	}
	left, err := mountsBelow(d.dir(""))
	d.unclaimed = len(left) == 0
	return d, err
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)

func checkName(name string) error {
	if len(name) == 1 {
		return invalid("volume name is too short, names should be at least two alphanumeric characters")
	}
	if !validName.MatchString(name) {
		return invalid("%q includes invalid characters for a local volume name, only %q are allowed. If you intended to pass a host directory, use absolute path", name, "[a-zA-Z0-9][a-zA-Z0-9_.-]")
	}
	return nil
}

// Create implements volume.Driver.
func (d *Driver) Create(_ context.Context, name string, options, labels map[string]string) (volume.Volume, error) {
	if err := checkName(name); err != nil {
		return volume.Volume{}, err
	}
	if err := checkOptions(options, d.quota != nil); err != nil {
		return volume.Volume{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.all[name]; e != nil {
		if e.err == nil && len(options) > 0 && !maps.Equal(options, e.Options) {
			return volume.Volume{}, fmt.Errorf("volume %s exists with other options: %w", name, errdefs.ErrAlreadyExists)
		}
		return d.describe(e.record), e.err
	}
	r := record{Name: name, Options: options, Labels: labels, Created: time.Now().UTC()}
	if err := d.make(r); err != nil {
		return volume.Volume{}, errors.Join(fmt.Errorf("error while creating volume root path '%s': %w", d.dir(name), err), os.RemoveAll(d.dir(name)))
	}
	d.all[name] = newEntry(r)
	v := d.describe(r)
	v.Fresh = true
	return v, nil
}

// make makes a volume's directories, its record last.
func (d *Driver) make(r record) error {
	if err := os.Mkdir(d.dir(r.Name), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(d.data(r.Name), 0o755); err != nil {
		return err
	}
	if err := d.limit(r, d.data(r.Name)); err != nil {
		return err
	}
	return write(d.dir(r.Name), r)
}

// limit holds a volume's directory to its option size.
func (d *Driver) limit(r record, dir string) error {
	size, err := sizeOf(r.Options)
	if err != nil || size == 0 {
		return err
	}
	if d.quota == nil {
		return errdefs.ErrFailedPrecondition.WithMessage("size quota requested for volume but no quota support")
	}
	return d.quota.Limit(dir, size)
}

// look answers a volume, be it one that cannot be used.
func (d *Driver) look(name string) (*entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.all[name]; e != nil {
		return e, nil
	}
	return nil, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("get %s: no such volume", name))
}

// find answers a volume that can be used.
func (d *Driver) find(name string) (*entry, error) {
	e, err := d.look(name)
	if err == nil {
		err = e.err
	}
	return e, err
}

// Get implements volume.Driver.
func (d *Driver) Get(_ context.Context, name string) (volume.Volume, error) {
	e, err := d.find(name)
	if err != nil {
		return volume.Volume{}, err
	}
	return d.describe(e.record), nil
}

// List implements volume.Driver.
func (d *Driver) List(context.Context) ([]volume.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]volume.Volume, 0, len(d.all))
	for _, e := range d.all {
		list = append(list, d.describe(e.record))
	}
	return list, nil
}

// Remove implements volume.Driver. A volume whose record is damaged can be
// removed, too.
func (d *Driver) Remove(ctx context.Context, name string) error {
	e, give, err := d.hold(ctx, name)
	if err != nil {
		return err
	}
	defer give()
	if users := d.users(e); len(users) > 0 {
		return fmt.Errorf("volume %s is used by %s: %w", name, strings.Join(users, ", "), errdefs.ErrFailedPrecondition)
	}
	if d.quota != nil && e.Options[optionSize] != "" {
		if err := d.quota.Limit(d.data(name), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("taking a limit away", "volume", name, "error", err)
		}
	}
	doomed, err := d.bury(name)
	if err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.all, name)
	d.mu.Unlock()
	return os.RemoveAll(doomed)
}

// bury moves a volume's directory to the trash, from where the next start removes
// it in any case. What is mounted in it is not the volume's to remove.
func (d *Driver) bury(name string) (doomed string, err error) {
	if err := unmountBelow(d.dir(name)); err != nil {
		return "", err
	}
	doomed, err = os.MkdirTemp(d.trash(), "")
	if err != nil {
		return "", err
	}
	if err := os.Rename(d.dir(name), filepath.Join(doomed, "volume")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", errors.Join(err, os.Remove(doomed))
	}
	return doomed, nil
}

// adopt looks at a directory without a record. It is left of a creation that was
// cut off, and then empty and undone here; or somebody lost its record, and its
// data is kept as a volume without options.
func (d *Driver) adopt(name string) (r record, undone bool, err error) {
	for _, path := range []string{filepath.Join(d.dir(name), recordName+".new"), d.data(name), d.dir(name)} {
		if err = os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return r, true, nil
	}
	info, err := os.Stat(d.data(name))
	if err != nil {
		return r, false, err
	}
	d.log.Warn("a volume's record is lost: it has no options and labels any more", "volume", name)
	r = record{Name: name, Created: info.ModTime()}
	return r, false, write(d.dir(name), r)
}

// emptyTrash finishes removals.
func (d *Driver) emptyTrash() error {
	if err := unmountBelow(d.trash()); err != nil {
		return err
	}
	left, err := os.ReadDir(d.trash())
	if err != nil {
		return err
	}
	for _, doomed := range left {
		if err := os.RemoveAll(filepath.Join(d.trash(), doomed.Name())); err != nil {
			return err
		}
	}
	return nil
}

// users are the consumers of a volume, in order, and the clones being made of it.
func (d *Driver) users(e *entry) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	users := slices.Sorted(maps.Keys(e.claims))
	if e.copies > 0 {
		users = append(users, "a clone that is being made")
	}
	return users
}
