package sandbox

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// createHooks lets the parent run its hooks and runs those of the container that
// come before its root: they find their programs on the host.
func (s *stage) createHooks() error {
	hooks := s.Container.Hooks
	if hooks == nil {
		return nil
	}
	// Nothing of the stage's is for hooks.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return err
	}
	if _, err := unix.Write(SyncFD, []byte{MessageHooks}); err != nil {
		return err
	}
	if err := awaitParent(MessageHooks); err != nil {
		return err
	}
	return hook.Run(context.Background(), "createContainer", hooks.CreateContainer, hooks.State.At("creating", os.Getpid()), "/", hook.Fork)
}

// awaitParent waits for the parent's answer on the sync socket. Its end is the
// parent's failure, or its death: nobody wants the container any more.
func awaitParent(answer byte) error {
	var order [1]byte
	for {
		n, err := unix.Read(SyncFD, order[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 || order[0] != answer {
			os.Exit(1)
		}
		return nil
	}
}

// startHooks runs the hooks between the order to start and the program.
func (s *stage) startHooks() error {
	if s.Container == nil || s.Container.Hooks == nil {
		return nil
	}
	hooks := s.Container.Hooks
	return hook.Run(context.Background(), "startContainer", hooks.StartContainer, hooks.State.At("created", os.Getpid()), "/", hook.Fork)
}
