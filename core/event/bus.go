// Package event is the engine's event stream: what happened to containers,
// images, networks and volumes, for whoever listens now, and the recent past.
package event

import (
	"context"
	"fmt"
	"github.com/containerd/errdefs"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/davit-engine/davit/core/filter"
)

const (
	history = 1024 // events kept for "since"
	backlog = 1024 // events a slow subscriber may lie behind before it misses some
)

// Bus distributes events. Emitting never waits for a subscriber.
type Bus struct {
	mu          sync.Mutex
	past        []events.Message // ring, oldest at next once full
	next        int
	subscribers map[chan events.Message]bool
}

// NewBus makes an empty bus.
func NewBus() *Bus { return &Bus{subscribers: map[chan events.Message]bool{}} }

// Emit stamps and distributes an event.
func (b *Bus) Emit(m events.Message) {
	now := time.Now()
	m.Time, m.TimeNano = now.Unix(), now.UnixNano()
	if m.Scope == "" {
		m.Scope = "local"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.past) < history {
		b.past = append(b.past, m)
	} else {
		b.past[b.next] = m
		b.next = (b.next + 1) % history
	}
	for subscriber := range b.subscribers {
		select {
		case subscriber <- m:
		default: // too far behind: it misses this one rather than stopping the engine
		}
	}
}

// Stream calls fn for past events since a time (zero: none) and then for live
// ones, until the time until (zero: forever), the end of ctx, or fn's error,
// which it returns.
func (b *Bus) Stream(ctx context.Context, since, until time.Time, f filter.Args, fn func(events.Message) error) error {
	live := make(chan events.Message, backlog)
	b.mu.Lock()
	past := append(append([]events.Message(nil), b.past[b.next:]...), b.past[:b.next]...)
	b.subscribers[live] = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.subscribers, live)
		b.mu.Unlock()
	}()
	for _, m := range past {
		at := time.Unix(0, m.TimeNano)
		if since.IsZero() || at.Before(since) || !until.IsZero() && at.After(until) || !Match(f, m) {
			continue
		}
		if err := fn(m); err != nil {
			return err
		}
	}
	var end <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		end = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return nil
		case m := <-live:
			if !Match(f, m) {
				continue
			}
			if err := fn(m); err != nil {
				return err
			}
		}
	}
}

// Match applies Docker's event filters.
func Match(f filter.Args, m events.Message) bool {
	name := m.Actor.Attributes["name"]
	object := func(field string, kind events.Type) bool {
		if !f.Has(field) {
			return true
		}
		return m.Type == kind && (f.Prefix(field, m.Actor.ID) || f.Exact(field, name))
	}
	action := string(m.Action)
	return f.Exact("type", string(m.Type)) &&
		(f.Exact("event", action) || f.Exact("event", prefixAction(action))) &&
		f.Labels("label", m.Actor.Attributes) &&
		f.Exact("scope", m.Scope) &&
		object("container", events.ContainerEventType) &&
		object("volume", events.VolumeEventType) &&
		object("network", events.NetworkEventType) &&
		(!f.Has("image") || f.Exact("image", m.Actor.Attributes["image"]) || m.Type == events.ImageEventType && (f.Exact("image", m.Actor.ID) || f.Exact("image", name)))
}

// prefixAction is the action without what follows a colon: "exec_start: ls" is
// an exec_start.
func prefixAction(action string) string {
	for i := range len(action) {
		if action[i] == ':' {
			return action[:i]
		}
	}
	return action
}

// ParseTime reads Docker's "since" and "until": unix seconds with a fraction.
// Empty is the zero time.
func ParseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	seconds, fraction := s, ""
	for i := range len(s) {
		if s[i] == '.' {
			seconds, fraction = s[:i], s[i+1:]
			break
		}
	}
	sec, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	var nano uint64
	if fraction != "" {
		for len(fraction) < 9 {
			fraction += "0"
		}
		if nano, err = strconv.ParseUint(fraction[:9], 10, 64); err != nil {
			return time.Time{}, err
		}
	}
	return time.Unix(sec, int64(nano)), nil
}

// Until reads the "until" filter of a prune: a time, or a duration before now.
// The zero time means that there is none.
func Until(f filter.Args) (time.Time, error) {
	if !f.Has("until") {
		return time.Time{}, nil
	}
	value := f["until"][0]
	if value == "" {
		return time.Time{}, errdefs.ErrInvalidArgument.WithMessage("invalid filter 'until='")
	}
	if ago, err := time.ParseDuration(value); err == nil {
		return time.Now().Add(-ago), nil
	}
	t, err := ParseTime(value)
	if err != nil {
		return t, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid filter 'until=%s'", value))
	}
	return t, nil
}
