package engine

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/sdk/runtime"
)

// notice listens to the runtime drivers for what befalls containers that go on
// running, until the engine ends.
func (e *Engine) notice() {
	for _, p := range e.Drivers.List() {
		if p.Kind == plugin.Runtime {
			e.inBackground(func(ctx context.Context) { e.noticeFrom(ctx, p.Driver) })
		}
	}
}

// noticeFrom listens to one driver over all its restarts. A driver without events
// is left alone.
func (e *Engine) noticeFrom(ctx context.Context, driver string) {
	if err := e.Drivers.Called(ctx, plugin.Runtime, driver); err != nil {
		return // the engine ends
	}
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		heard := false
		d, err := e.Drivers.Runtime(driver)
		if err == nil {
			err = d.Events(ctx, func(event runtime.Event) error {
				heard = true
				e.befell(event)
				return nil
			})
		}
		if ctx.Err() != nil || errdefs.IsNotImplemented(err) {
			return
		}
		if heard {
			pause = 50 * time.Millisecond
		}
		e.Log.Debug("listening to a runtime again", "driver", driver, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// befell acts on one event. The end of a container is not among them: whoever
// watches it waits for it, and misses nothing.
func (e *Engine) befell(event runtime.Event) {
	if event.Type != runtime.EventOOM {
		return
	}
	c, err := e.containers.Find(event.ID)
	if err != nil {
		return
	}
	alive := false
	// Its end writes it down for good.
	err = c.UpdateVolatile(func(r *container.Record) error {
		if alive = r.Status.Alive(); alive {
			r.OOMKilled = true
		}
		return nil
	})
	if err == nil && alive {
		e.containerEvent(c.Record(), events.ActionOOM, nil)
	}
}
