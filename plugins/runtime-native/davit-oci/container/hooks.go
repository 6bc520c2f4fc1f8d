package container

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/record"
	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// stageHooks are those that the stage runs inside the container; nil for none at
// all, which spares it from asking for the runtime's.
func stageHooks(h *hook.Set) *hook.Set {
	if h == nil {
		return nil
	}
	return &hook.Set{CreateContainer: h.CreateContainer, StartContainer: h.StartContainer, State: h.State}
}

// createHooks runs the runtime's hooks that come before the container's root.
func (c *Created) createHooks(pid int) error {
	state, bundle := c.Hooks.State.At("creating", pid), c.Bundle
	if err := hook.Run(context.Background(), "prestart", c.Hooks.Prestart, state, bundle, hook.Fork); err != nil {
		return err
	}
	return hook.Run(context.Background(), "createRuntime", c.Hooks.CreateRuntime, state, bundle, hook.Fork)
}

// started runs the hooks that follow the container's program. Their failure is
// the container's end.
func started(c *record.Record) error {
	if c.Hooks == nil {
		return nil
	}
	err := hook.Run(context.Background(), "poststart", c.Hooks.Poststart, c.Hooks.State.At("running", c.PID), c.Bundle, hook.Fork)
	if err != nil {
		_ = unix.Kill(c.PID, unix.SIGKILL)
	}
	return err
}

// poststop runs the hooks of a container that has gone. A failure is only a
// warning (runtime-spec, "Lifecycle").
func (r *Runtime) poststop(c *record.Record) {
	if c.Hooks == nil {
		return
	}
	if err := hook.RunAll(context.Background(), "poststop", c.Hooks.Poststop, c.Hooks.State.At("stopped", 0), c.Bundle, hook.Fork); err != nil {
		r.Warn("poststop hooks of container %s: %v", c.ID, err)
	}
}
