package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"

	"github.com/davit-engine/davit/plugins/volume-local/fsmount"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/volume"
)

// Mount implements volume.Driver. The first consumer has the volume's filesystem
// mounted; a server that does not answer holds up only its own volume, and only
// until ctx or the driver's patience ends.
func (d *Driver) Mount(ctx context.Context, name, consumer string) (mount.Mount, error) {
	e, give, err := d.hold(ctx, name)
	if err != nil {
		return mount.Mount{}, err
	}
	if e.err != nil {
		give()
		return mount.Mount{}, e.err
	}
	m := mount.Mount{Type: "bind", Source: d.data(name), Options: []string{"rbind"}}
	if !mounted(e.Options) {
		defer give()
		return m, d.claim(e, consumer)
	}
	// A process that cannot be killed yet keeps the volume's turn, not its caller.
	done := make(chan error, 1)
	go func() {
		defer give()
		done <- d.attach(ctx, e, consumer)
	}()
	select {
	case err := <-done:
		return m, err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return m, err
	default:
		return m, fmt.Errorf("mounting volume %s: %w", name, ctx.Err())
	}
}

// claim notes a consumer of a volume whose data is there.
func (d *Driver) claim(e *entry, consumer string) error {
	if _, err := os.Lstat(d.data(e.Name)); err != nil && !mounted(e.Options) {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("the data of volume %s is gone, %s was removed by somebody else: %w", e.Name, d.data(e.Name), errdefs.ErrFailedPrecondition)
		}
		return err
	}
	if e.Options[optionSize] != "" && d.quota == nil {
		if size, err := sizeOf(e.Options); err != nil || size > 0 {
			return errdefs.ErrFailedPrecondition.WithMessage("size quota requested for volume but no quota support")
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e.claims[consumer] = true
	return nil
}

// attach mounts a volume's filesystem, unless it is mounted, and claims it. The
// caller has the volume's turn.
func (d *Driver) attach(ctx context.Context, e *entry, consumer string) error {
	there, err := isMounted(d.data(e.Name))
	if err != nil {
		return err
	}
	if there {
		return d.claim(e, consumer)
	}
	if err := os.MkdirAll(d.data(e.Name), 0o755); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, d.timeout, errSilent)
	defer cancel()
	err = d.mount(bounded, e)
	if err == nil {
		err = d.claim(e, consumer)
	}
	if err == nil {
		return nil
	}
	// The moment may have been that in which it was mounted.
	return errors.Join(err, fsmount.Unmount(d.data(e.Name)))
}

// errSilent tells the end of the driver's patience from that of the caller's.
var errSilent = errors.New("no answer")

// givenUp says why ctx ended.
func (d *Driver) givenUp(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return errdefs.ErrUnavailable.WithMessage(fmt.Sprintf("the server does not answer within %s", d.timeout))
	}
	return ctx.Err()
}

func (d *Driver) mount(ctx context.Context, e *entry) error {
	device, o, err := resolve(ctx, e.Options, net.DefaultResolver.LookupIPAddr)
	if err == nil {
		err = d.mounter(ctx, fsmount.Request{Source: device, Target: d.data(e.Name), Type: e.Options[optionType], Options: o})
		if ctx.Err() != nil {
			err = fmt.Errorf("mount %s:%s, data: %s: %w", device, d.data(e.Name), o, d.givenUp(ctx))
		}
	}
	if err == nil {
		return nil
	}
	return &mountError{withoutPassword("failed to mount local volume: "+err.Error(), e.Options[optionO]), err}
}

// mountError is Docker's frame around what the kernel says.
type mountError struct {
	text string
	err  error
}

func (e *mountError) Error() string { return e.text }
func (e *mountError) Unwrap() error { return e.err }

// Unmount implements volume.Driver. The last consumer's end takes the filesystem
// away.
func (d *Driver) Unmount(ctx context.Context, name, consumer string) error {
	e, give, err := d.hold(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer give()
	d.mu.Lock()
	delete(e.claims, consumer)
	d.mu.Unlock()
	return d.detach(e)
}

// detach unmounts what nobody uses. The caller has the volume's turn.
func (d *Driver) detach(e *entry) error {
	d.mu.Lock()
	used := len(e.claims) > 0 || !d.unclaimed
	d.mu.Unlock()
	if used || !mounted(e.Options) {
		return nil
	}
	return fsmount.Unmount(d.data(e.Name))
}

// Reconcile implements volume.Driver.
func (d *Driver) Reconcile(ctx context.Context, claims []volume.Claim) error {
	valid := map[string]map[string]bool{}
	for _, claim := range claims {
		if valid[claim.Volume] == nil {
			valid[claim.Volume] = map[string]bool{}
		}
		valid[claim.Volume][claim.Consumer] = true
	}
	d.mu.Lock()
	d.unclaimed = true
	all := make([]*entry, 0, len(d.all))
	for name, e := range d.all {
		e.claims = valid[name]
		if e.claims == nil {
			e.claims = map[string]bool{}
		}
		all = append(all, e)
	}
	d.mu.Unlock()
	var errs []error
	for _, e := range all {
		if !mounted(e.Options) {
			continue
		}
		// One that is being mounted is somebody's.
		select {
		case e.turn <- struct{}{}:
			errs = append(errs, d.detach(e))
			<-e.turn
		case <-ctx.Done():
			return errors.Join(append(errs, ctx.Err())...)
		default:
		}
	}
	return errors.Join(errs...)
}

// isMounted says whether something is mounted at a path, by the kernel's list: to
// look at the path itself may mean to wait for a server.
func isMounted(path string) (bool, error) {
	list, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	return len(list) > 0, err
}

// mountsBelow are the places below a directory, or at it, where something is
// mounted, the innermost first.
func mountsBelow(dir string) ([]string, error) {
	list, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("looking for mounts below %s: %w", dir, err)
	}
	var places []string
	for _, m := range list {
		places = append(places, m.Mountpoint)
	}
	slices.SortFunc(places, func(a, b string) int { return strings.Compare(b, a) })
	return places, nil
}

// unmountBelow leaves nothing mounted below a directory.
func unmountBelow(dir string) error {
	places, err := mountsBelow(dir)
	for _, place := range places {
		err = errors.Join(err, fsmount.Unmount(place))
	}
	return err
}
