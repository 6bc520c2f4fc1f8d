// Package placement says where a container's cgroup is and has it made there: by
// davit itself in the file system, or by systemd as a scope unit. It is what Docker
// calls the cgroup driver.
package placement

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/systemd"
	"github.com/davit-engine/davit/sdk/monitor/fork"
)

// Placement is a cgroup that is or will be somewhere.
type Placement struct {
	// Cgroup is its path below each hierarchy.
	Cgroup string `json:"cgroup"`
	// Scope is the unit whose cgroup it is; nil for one made in the file system.
	Scope *systemd.Scope `json:"scope,omitempty"`
}

// InScope is the placement of a scope unit.
func InScope(scope systemd.Scope) Placement { return Placement{scope.Path(), &scope} }

// Decode reads what [Placement.Encode] wrote. A path alone is one in the file
// system.
func Decode(text []byte) (Placement, error) {
	if bytes.HasPrefix(text, []byte("/")) {
		return Placement{Cgroup: string(text)}, nil
	}
	var p Placement
	if err := json.Unmarshal(text, &p); err != nil || p.Cgroup == "" {
		return p, errors.Join(fmt.Errorf("%q does not say where a cgroup is", text), err)
	}
	return p, nil
}

// Encode words the placement for a file.
func (p Placement) Encode() ([]byte, error) {
	if p.Scope == nil {
		return []byte(p.Cgroup), nil
	}
	return json.Marshal(p)
}

// Hold keeps a scope alive that has no process of its container's yet; nil holds
// nothing.
type Hold struct{ idle *fork.Idle }

// Release lets the scope end with its last process.
func (h *Hold) Release() {
	if h != nil && h.idle != nil {
		h.idle.End()
		h.idle = nil
	}
}

// Create makes the group with its limits. It is to be released when its first
// process is in it. On error there is no group.
func (p Placement) Create(ctx context.Context, description string, r *specs.LinuxResources, annotations map[string]string) (*cgroup.Group, *Hold, error) {
	if p.Scope == nil {
		group, err := cgroup.Create(p.Cgroup, r)
		return group, nil, err
	}
	idle, err := fork.NewIdle()
	if err != nil {
		return nil, nil, err
	}
	hold := &Hold{idle}
	if err := p.Scope.Start(ctx, idle.PID, description, r, annotations); err != nil {
		hold.Release()
		return nil, nil, err
	}
	group, err := cgroup.Create(p.Cgroup, r)
	if err != nil {
		hold.Release()
		return nil, nil, errors.Join(err, p.Remove(context.WithoutCancel(ctx)))
	}
	return group, hold, nil
}

// Ensure makes a group without limits for several owners, unless it is there.
func (p Placement) Ensure(ctx context.Context, description string) (*cgroup.Group, *Hold, error) {
	var hold *Hold
	if p.Scope != nil {
		if group, err := cgroup.Open(p.Cgroup); err == nil {
			if pids, err := group.Procs(); err == nil && len(pids) > 0 {
				return group, nil, nil
			}
		}
		idle, err := fork.NewIdle()
		if err != nil {
			return nil, nil, err
		}
		hold = &Hold{idle}
		if err := p.Scope.Ensure(ctx, idle.PID, description); err != nil {
			hold.Release()
			return nil, nil, err
		}
	}
	group, err := cgroup.Create(p.Cgroup, nil)
	if err != nil {
		hold.Release()
		return nil, nil, err
	}
	return group, hold, nil
}

// Update changes limits of the group; those that r does not name stay.
func (p Placement) Update(ctx context.Context, r *specs.LinuxResources) error {
	group, err := cgroup.Open(p.Cgroup)
	if err != nil {
		return err
	}
	// The kernel is asked first: it refuses what cannot be, and takes all or nothing.
	if err := group.Update(r); err != nil || p.Scope == nil {
		return err
	}
	if err := p.Scope.Update(ctx, group, r); err != nil {
		return err
	}
	// systemd has written its own words for them, which are not always as exact.
	return group.Update(r)
}

// Discard ends the processes of the group and removes it. One that is not there is no
// error.
func (p Placement) Discard(ctx context.Context) error {
	group, err := cgroup.Open(p.Cgroup)
	if err == nil {
		err = group.Kill()
	}
	if ignoreMissing(err) != nil {
		return fmt.Errorf("killing what is left in cgroup %s: %w", p.Cgroup, err)
	}
	return p.Remove(ctx)
}

// Remove removes the group, in which nothing lives any more but is perhaps just
// dying.
func (p Placement) Remove(ctx context.Context) error {
	if p.Scope != nil {
		if err := p.empty(ctx); err != nil {
			return err
		}
		if err := p.Scope.Stop(ctx); err != nil {
			return err
		}
		// systemd removes what it has made, which is not every hierarchy of v1.
	}
	for {
		group, err := cgroup.Open(p.Cgroup)
		if err == nil {
			err = group.Delete(ctx)
		}
		if !errors.Is(err, unix.EBUSY) || ctx.Err() != nil {
			return ignoreMissing(err)
		}
	}
}

// empty waits for the last process: to one that lives when its unit is stopped
// systemd is polite.
func (p Placement) empty(ctx context.Context) error {
	for delay := 100 * time.Microsecond; ; delay = min(2*delay, 20*time.Millisecond) {
		group, err := cgroup.Open(p.Cgroup)
		if err != nil {
			return ignoreMissing(err)
		}
		pids, err := group.Procs()
		if err != nil || len(pids) == 0 {
			return ignoreMissing(err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v in cgroup %s do not end: %w", pids, p.Cgroup, ctx.Err())
		case <-time.After(delay):
		}
	}
}

func ignoreMissing(err error) error {
	if errdefs.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
