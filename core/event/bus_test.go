package event

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/events"

	"github.com/davit-engine/davit/core/filter"
)

var (
	errEnough = errors.New("enough")
	epoch     = time.Unix(1, 0) // before every event
)

// emit emits events of one container each, named by their IDs, at times that
// differ.
func emit(b *Bus, ids ...string) {
	for _, id := range ids {
		for before := time.Now(); !time.Now().After(before); { // the clock may be coarse
			runtime.Gosched()
		}
		b.Emit(events.Message{Type: events.ContainerEventType, Action: "start", Actor: events.Actor{ID: id}})
	}
}

func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// past are the events that a stream begins with.
func past(t *testing.T, b *Bus, since, until time.Time, f filter.Args) []events.Message {
	t.Helper()
	if until.IsZero() {
		until = time.Now()
	}
	var list []events.Message
	if err := b.Stream(patience(t), since, until, f, func(m events.Message) error { list = append(list, m); return nil }); err != nil {
		t.Fatal(err)
	}
	return list
}

func ids(list []events.Message) string {
	var names []string
	for _, m := range list {
		names = append(names, m.Actor.ID)
	}
	return strings.Join(names, " ")
}

func TestEventsAreStamped(t *testing.T) {
	b := NewBus()
	before := time.Now()
	b.Emit(events.Message{Type: events.VolumeEventType, Scope: "swarm", TimeNano: 1})
	b.Emit(events.Message{Type: events.VolumeEventType})
	list := past(t, b, epoch, time.Time{}, nil)
	if len(list) != 2 || list[0].Scope != "swarm" || list[1].Scope != "local" {
		t.Fatalf("events %+v", list)
	}
	for _, m := range list {
		if at := time.Unix(0, m.TimeNano); at.Before(before.Round(0)) || at.After(time.Now()) || m.Time != at.Unix() {
			t.Errorf("event at %v, %d", at, m.Time)
		}
	}
}

func TestThePastIsCutOutByTime(t *testing.T) {
	b := NewBus()
	emit(b, "a", "b", "c", "d")
	all := past(t, b, epoch, time.Time{}, nil)
	if ids(all) != "a b c d" {
		t.Fatalf("events %s", ids(all))
	}
	at := func(i int) time.Time { return time.Unix(0, all[i].TimeNano) }
	for name, c := range map[string]struct {
		since, until time.Time
		want         string
	}{
		"since one":          {at(1), time.Time{}, "b c d"},
		"since just after":   {at(1).Add(1), time.Time{}, "c d"},
		"until one":          {epoch, at(2), "a b c"},
		"until just before":  {epoch, at(2).Add(-1), "a b"},
		"between":            {at(1), at(2), "b c"},
		"one":                {at(1), at(1), "b"},
		"since the future":   {time.Now().Add(time.Hour), time.Time{}, ""},
		"until before since": {at(3), at(0), ""},
		"without since":      {time.Time{}, at(3), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ids(past(t, b, c.since, c.until, nil)); got != c.want {
				t.Errorf("events %q, want %q", got, c.want)
			}
		})
	}
}

func TestThePastIsFilteredToo(t *testing.T) {
	b := NewBus()
	emit(b, "a", "b", "a")
	if got := ids(past(t, b, epoch, time.Time{}, filter.Args{"container": {"a"}})); got != "a a" {
		t.Errorf("events %q", got)
	}
}

func TestOnlyTheRecentPastIsKept(t *testing.T) {
	b := NewBus()
	var want []string
	for i := range 2*history + 10 {
		b.Emit(events.Message{Type: events.ContainerEventType, Actor: events.Actor{ID: fmt.Sprint(i)}})
		if i >= history+10 {
			want = append(want, fmt.Sprint(i))
		}
	}
	if got := ids(past(t, b, epoch, time.Time{}, nil)); got != strings.Join(want, " ") {
		t.Errorf("events %.40q…", got)
	}
}

func TestThePastGoesOverIntoThePresent(t *testing.T) {
	b := NewBus()
	emit(b, "old")
	ready := make(chan struct{}) // the past is only sent to whoever listens already
	go func() {
		<-ready
		emit(b, "x", "new")
	}()
	var got []string
	err := b.Stream(patience(t), epoch, time.Time{}, filter.Args{"container": {"old", "new"}}, func(m events.Message) error {
		got = append(got, m.Actor.ID)
		if m.Actor.ID == "old" {
			close(ready)
			return nil
		}
		return errEnough
	})
	if !errors.Is(err, errEnough) || !cmp.Equal(got, []string{"old", "new"}) {
		t.Errorf("events %q, %v", got, err)
	}
	if len(b.subscribers) != 0 {
		t.Errorf("%d subscribers are left", len(b.subscribers))
	}
}

func TestAStreamEndsWithItsContextOrAnError(t *testing.T) {
	b := NewBus()
	emit(b, "a", "b")
	ctx, cancel := context.WithCancel(context.Background())
	if err := b.Stream(ctx, epoch, time.Time{}, nil, func(m events.Message) error {
		if m.Actor.ID == "b" {
			cancel()
		}
		return nil
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	seen := 0
	if err := b.Stream(patience(t), epoch, time.Time{}, nil, func(events.Message) error { seen++; return errEnough }); !errors.Is(err, errEnough) || seen != 1 {
		t.Errorf("error %v after %d events", err, seen)
	}
	if len(b.subscribers) != 0 {
		t.Errorf("%d subscribers are left", len(b.subscribers))
	}
}

func TestAStreamEndsAtItsTime(t *testing.T) {
	b := NewBus()
	until := time.Now().Add(30 * time.Millisecond)
	if err := b.Stream(patience(t), time.Time{}, until, nil, func(events.Message) error { return nil }); err != nil {
		t.Error(err)
	}
	if now := time.Now(); now.Before(until) {
		t.Errorf("the stream ended %v early", until.Sub(now))
	}
}

// The engine emits while it starts and stops containers: a client that does not
// read its events must not hold that up.
func TestASlowSubscriberMissesEventsAndStopsNobody(t *testing.T) {
	b := NewBus()
	emit(b, "first")
	reading, read := make(chan struct{}), make(chan struct{})
	ended := make(chan []string, 1)
	go func() {
		var got []string
		_ = b.Stream(patience(t), epoch, time.Time{}, nil, func(m events.Message) error {
			if m.Actor.ID == "first" {
				close(reading)
				<-read
				return nil
			}
			got = append(got, m.Actor.ID)
			if len(got) == backlog {
				return errEnough
			}
			return nil
		})
		ended <- got
	}()
	<-reading
	emitted := make(chan struct{})
	go func() {
		defer close(emitted)
		for i := range backlog + 500 {
			b.Emit(events.Message{Type: events.ContainerEventType, Actor: events.Actor{ID: fmt.Sprint(i)}})
		}
	}()
	select {
	case <-emitted:
	case <-time.After(10 * time.Second):
		t.Fatal("a subscriber that does not read stops the engine")
	}
	// Another one hears what happens now.
	if got := past(t, b, epoch, time.Time{}, filter.Args{"container": {fmt.Sprint(backlog + 499)}}); len(got) != 1 {
		t.Errorf("another subscriber hears %d events", len(got))
	}
	close(read)
	got := <-ended
	for i, id := range got {
		if id != fmt.Sprint(i) {
			t.Fatalf("event %d is %s: what fits must arrive in order", i, id)
		}
	}
	if len(got) != backlog {
		t.Errorf("%d events arrived, want %d", len(got), backlog)
	}
}
