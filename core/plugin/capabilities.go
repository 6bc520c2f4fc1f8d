package plugin

import (
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
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
	var err error
	onThreadOfItsOwn(func() { err = bound(cmd, list) })
	return err
}

// bound starts a program after it took capabilities from the thread that calls it,
// whose children inherit what is left.
func bound(cmd *exec.Cmd, list []capability.Cap) error {
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
}

// onThreadOfItsOwn runs fn on a thread that ends with it, and that is not the
// process's first: that one cannot end, and shows as the whole process in /proc.
func onThreadOfItsOwn(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // without Unlock the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			onThreadOfItsOwn(fn) // somewhere else, as long as this one is held
			return
		}
		fn()
	}()
	<-done
}
