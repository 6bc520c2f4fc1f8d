package supervise

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// createHooks runs the runtime's hooks that come before the container's root.
func (s *server) createHooks(pid int) error {
	hooks := s.config.Hooks
	if hooks == nil {
		return nil
	}
	state := hooks.State.At("creating", pid)
	if err := hook.Run(context.Background(), "prestart", hooks.Prestart, state, hooks.State.Bundle, s.reaper.start); err != nil {
		return err
	}
	return hook.Run(context.Background(), "createRuntime", hooks.CreateRuntime, state, hooks.State.Bundle, s.reaper.start)
}

// started runs the hooks that follow the container's program, once. Their failure
// is the container's end.
func (s *server) started() (err error) {
	hooks := s.config.Hooks
	if hooks == nil {
		return nil
	}
	s.poststart.Do(func() {
		err = hook.Run(context.Background(), "poststart", hooks.Poststart, hooks.State.At("running", s.init.pid), hooks.State.Bundle, s.reaper.start)
		if err != nil {
			_ = s.init.signal(int(unix.SIGKILL))
		}
	})
	return err
}
