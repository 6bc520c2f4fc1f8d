package container

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// Status is where a container is in its life.
type Status string

// The statuses, in Docker's words.
const (
	Created    Status = "created"
	Running    Status = "running"
	Paused     Status = "paused"
	Restarting Status = "restarting" // ended, and its restart policy waits to start it again
	Removing   Status = "removing"
	Exited     Status = "exited"
	Dead       Status = "dead" // a removal failed half-way
)

// Event is what moves a container from one status to another.
type Event string

// The events, and who fires them.
const (
	EventStarted        Event = "started"         // start: execve has succeeded
	EventStartFailed    Event = "start failed"    // start
	EventExited         Event = "exited"          // exit watcher, recovery
	EventRestartPending Event = "restart pending" // exit watcher, by the restart policy
	EventPaused         Event = "paused"          // pause
	EventUnpaused       Event = "unpaused"        // unpause
	EventRemove         Event = "remove"          // remove
	EventRemoveFailed   Event = "remove failed"   // remove
)

// transitions is the whole state machine: what is not here cannot happen.
var transitions = map[Status]map[Event]Status{
	Created:    {EventStarted: Running, EventStartFailed: Created, EventRemove: Removing},
	Running:    {EventExited: Exited, EventRestartPending: Restarting, EventPaused: Paused, EventRemove: Removing},
	Paused:     {EventExited: Exited, EventRestartPending: Restarting, EventUnpaused: Running, EventRemove: Removing},
	Restarting: {EventStarted: Running, EventStartFailed: Exited, EventExited: Exited, EventRestartPending: Restarting, EventRemove: Removing},
	Exited:     {EventStarted: Running, EventStartFailed: Exited, EventRestartPending: Restarting, EventRemove: Removing},
	Removing:   {EventRemoveFailed: Dead, EventExited: Removing, EventRemove: Removing},
	Dead:       {EventRemove: Removing},
}

// Next answers the status after an event; ErrFailedPrecondition if the event
// cannot happen in this status.
func (s Status) Next(e Event) (Status, error) {
	next, ok := transitions[s][e]
	if !ok {
		return s, fmt.Errorf("a container that is %s cannot be %s: %w", s, e, errdefs.ErrFailedPrecondition)
	}
	return next, nil
}

// Alive says whether there is a process.
func (s Status) Alive() bool { return s == Running || s == Paused }
