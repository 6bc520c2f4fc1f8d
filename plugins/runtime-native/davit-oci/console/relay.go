package console

import (
	"io"
	"os"

	"github.com/moby/term"
)

// Relay connects a terminal's master with this process's own standard streams,
// its terminal in raw mode.
type Relay struct {
	master *os.File
	before *term.State // nil if standard input is no terminal
	done   chan struct{}
}

// NewRelay begins to copy. Copying input ends with this process: a read from a
// terminal cannot be called off.
func NewRelay(master *os.File) (*Relay, error) {
	r := &Relay{master: master, done: make(chan struct{})}
	if term.IsTerminal(os.Stdin.Fd()) {
		before, err := term.SetRawTerminal(os.Stdin.Fd())
		if err != nil {
			return nil, err
		}
		r.before = before
		r.Resize()
	}
	go func() { _, _ = io.Copy(master, os.Stdin) }()
	go func() {
		defer close(r.done)
		_, _ = io.Copy(os.Stdout, master) // ends with EIO when nobody has the other end
	}()
	return r, nil
}

// Resize gives the terminal the size of this process's own.
func (r *Relay) Resize() {
	if r.before == nil {
		return
	}
	if size, err := term.GetWinsize(os.Stdin.Fd()); err == nil {
		_ = term.SetWinsize(r.master.Fd(), size)
	}
}

// Close waits for the output's end and restores this process's terminal.
func (r *Relay) Close() {
	<-r.done
	if r.before != nil {
		_ = term.RestoreTerminal(os.Stdin.Fd(), r.before)
	}
	_ = r.master.Close()
}
