package monitor

import "golang.org/x/sys/unix"

// Trace is what was done when on the way to a container, by driver, monitor and
// stage. A nil trace records nothing.
type Trace struct {
	Marks []Mark `json:"marks,omitempty"`
}

// Mark is the end of a step.
type Mark struct {
	Done string `json:"done"`
	At   int64  `json:"at"` // microseconds of CLOCK_MONOTONIC, which all processes share
}

// Done records that a step is over.
func (t *Trace) Done(what string) {
	if t == nil {
		return
	}
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // this clock is always there
	t.Marks = append(t.Marks, Mark{what, now.Nano() / 1000})
}

// Add takes over what others recorded meanwhile.
func (t *Trace) Add(other *Trace) {
	if t != nil && other != nil {
		t.Marks = append(t.Marks, other.Marks...)
	}
}
