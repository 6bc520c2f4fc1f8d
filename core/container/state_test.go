package container

import (
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
)

var (
	statuses  = []Status{Created, Running, Paused, Restarting, Removing, Exited, Dead}
	happening = []Event{EventStarted, EventStartFailed, EventExited, EventRestartPending, EventPaused, EventUnpaused, EventRemove, EventRemoveFailed}
)

// The machine once more, as a table to read: a row for each status, a column for
// each event. A change of the one is a change of the other.
func TestEveryEventInEveryStatus(t *testing.T) {
	const no = Status("")
	table := map[Status][]Status{
		//           started  failed   exited   restart     paused  unpaused remove    remove failed
		Created:    {Running, Created, no, no, no, no, Removing, no},
		Running:    {no, no, Exited, Restarting, Paused, no, Removing, no},
		Paused:     {no, no, Exited, Restarting, no, Running, Removing, no},
		Restarting: {Running, Exited, Exited, Restarting, no, no, Removing, no},
		Removing:   {no, no, Removing, no, no, no, Removing, Dead},
		Exited:     {Running, Exited, no, Restarting, no, no, Removing, no},
		Dead:       {no, no, no, no, no, no, Removing, no},
	}
	if len(table) != len(statuses) || len(transitions) != len(statuses) {
		t.Fatalf("%d and %d statuses, want %d", len(table), len(transitions), len(statuses))
	}
	for _, from := range statuses {
		for i, event := range happening {
			want := table[from][i]
			t.Run(fmt.Sprintf("%s, %s", from, event), func(t *testing.T) {
				got, err := from.Next(event)
				switch {
				case want != no && (err != nil || got != want):
					t.Errorf("becomes %s, %v; want %s", got, err, want)
				case want == no && (!errdefs.IsFailedPrecondition(err) || got != from):
					t.Errorf("becomes %s, %v; want a refusal that changes nothing", got, err)
				}
			})
		}
	}
}

func TestARefusedEventSaysWhatAndWhy(t *testing.T) {
	_, err := Exited.Next(EventPaused)
	if want := "a container that is exited cannot be paused: failed precondition"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestWhatIsUnknownCannotHappen(t *testing.T) {
	for status, event := range map[Status]Event{"nosuch": EventRemove, Running: "nosuch", "": EventStarted} {
		if next, err := status.Next(event); !errdefs.IsFailedPrecondition(err) || next != status {
			t.Errorf("%q in %q: %q, %v", event, status, next, err)
		}
	}
}

func TestOnlyRunningAndPausedHaveAProcess(t *testing.T) {
	for _, status := range statuses {
		if want := status == Running || status == Paused; status.Alive() != want {
			t.Errorf("a process while %s is %v", status, status.Alive())
		}
	}
}

// Whatever happened, a user can get rid of a container.
func TestEveryContainerCanBeRemoved(t *testing.T) {
	for _, status := range statuses {
		if next, err := status.Next(EventRemove); err != nil || next != Removing {
			t.Errorf("removing one that is %s: %s, %v", status, next, err)
		}
	}
}
