package container

import (
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/console"
)

// forwarded are the signals that a foreground command hands on to the container.
// Each costs the Go runtime some switches between threads, so it is not all.
var forwarded = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT, unix.SIGTSTP}

// forwarder gets the signals that a foreground command hands on.
type forwarder struct {
	signals chan os.Signal
	ready   chan struct{} // closed when they come
}

// listen begins to take signals, beside whatever its caller does meanwhile: to
// start with each takes some switches between threads. Whoever does not come to
// attend is about to end this process.
func listen() *forwarder {
	f := &forwarder{make(chan os.Signal, 64), make(chan struct{})}
	go func() {
		signal.Notify(f.signals, forwarded...)
		close(f.ready)
	}()
	return f
}

// reap waits for a child.
func reap(pid int) func() unix.WaitStatus {
	return func() (status unix.WaitStatus) {
		for {
			if _, err := unix.Wait4(pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
				return status
			}
		}
	}
}

// attend executes a child and waits in the foreground for its end: it relays the
// terminal's master, if there is one, and forwards signals. It answers the exit status,
// 128 plus the signal for a killed one.
func (f *forwarder) attend(pid int, terminal *os.File, execute func() error, wait func() unix.WaitStatus) (int, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("opening process %d: %w", pid, err)
	}
	// Before the program runs: a signal that comes in between is not lost.
	<-f.ready
	if err := execute(); err != nil {
		if terminal != nil {
			_ = terminal.Close()
		}
		return -1, err
	}
	var relay *console.Relay
	if terminal != nil {
		signal.Notify(f.signals, unix.SIGWINCH)
		if relay, err = console.NewRelay(terminal); err != nil {
			return -1, err
		}
		defer relay.Close()
	}
	// Ends with this process, which is about to end when the child has: a signal to a
	// pidfd can reach nobody else.
	go func() {
		for s := range f.signals {
			if s == unix.SIGWINCH {
				relay.Resize()
			} else {
				_ = unix.PidfdSendSignal(pidfd, s.(unix.Signal), nil, 0)
			}
		}
	}()
	status := wait()
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// Run creates and starts a container. Attached, it waits for its end, removes it
// (unless keep is set) and answers its exit status.
func (r *Runtime) Run(o Create, keep bool) (int, error) {
	c, err := r.create(o, false)
	if err != nil {
		return -1, err
	}
	return c.run(o.Detach, keep)
}

// run is what follows a container's making.
func (c *Created) run(detach, keep bool) (int, error) {
	if detach {
		if err := c.execute(); err != nil {
			return -1, err
		}
		c.dir.Close()
		return 0, nil
	}
	status, err := c.forwarder.attend(c.PID, c.terminal, func() error {
		if err := c.execute(); err != nil {
			return err
		}
		c.dir.Close() // others may work on the container while it runs
		return nil
	}, c.wait)
	if err != nil || keep {
		return status, err
	}
	return status, c.runtime.Delete(c.ID, true)
}

// execute starts the program of a container just created by this process, or
// undoes the creation.
func (c *Created) execute() (err error) {
	if c.tree != nil {
		err = c.tree.Execute()
	} else {
		err = named(c.child.Execute())
	}
	if err == nil {
		err = started(c.Record)
	}
	if err != nil {
		return errors.Join(err, c.undo())
	}
	return nil
}

// wait waits for the container's init.
func (c *Created) wait() unix.WaitStatus {
	if c.tree != nil {
		return <-c.tree.Ended
	}
	return reap(c.PID)()
}
