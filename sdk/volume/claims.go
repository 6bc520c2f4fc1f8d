package volume

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
)

// Claims remembers who uses which volume. A driver embeds it to have Unmount and
// Reconcile; it forgets everything with the process, and the engine's Reconcile
// after every start brings it up to date. The zero value is ready to use.
type Claims struct {
	mu       sync.Mutex
	valid    map[Claim]struct{}
	removing sync.Mutex
}

// Claim notes that a consumer uses a volume.
func (c *Claims) Claim(name, consumer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.valid == nil {
		c.valid = make(map[Claim]struct{})
	}
	c.valid[Claim{Volume: name, Consumer: consumer}] = struct{}{}
}

// InUse is ErrFailedPrecondition naming a consumer while the volume has one.
func (c *Claims) InUse(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for claim := range c.valid {
		if claim.Volume == name {
			return fmt.Errorf("volume %s is mounted by %s: %w", name, claim.Consumer, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// RemoveUnused calls fn, which removes a volume or fails because there is none, unless
// the volume is in use: see InUse. Of several calls at once one is made after the
// other, so that one removes the volume and the others find none.
func (c *Claims) RemoveUnused(name string, fn func() error) error {
	c.removing.Lock()
	defer c.removing.Unlock()
	if err := c.InUse(name); err != nil {
		return err
	}
	return fn()
}

// Unmount implements [Driver] for drivers whose mounts need no undoing.
func (c *Claims) Unmount(_ context.Context, name, consumer string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.valid, Claim{Volume: name, Consumer: consumer})
	return nil
}

// Reconcile implements [Driver] for drivers whose mounts need no undoing.
func (c *Claims) Reconcile(_ context.Context, claims []Claim) error {
	valid := make(map[Claim]struct{}, len(claims))
	for _, claim := range claims {
		valid[claim] = struct{}{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.valid = valid
	return nil
}

// Base is what a driver embeds whose mounts need no undoing and who does not
// measure its volumes: it implements Unmount, Reconcile and Usage.
type Base struct{ Claims }

// Usage implements [Driver]: the size is not known.
func (*Base) Usage(context.Context, string) (Usage, error) { return Usage{Size: -1}, nil }
