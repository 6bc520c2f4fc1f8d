package plugin

import (
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
)

// allCapabilities in a manifest stands for every capability that the engine has: a
// runtime's containers cannot have more than it.
const allCapabilities = "ALL"

// bounds are the capabilities that a plugin may have at most, as its manifest
// declares them; nil stands for all.
func bounds(declared []string) ([]capability.Cap, error) {
	if slices.Contains(declared, allCapabilities) {
		return nil, nil
	}
	known := map[string]capability.Cap{}
	for _, c := range capability.ListKnown() {
		known["CAP_"+strings.ToUpper(c.String())] = c
	}
	list := make([]capability.Cap, 0, len(declared))
	for _, name := range declared {
		c, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("capability %q is neither one of Linux, like CAP_NET_ADMIN, nor %s", name, allCapabilities)
		}
		list = append(list, c)
	}
	return list, nil
}

// startBounded starts a program that can never have other capabilities than those,
// nor can what it starts.
func startBounded(cmd *exec.Cmd, list []capability.Cap) error {
	if list == nil {
		return cmd.Start()
	}
	started := make(chan error)
	go func() {
		// A thread's bounds only shrink, and its children inherit them: this one ends
		// with its goroutine, because it is never unlocked.
		runtime.LockOSThread()
		started <- func() error {
			bounded, err := capability.NewPid2(0)
			if err != nil {
				return err
			}
			bounded.Clear(capability.BOUNDING)
			bounded.Set(capability.BOUNDING, list...)
			if err := bounded.Apply(capability.BOUNDING); err != nil {
				return fmt.Errorf("dropping capabilities: %w", err)
			}
			return cmd.Start()
		}()
	}()
	return <-started
}
